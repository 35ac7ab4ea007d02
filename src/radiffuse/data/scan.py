"""Pixels with their geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MILLIMETER_TOLERANCE = 1e-2
"""Affines and spacings that differ by less, in mm, are the same: formats round differently."""


@dataclass(frozen=True)
class Scan:
    """One image or volume in the order of its file.

    Attributes:
        array: Films ``(C, rows, columns)``, volumes ``(C, i, j, k)`` in the axis order of NIfTI. Values
            as stored, after rescale slope and intercept. Label maps are integers with C = 1.
        spacing: Millimeters per voxel along each spatial axis; None where unknown (PNG, JPEG).
        affine: ``(4, 4)``, voxel indices to RAS+ millimeters; None for films without geometry.
        value_range: Lowest and highest value that the *format* can hold, such as (0, 255) for 8-bit
            PNG; None where the unit is physical (HU) or the range is open (float files).
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
        """Other pixels with the same geometry."""
        return replace(self, array=array)


def orientation(scan: Scan) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """File axis of each of the axes (right, anterior, superior), and whether it is reversed."""
    if scan.affine is None or scan.spatial_dims == 2:
        return tuple(range(scan.spatial_dims)), (False,) * scan.spatial_dims
    import nibabel

    codes = nibabel.orientations.io_orientation(scan.affine)
    order = np.argsort(codes[:, 0])
    return tuple(int(a) for a in order), tuple(bool(codes[a, 1] < 0) for a in order)


def canonical_shape(scan: Scan) -> tuple[int, ...]:
    """Voxels of a volume along (right, anterior, superior)."""
    return tuple(scan.spatial_shape[a] for a in orientation(scan)[0])


def canonical_spacing(scan: Scan) -> tuple[float, ...]:
    """Spacing of a volume in mm along (right, anterior, superior)."""
    spacing = scan.spacing or (1.0,) * scan.spatial_dims
    return tuple(spacing[a] for a in orientation(scan)[0])


def resampled(
    shape: tuple[int, ...], spacing: tuple[float, ...], target: tuple[float, ...]
) -> tuple[int, ...]:
    """Shape of a grid after resampling from one spacing to another, in mm."""
    return tuple(max(1, round(n * e / s)) for n, e, s in zip(shape, spacing, target, strict=True))


def resampled_shape(scan: Scan, spacing: tuple[float, ...]) -> tuple[int, ...]:
    """Shape of a volume on canonical axes after resampling to ``spacing``."""
    return resampled(canonical_shape(scan), canonical_spacing(scan), spacing)


def geometry_difference(one: Scan, other: Scan) -> str:
    """How two scans differ in size, or in place where both state it: a predicate, or ''."""
    if one.spatial_shape != other.spatial_shape:
        return f"has another size ({_times(one.spatial_shape)}, not {_times(other.spatial_shape)})"
    if one.affine is not None and other.affine is not None:
        corners = np.array(np.meshgrid(*([0, n - 1] for n in (*one.spatial_shape, 1)[:3])))
        homogeneous = np.vstack([corners.reshape(3, -1), np.ones(corners[0].size)])
        gap = np.abs((one.affine - other.affine) @ homogeneous).max()
        smallest = min(other.spacing) if other.spacing else 1.0
        if not gap <= max(MILLIMETER_TOLERANCE, 0.1 * smallest):
            return f"lies elsewhere (corners differ by up to {gap:.2f} mm)"
        return ""
    if one.spacing is None or other.spacing is None:
        return ""
    if not np.allclose(one.spacing, other.spacing, atol=MILLIMETER_TOLERANCE):
        return f"has another spacing ({_times(one.spacing)} mm, not {_times(other.spacing)} mm)"
    return ""


def gray_values(images: Array) -> Array:
    """uint8 gray values of images in [-1, 1]; values outside are clipped."""
    values: Array = ((images.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    return values


def _times(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
