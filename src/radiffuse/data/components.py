"""Connected pieces of a structure, and how many it has where the label maps agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .scan import Array

ENOUGH = 3
"""Patients whose label maps have to agree in the number of pieces [ours]."""


def pieces_of(region: Array) -> tuple[Array, Array]:
    """The number of its connected piece at each voxel, and the size of each; they touch by sides, edges or corners."""
    from scipy import ndimage

    pieces, _ = ndimage.label(region, np.ones((3,) * region.ndim, bool))
    return pieces, np.bincount(pieces.ravel())[1:]


def constant_pieces(counts: Sequence[int], patients: int) -> int | None:
    """How many pieces a structure has in every label map that has it; None where they differ or are of few patients.

    Two lungs are two pieces in every patient, and a mask with a third has an island. Lesions are as many as they are.

    Args:
        counts: Pieces in each label map that has the structure.
        patients: Whose label maps they are.
    """
    return counts[0] if patients >= ENOUGH and len(set(counts)) == 1 else None
