"""Score the masks of cases and write what a report needs: ``cases.csv``, and pictures of some in ``overlays.npz``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.arrays import write_arrays
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.scan import Array, Scan
from ..system.files import write_atomic
from .tables import evaluate_cases

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
        write_atomic(out / "cases.csv", self.table.to_csv(index=False))
        return out / "cases.csv"


def score_masks(
    cases: Dataset,
    mask_of: Callable[[Case, Scan, Scan], Scan],
    classes: Sequence[str],
    tolerance: float = 2.0,
    truth_of: Callable[[Case], Scan] = read_case_label,
) -> Scored:
    """Score the masks of labelled cases, one by one.

    Args:
        cases: The cases.
        mask_of: The mask for a case, its image and its truth.
        classes: Names by label value, background first.
        tolerance: Of the surface Dice, in mm (in pixels if the spacing is unknown).
        truth_of: The true label map of a case.

    Raises:
        InputError: A case cannot be read, or its mask does not fit it.
    """
    overlays: list[tuple[str, Array, Array, Array]] = []

    def pairs() -> Iterator[tuple[str, Scan, Scan]]:
        for case in cases:
            image, truth = read_case_image(case), truth_of(case)
            mask = mask_of(case, image, truth)
            if len(overlays) < OVERLAY_CASES:
                overlays.append((case.name, *thumbnails(image, mask, truth)))
            yield case.name, mask, truth

    table = evaluate_cases(pairs(), classes, tolerance)
    groups = {case.name: case.group for case in cases}
    table.insert(1, "group", [groups[name] for name in table["case"]])
    return Scored(table, overlays)


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
    arrays = [image.array.astype(np.float32).mean(0), prediction.array[0], truth.array[0]]
    if image.spatial_dims == 3:
        labelled = ((arrays[2] > 0) & (arrays[2] < 255)).sum(axis=(0, 1))
        where = int(labelled.argmax()) if labelled.any() else arrays[0].shape[2] // 2
        arrays = [np.flip(array[:, :, where].T, 0) for array in arrays]
    step = max(1, -(-max(arrays[0].shape) // OVERLAY_SIDE))
    arrays = [array[::step, ::step] for array in arrays]
    low, high = np.percentile(arrays[0], (0.5, 99.5))
    gray = np.clip((arrays[0] - low) / max(float(high - low), 1e-6), 0, 1) * 255
    return gray.astype(np.uint8), arrays[1].astype(np.uint8), arrays[2].astype(np.uint8)
