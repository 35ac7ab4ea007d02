"""Score the masks of cases and write what a report needs: ``cases.csv``, and pictures of some in ``overlays.npz``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.arrays import write_arrays
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.scan import Array, Scan, on_grid, orientation
from ..errors import InputError
from ..system.cells import csv_text
from ..system.files import write_atomic
from .tables import COLUMNS, case_rows

if TYPE_CHECKING:
    import pandas as pd

OVERLAY_SIDE = 256
OVERLAY_CASES = 64


@dataclass(frozen=True)
class Scored:
    """The table of ``tables.evaluate_cases``, with the patient as ``group``, and pictures of some cases.

    Attributes:
        table: Scores.
        overlays: Name, image, prediction and truth, see ``thumbnails``.
    """

    table: pd.DataFrame
    overlays: list[tuple[str, Array, Array, Array]]

    def write(self, out: Path) -> Path:
        """Write ``overlays.npz`` and then ``cases.csv``, whose path is returned."""
        if self.overlays:
            write_overlays(out / "overlays.npz", self.overlays)
        write_atomic(out / "cases.csv", csv_text(self.table))
        return out / "cases.csv"


def score_masks(
    cases: Dataset,
    mask_of: Callable[[Case, Scan, Scan], Scan],
    classes: Sequence[str],
    tolerance: float = 2.0,
    truth_of: Callable[[Case, Scan], Scan] = read_case_label,
    skip: Callable[[Case, InputError], None] | None = None,
) -> Scored:
    """Score the masks of labelled cases, one by one.

    Args:
        cases: The cases.
        mask_of: The mask for a case, its image and its truth.
        classes: Names by label value, background first.
        tolerance: Of the surface Dice, in mm (in pixels if the spacing is unknown).
        truth_of: The true label map of a case on the grid of its image.
        skip: Called with a case that cannot be scored, which is then left out; None: stop there.

    Raises:
        InputError: A case cannot be read, or its mask does not fit it; or none can be scored.
    """
    import pandas as pd

    overlays: list[tuple[str, Array, Array, Array]] = []
    rows: list[dict[str, Any]] = []
    scored = 0
    for case in cases:
        try:
            image = read_case_image(case)
            truth, place = truth_of(case, image), f"{case.name}: the mask"
            mask = on_grid(mask_of(case, image, truth), image, place, "its image")
            rows += case_rows(case.name, mask, truth, classes, tolerance)
        except InputError as error:
            if skip is None:
                raise
            skip(case, error)
            continue
        scored += 1
        if len(overlays) < OVERLAY_CASES:
            overlays.append((case.name, *thumbnails(image, mask, truth)))
    if len(cases) and not scored:
        raise InputError(cases.root, "holds no case that can be scored", "Correct the cases")
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    groups = {case.name: case.group for case in cases}
    table.insert(1, "group", [groups[name] for name in table["case"]])
    return Scored(table, overlays)


def say_skipped(case: Case, error: InputError) -> None:
    """Name a case that ``score_masks`` leaves out."""
    print(f"radiffuse: {error}", file=sys.stderr)


def write_overlays(path: Path, overlays: Sequence[tuple[str, Array, Array, Array]]) -> None:
    """Write name, image, prediction and truth of cases, padded to one size, as uint8 arrays."""
    size = np.max([image.shape for _, image, _, _ in overlays], axis=0)

    def stack(index: int) -> Array:
        result = np.zeros((len(overlays), *size), np.uint8)
        for i, row in enumerate(overlays):
            part = np.asarray(row[index])
            result[i, : part.shape[0], : part.shape[1]] = part
        return result

    arrays = {"names": np.array([name for name, *_ in overlays]), "image": stack(1)}
    write_arrays(path, arrays | {"prediction": stack(2), "truth": stack(3)})


def thumbnails(image: Scan, prediction: Scan, truth: Scan) -> tuple[Array, Array, Array]:
    """Small uint8 pictures ``(rows, columns)`` of image, predicted and true labels.

    Of a volume, it is the axial slice with the most labelled voxels, the patient's right on the left.
    """
    arrays = [image.array, prediction.array[0], truth.array[0]]
    if image.spatial_dims == 3:
        axes, flips = orientation(image)
        labelled = ((arrays[2] > 0) & (arrays[2] < 255)).sum(axis=tuple(axes[:2]))
        where = int(labelled.argmax()) if labelled.any() else image.spatial_shape[axes[2]] // 2
        arrays = [_axial(array, where, axes, flips) for array in arrays]
    arrays[0] = arrays[0].astype(np.float32).mean(0)
    step = max(1, -(-max(arrays[0].shape) // OVERLAY_SIDE))
    arrays = [array[::step, ::step] for array in arrays]
    low, high = np.percentile(arrays[0], (0.5, 99.5))
    gray = np.clip((arrays[0] - low) / max(float(high - low), 1e-6), 0, 1) * 255
    return gray.astype(np.uint8), arrays[1].astype(np.uint8), arrays[2].astype(np.uint8)


def _axial(array: Array, where: int, axes: Sequence[int], flips: Sequence[bool]) -> Array:
    """A slice ``(..., rows, columns)`` of ``(..., i, j, k)``, front up; ``axes`` and ``flips`` of ``orientation``."""
    first = array.ndim - 3
    plane = np.take(array, where, first + axes[2])
    plane = plane if axes[0] > axes[1] else plane.swapaxes(-1, -2)
    turned = tuple(axis for axis, flip in ((-2, flips[1]), (-1, flips[0])) if not flip)
    upright: Array = np.flip(plane, turned)
    return upright
