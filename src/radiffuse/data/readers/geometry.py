"""Affines: from DICOM's and ITK's axes to those of NIfTI, and from volumes to films."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..scan import Array, Scan
from .common import DAMAGED

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""In DICOM, ITK and MetaImage left and posterior are positive, in NIfTI right and anterior."""


TO_MILLIMETERS = "Convert it to millimeters"


@dataclass(frozen=True)
class NiftiScan(Scan):
    """A scan with sform and qform of its NIfTI file, for masks to be written with.

    Each is a ``(4, 4)`` matrix in the file's axis order and its code; None where the code is 0.
    """

    sform: tuple[Array | None, int] = (None, 0)
    qform: tuple[Array | None, int] = (None, 0)


def affine_from_axes(axes: Array, origin: Array, to_ras: Array = LPS_TO_RAS) -> NDArray[np.float64]:
    """The ``(4, 4)`` affine from voxel indices to RAS+ millimeters.

    Args:
        axes: ``(3, n)``, n = 2 or 3: the step of each array axis, in mm in the file's own system.
            A film's third axis is set to one millimeter along its normal.
        origin: ``(3,)``, the center of the first voxel, in the same system.
        to_ras: ``(3, 3)``, from that system to RAS+.
    """
    if axes.shape[1] == 2:
        normal = np.cross(axes[:, 0], axes[:, 1])
        length = float(np.linalg.norm(normal))
        axes = np.column_stack([axes, normal / length if length else normal])
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ axes
    affine[:3, 3] = to_ras @ origin
    return affine


def swap_film_axes(affine: Array) -> NDArray[np.float64]:
    """The affine of the same image with its first two axes exchanged."""
    return np.asarray(affine, np.float64)[:, [1, 0, 2, 3]]


def spacing_of(path: Path, affine: Array, dims: int) -> tuple[float, ...]:
    """Length of each voxel axis, in mm.

    Raises:
        InputError: The affine is not finite, or is singular.
    """
    if not spans_space(affine):
        raise InputError(path, "has an affine that is not finite or does not span space", DAMAGED)
    sizes = np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0)
    return tuple(float(size) for size in sizes[:dims])


def spans_space(affine: Array | None) -> bool:
    """Whether an affine is there, finite, and not singular."""
    if affine is None or not np.isfinite(affine).all():
        return False
    axes = np.asarray(affine, np.float64)[:3, :3]
    sizes = np.linalg.norm(axes, axis=0)
    return bool((sizes > 0).all() and abs(np.linalg.det(axes / sizes)) >= 1e-3)


def to_scan_order(data: Array, dims: int) -> Array:
    """From ``([C,] i, j[, k])`` to ``(C, rows, columns)`` or ``(C, i, j, k)``."""
    if data.ndim == dims:
        data = data[None]
    return data.swapaxes(1, 2) if dims == 2 else data
