"""Score the masks of cases and leave what a report needs.

cases.csv         scores of each case and class; written last
overlays.npz      small pictures of some cases with both masks
calibration.csv   how often the segmenter was right, by how sure it was
steps.csv         Dice by case and step of the sampling, for a sampler
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..core.losses import dice_scores
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..system.files import write_atomic
from .calibration import Calibration
from .tables import evaluate_cases

if TYPE_CHECKING:
    import pandas as pd

OVERLAY_SIDE = 256
OVERLAY_CASES = 64


class Answer(Protocol):
    """A segmented scan."""

    @property
    def mask(self) -> Array:
        """Labels ``(*spatial)``."""

    @property
    def confidence(self) -> Array:
        """Probability of the winning class ``(*spatial)``."""


class Answers(Protocol):
    """What segments: a ``Predictor``."""

    @property
    def plan(self) -> Plan:
        """How scans are treated, with the classes."""

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Of the steps that can be scored one by one; () where there is a result alone."""

    def __call__(self, scan: Scan, name: str = "") -> Answer:
        """Segment a scan."""

    def every_step(self, scan: Scan, name: str = "") -> Sequence[Answer]:
        """The masks after each step, the result last."""


def score_with(
    answers: Answers, dataset: Dataset, names: Sequence[str], out: Path, tolerance: float = 2.0
) -> Path:
    """Segment the named cases at their own resolution and score them.

    Args:
        answers: What segments.
        dataset: Where the cases are.
        names: Which cases.
        out: Folder for all the files of this module.
        tolerance: Of the surface Dice, in mm.

    Returns:
        The path of ``cases.csv``.
    """
    wanted = set(names)
    calibration = Calibration()
    steps: list[dict[str, Any]] = []

    def segment(case: Case, image: Scan, truth: Scan) -> Scan:
        if answers.timesteps:
            masks = answers.every_step(image, case.name)
            steps.extend(_steps(case, masks, answers, truth))
        else:
            masks = [answers(image, case.name)]
        result = masks[-1]
        calibration.add(result.confidence, result.mask, truth.array[0])
        return image.with_array(result.mask[None])

    cases = dataset.filter(lambda case: case.name in wanted)
    scored = score_masks(cases, segment, answers.plan.classes, tolerance)
    write_atomic(out / "calibration.csv", calibration.table().to_csv(index=False))
    if steps:
        write_atomic(out / "steps.csv", _csv(steps))
    return scored.write(out)


@dataclass(frozen=True)
class Scored:
    """Scores of cases, and pictures of some.

    Attributes:
        table: See ``tables.evaluate_cases``, with the patient as ``group``.
        overlays: Name, image, prediction and truth, see ``thumbnails``.
    """

    table: pd.DataFrame
    overlays: list[tuple[str, Array, Array, Array]] = field(default_factory=list)

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
        tolerance: Of the surface Dice, in mm (in pixels where the spacing is unknown).
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

    buffer = io.BytesIO()
    names = np.array([name for name, *_ in overlays])
    np.savez_compressed(buffer, names=names, image=stack(1), prediction=stack(2), truth=stack(3))
    write_atomic(path, buffer.getvalue())


def thumbnails(image: Scan, prediction: Scan, truth: Scan) -> tuple[Array, Array, Array]:
    """Small uint8 pictures ``(rows, columns)`` of image, predicted and true labels.

    Of a volume it is the axial slice with the most labelled voxels, right side of the body on the left.
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


# ------------------------------------------------------------------------------------------------ internal


def _steps(
    case: Case, masks: Sequence[Answer], answers: Answers, truth: Scan
) -> Iterator[dict[str, Any]]:
    true = torch.from_numpy(truth.array.astype("int64"))
    for number, (answer, t) in enumerate(zip(masks, answers.timesteps, strict=True), start=1):
        mask = torch.from_numpy(answer.mask.astype("int64"))[None]
        dice = dice_scores(mask, true, len(answers.plan.classes))[0]
        yield {"case": case.name, "group": case.group, "step": number, "timestep": t, "dice": dice}


def _csv(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    text: str = pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
    return text
