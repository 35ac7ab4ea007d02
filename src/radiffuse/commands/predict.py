"""``radiffuse predict``: masks of scans by trained runs, in each scan's own geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import Predict
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..errors import InputError, damaged, printable
from ..evaluation.tables import in_no_mask
from ..inference.dicom_seg import require_highdicom
from ..inference.expecting import table_of
from ..inference.masks import SHAPING, MaskWriter, Recorded, write_masks
from ..inference.records import Record, doubts, header, never_shown
from ..system.files import read_json
from ..system.saying import say
from ..train.known import trained_on
from ..train.run import Run


def predict(settings: Predict) -> Path:
    """Write a mask for every case: PNG for films, NIfTI for volumes, or DICOM-SEG, on the scan's own grid.

    Masks of these runs, settings and scans, by their record, are kept, so an interrupted prediction is resumed.

    Returns:
        The folder of the masks, which also holds ``classes.json`` and the record, see ``inference.records``.

    Raises:
        InputError: Run or data cannot be used, or the folder holds anything but masks of these runs and settings; with
            ``--skip-bad`` a bad scan is named and left out, unless all are bad.
    """
    write, dataset, made_by = open_segmented(settings)
    out = Path(settings.out)
    record = write_masks(
        out,
        made_by,
        dataset,
        Recorded(out, tuple(write.groups), len(write.predictor.plan.channels), write),
        trained=trained_on(write.runs, dataset),
        skip_bad=settings.reader.skip_bad,
        scheduler=settings.machine.scheduler,
    )
    entries = [record.entries[case.name] for case in dataset if case.name in record.entries]
    for line in table_of(entries):
        print(printable(line))
    for doubt in doubts(entries):
        say(f"{settings.data}: {doubt}")
    if lost := in_no_mask(never_shown(entries, write.predictor.plan.classes), len(entries)):
        say(f"{out}: {lost}")
    return out


def open_segmented(settings: Predict) -> tuple[MaskWriter, Dataset, dict[str, Any]]:
    """Open the runs and the data; nothing is written.

    Returns:
        What writes masks, the cases, and the record of the folder.

    Raises:
        InputError: Run or data cannot be used, or the folder holds something else.
    """
    if settings.format == "dicom-seg":
        require_highdicom()
    write = MaskWriter(settings)
    plan = write.predictor.plan  # runs that cannot be used are reported before the data are read
    dataset = open_dataset(Path(settings.data), settings.reader)
    if settings.cases != "all":
        dataset = _part(dataset, write.runs[0], settings.cases)
    shaping = {name: getattr(settings, name) for name in SHAPING}
    shaping["tta"] = None if settings.tta is None else ",".join(sorted(set(settings.tta)))
    runs = zip(settings.runs, write.identities, strict=True)
    made_by = header("predict", runs, shaping, plan.classes)
    Record.begin(Path(settings.out), made_by)
    return write, dataset, made_by


def _part(dataset: Dataset, run: Run, part: str) -> Dataset:
    """The cases of a part of the run's splits."""
    path = run.folder / "splits.json"
    with damaged(path):
        names = set(read_json(path, dict[str, int | list[str] | list[list[str]]])[part])
    chosen = dataset.filter(lambda case: case.name in names)
    if not len(chosen):
        problem = f"holds none of the run's {part} cases"
        raise InputError(dataset.root, problem, "Give the data set of the run")
    return chosen
