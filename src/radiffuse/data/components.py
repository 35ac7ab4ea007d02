"""Connected pieces of a structure: how many it has where the label maps agree, and what is too small to be one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .scan import Array

ENOUGH = 3
"""Patients whose label maps have to agree in the number of pieces [ours]."""
LARGE = {2: 0.02, 3: 0.002}
"""Share of the image that the smallest piece of an organ has at least, by dimensions [ours]: both lungs on a film have
more, and a kidney in an abdomen; most lesions have less."""
ISLAND = 0.25
"""A piece below this part of the smallest in the label maps is an island [ours]: of .02 to .4, the larger gained more
on lungs from one label, on films that were not tested."""


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


def island_size(
    volumes: Sequence[float], shares: Sequence[float], patients: int, dims: int
) -> tuple[float, float] | None:
    """Below which volume, and which share of the image, a piece of an organ is an island.

    One or two label maps do not say how many pieces there are: lungs that touch are one. But where all of their pieces
    are large, a small one is none. None where pieces are counted, or may be small.

    Args:
        volumes: Of the smallest piece in each label map that has the structure.
        shares: The part of the image that it has.
        patients: Whose label maps they are.
        dims: Of the images.
    """
    if not 0 < patients < ENOUGH or min(shares) < LARGE[dims]:
        return None
    return ISLAND * min(volumes), ISLAND * min(shares)
