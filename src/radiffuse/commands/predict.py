"""``radiffuse predict``: masks of scans by trained runs, in each scan's own geometry."""

from __future__ import annotations

import sys
from pathlib import Path

from ..config import Predict
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.workers import each
from ..errors import InputError
from ..inference.dicom_seg import require_highdicom
from ..inference.masks import MaskWriter
from ..system.files import locked, make_folder, read_json, write_json
from ..train.progress import ProgressLine
from ..train.run import Run


def predict(settings: Predict) -> Path:
    """Write a mask for every case: PNG for films, NIfTI for volumes, or DICOM-SEG, on the scan's own grid.

    Existing masks are kept, so an interrupted prediction is resumed.

    Returns:
        The folder of the masks, which also holds ``classes.json``.

    Raises:
        InputError: Run or data cannot be used; with ``--skip-bad`` a bad scan is named and left out.
    """
    if settings.format == "dicom-seg":
        require_highdicom()
    write = MaskWriter(settings)
    plan = write.predictor.plan  # runs that cannot be used are reported before the data are read
    dataset = open_dataset(Path(settings.data), settings.reader)
    if settings.cases != "all":
        dataset = _part(dataset, Run.open(settings.runs[0]), settings.cases)
    out = Path(settings.out)
    make_folder(out)
    with locked(out):
        write_json(out / "classes.json", {str(i): name for i, name in enumerate(plan.classes)})
        if skipped := _write_all(write, dataset, settings):
            write_json(out / "skipped.json", skipped)
    return out


def _part(dataset: Dataset, run: Run, part: str) -> Dataset:
    """The cases of a part of the run's splits."""
    names = set(read_json(run.folder / "splits.json")[part])
    chosen = dataset.filter(lambda case: case.name in names)
    if not len(chosen):
        problem = f"holds none of the run's {part} cases"
        raise InputError(dataset.root, problem, "Give the data set of the run")
    return chosen


def _write_all(write: MaskWriter, dataset: Dataset, settings: Predict) -> list[dict[str, str]]:
    """Write every mask; returns the skipped cases with reasons."""
    line, skipped = ProgressLine("segmenting"), []
    scheduler = settings.machine.scheduler
    outcomes = each(write, dataset, scheduler=scheduler, workers=0, name=lambda case: case.name)
    for number, (case, outcome) in enumerate(outcomes, start=1):
        if isinstance(outcome, InputError):
            if not settings.reader.skip_bad:
                raise outcome
            skipped.append({"case": case.name, "reason": str(outcome)})
            print(f"radiffuse: {outcome}", file=sys.stderr)
        line.update(number, len(dataset), case.name)
    return skipped
