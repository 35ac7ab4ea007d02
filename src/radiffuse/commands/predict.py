"""Segment scans with a trained run and write masks in each scan's own geometry."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import Predict
from ..data.cases import read_case_image
from ..data.dataset import Case, Dataset
from ..data.layouts import open_dataset
from ..data.readers import write_image, write_label
from ..data.workers import each
from ..errors import InputError
from ..inference.dicom_seg import require_highdicom, write_dicom_seg
from ..inference.members import Overrides
from ..inference.predictor import Predictor
from ..system.files import locked, make_folder, read_json, write_json
from ..train.progress import ProgressLine
from ..train.run import Run


def predict(settings: Predict) -> Path:
    """Write a mask for every case: PNG for films, NIfTI for volumes, or DICOM-SEG, on the scan's own grid.

    Masks that are already there are kept, so an interrupted prediction goes on.

    Args:
        settings: See ``radiffuse.config.Predict``.

    Returns:
        The folder of the masks, which also holds ``classes.json``.

    Raises:
        InputError: Run or data cannot be used; with ``--skip-bad`` a bad scan is named and left out.
    """
    if settings.format == "dicom-seg":
        require_highdicom()
    work = _Work(settings)
    _ = work.predictor  # runs that cannot be used are named before the data are looked at
    run = Run.open(settings.runs[0])
    dataset = _chosen(open_dataset(Path(settings.data), settings.reader), run, settings.cases)
    out = Path(settings.out)
    make_folder(out)
    with locked(out):
        _all(work, dataset, out, settings)
    return out


# ------------------------------------------------------------------------------------------------ internal


def _all(work: _Work, dataset: Dataset, out: Path, settings: Predict) -> None:
    plan = work.predictor.plan
    write_json(out / "classes.json", {str(i): c for i, c in enumerate(plan.classes)})
    line, skipped = ProgressLine("segmenting"), []
    scheduler = settings.machine.scheduler
    outcomes = each(work, dataset, scheduler=scheduler, workers=0, name=lambda case: case.name)
    for number, (case, outcome) in enumerate(outcomes, start=1):
        if isinstance(outcome, InputError):
            if not settings.reader.skip_bad:
                raise outcome
            skipped.append({"case": case.name, "reason": str(outcome)})
            print(f"radiffuse: {outcome}", file=sys.stderr)
        line.update(number, len(dataset), case.name)
    if skipped:
        write_json(out / "skipped.json", skipped)


class _Work:
    """Segments a case and writes its mask, unless it is there; on a cluster each worker opens the runs itself."""

    def __init__(self, settings: Predict) -> None:
        self.settings = settings

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __call__(self, case: Case) -> None:
        suffix = ".png" if self.predictor.plan.spatial_dims == 2 else ".nii.gz"
        suffix = ".dcm" if self.settings.format == "dicom-seg" else suffix
        path = Path(self.settings.out) / f"{case.name}{suffix}"
        if not path.exists():
            _one(self.predictor, case, path, self.settings.confidence)

    @cached_property
    def predictor(self) -> Predictor:
        settings = self.settings
        return Predictor.open(
            [Run.open(folder) for folder in settings.runs],
            settings.machine,
            Overrides(settings.sampler, settings.steps, settings.legacy_timesteps, settings.head),
            overlap=settings.overlap,
            samples=settings.samples,
            ensemble=settings.ensemble,
            uncertainty=settings.uncertainty,
            seed=settings.seed,
        )


def _one(predictor: Predictor, case: Case, path: Path, confidence: bool) -> None:
    # A single four-dimensional file may hold all channels that the run wants.
    held = max(case.file_channels, len(predictor.plan.channels))
    scan = read_case_image(replace(case, file_channels=held))
    try:
        found = predictor(scan, case.name)
    except InputError as error:
        raise InputError(case.images[0], error.problem, error.remedy) from None
    maps = dict(found.maps) | ({"confidence": found.confidence} if confidence else {})
    suffix = ".tif" if predictor.plan.spatial_dims == 2 else ".nii.gz"
    for kind, values in maps.items():
        write_image(path.with_name(f"{case.name}-{kind}{suffix}"), values, scan)
    # The mask last: it marks the case as done.
    if path.suffix == ".dcm":
        classes = predictor.plan.classes
        write_dicom_seg(path, found.mask, classes, case.images[0], case.series)
    else:
        write_label(path, found.mask, scan)


def _chosen(dataset: Dataset, run: Run, part: str) -> Dataset:
    if part == "all":
        return dataset
    names = read_json(run.folder / "splits.json")[part]
    chosen = dataset.filter(lambda case: case.name in set(names))
    if not len(chosen):
        raise InputError(
            dataset.root, f"holds none of the run's {part} cases", "Give the data set of the run"
        )
    return chosen
