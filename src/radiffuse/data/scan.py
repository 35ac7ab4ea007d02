"""Pixels with their geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Array = NDArray[Any]

INTEGERS = (np.uint8, np.int16, np.int32)
"""Types of label maps, which all viewers read."""

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
        note: What reading had to judge, for ``check`` to say; ``""`` where there was nothing.
        guessed: Whether the affine is only a guess, in which programs differ: the file says no place, at most sizes.
        as_color: Whether it is a gray film that was stored as RGB.
    """

    array: Array
    spacing: tuple[float, ...] | None = None
    affine: Array | None = None
    value_range: tuple[float, float] | None = None
    unit: str = "gray"
    note: str = ""
    guessed: bool = False
    as_color: bool = False

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Extent of the spatial axes, in voxels."""
        return tuple(int(n) for n in self.array.shape[1:])

    @property
    def spatial_dims(self) -> int:
        """Two for films, three for volumes."""
        return self.array.ndim - 1

    @property
    def placed(self) -> bool:
        """Whether the affine says where the scan lies."""
        return self.affine is not None and not self.guessed

    @property
    def sizes(self) -> tuple[float, ...] | None:
        """The spacing that the file states: beside no place, sizes of 1 are what programs write that know none."""
        return None if self.guessed and {*(self.spacing or ())} == {1.0} else self.spacing

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
        return f"has another size ({times(one.spatial_shape)}, not {times(other.spatial_shape)})"
    if one.placed and other.placed:
        assert one.affine is not None
        assert other.affine is not None
        corners = np.array(np.meshgrid(*([0, n - 1] for n in (*one.spatial_shape, 1)[:3])))
        homogeneous = np.vstack([corners.reshape(3, -1), np.ones(corners[0].size)])
        gap = np.abs((one.affine - other.affine) @ homogeneous).max()
        smallest = min(other.spacing) if other.spacing else 1.0
        if not gap <= max(MILLIMETER_TOLERANCE, 0.1 * smallest):
            return f"lies elsewhere (corners differ by up to {gap:.2f} mm)"
        return ""
    if one.sizes is None or other.sizes is None:
        return ""
    if not np.allclose(one.sizes, other.sizes, atol=MILLIMETER_TOLERANCE):
        return f"has another spacing ({times(one.sizes)} mm, not {times(other.sizes)} mm)"
    return ""


def turned_onto(scan: Scan, grid: Scan) -> Scan | None:
    """The values of a scan on another scan's grid, by exchanging and reversing axes alone.

    Returns:
        The scan with the geometry of ``grid``, which shares its memory; None where it has another
        place in space, or where the two do not state it.
    """
    if not (scan.placed and grid.placed) or scan.spatial_dims != grid.spatial_dims:
        return None
    assert scan.affine is not None
    assert grid.affine is not None
    own, other = (each[:3, : grid.spatial_dims] for each in (scan.affine, grid.affine))
    cosines = (own / np.linalg.norm(own, axis=0)).T @ (other / np.linalg.norm(other, axis=0))
    order = [int(axis) for axis in np.abs(cosines).argmax(axis=0)]
    if sorted(order) != list(range(grid.spatial_dims)):
        return None
    flips = [axis for axis, source in enumerate(order) if cosines[source, axis] < 0]
    affine = np.array(scan.affine, np.float64)
    affine[:3, : len(order)] = affine[:3, order]
    array = scan.array.transpose(0, *(axis + 1 for axis in order))
    for axis in flips:
        affine[:3, 3] += (array.shape[axis + 1] - 1) * affine[:3, axis]
        affine[:3, axis] *= -1
    turned = replace(scan, array=np.flip(array, tuple(axis + 1 for axis in flips)), affine=affine)
    if geometry_difference(turned, grid):
        return None
    return replace(grid, array=turned.array, value_range=scan.value_range, unit=scan.unit)


def on_grid(scan: Scan, grid: Scan, where: Path | str, name: str) -> Scan:
    """A label map or mask on the grid of its image or truth, whose geometry it gets, turned where its axes are others.

    A map without a place in space is taken as it lies. ``where`` and ``name`` say in messages which map it is, and what
    it belongs to.

    Raises:
        InputError: It differs in size or place.
    """
    if (turned := turned_onto(scan, grid)) is not None:
        return turned
    if difference := geometry_difference(scan, grid):
        remedy = "Draw it on this image, or resample it to the image's grid"
        raise InputError(where, f"{difference} than {name}", remedy)
    return replace(grid, array=scan.array, value_range=scan.value_range, unit=scan.unit)


def in_color(held: int, dims: int, seen: int) -> bool:
    """Whether a scan with so many channels is a color film that a plan, which sees ``seen`` of them, turns to gray."""
    return dims == 2 and held == 3 and seen == 1


def gray_values(images: Array) -> Array:
    """uint8 gray values of images in [-1, 1]; values outside are clipped."""
    values: Array = ((images.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    return values


def narrowest(
    low: float, high: float, kinds: Sequence[type[np.integer[Any]]] = INTEGERS
) -> type[np.integer[Any]] | None:
    """The first of these types of integers that holds both ends; None if none does."""
    return next((k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max), None)


def rounded(number: float) -> str:
    """Three significant digits, as a person writes them: 92730.5 as ``92,700``, 0.012345 as ``0.0123``."""
    return f"{float(f'{number:.3g}'):,.10g}"


def times(numbers: Sequence[float]) -> str:
    """``512 x 512``."""
    return " x ".join(f"{number:g}" for number in numbers)
