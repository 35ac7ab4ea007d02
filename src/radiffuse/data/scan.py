"""What a reader returns and a writer needs: pixels with their geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Scan:
    """One image or volume in the order of its file.

    Attributes:
        array: ``(C, *spatial)``, two or three spatial axes. Films are ``(C, rows, columns)``; volumes keep
            the axis order of NIfTI, ``(C, i, j, k)``. Pixel values as stored, after rescale slope and
            intercept (CT in HU, films in grey values). Label maps are integers with C = 1.
        spacing: Millimetres per voxel along each spatial axis; None where the file does not say (PNG, JPEG).
        affine: 4 x 4, voxel indices to RAS+ millimetres as in NIfTI; None for films without geometry.
        value_range: Lowest and highest value the *format* can hold, such as (0, 255) for 8-bit PNG; None
            where the unit is physical (HU) or the range is open (float files).
        unit: ``"HU"`` for CT, ``"gray"`` otherwise.
    """

    array: Array
    spacing: tuple[float, ...] | None = None
    affine: Array | None = None
    value_range: tuple[float, float] | None = None
    unit: str = "gray"

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Extent of the spatial axes, in voxels."""
        return tuple(int(n) for n in self.array.shape[1:])

    @property
    def spatial_dims(self) -> int:
        """Two for films, three for volumes."""
        return self.array.ndim - 1

    def with_array(self, array: Array) -> Scan:
        """The same geometry around other pixels."""
        return replace(self, array=array)
