"""Masks of the cases of a data set, here or on the workers of a cluster, each with its line in the record.

A case is done if its line names the scan as it is now and every file that is asked for. The main process alone writes
lines and names: workers leave finished files in a folder of their own.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Predict
from ..data.cases import hash_of_files, read_case_image
from ..data.dataset import Case, Dataset
from ..data.issues import some
from ..data.readers import write_image, write_label
from ..data.scan import Scan
from ..data.workers import each
from ..errors import InputError
from ..system.files import end_last_line, locked, make_folder, sha256, write_json
from ..system.saying import say
from ..train.progress import ProgressLine
from ..train.run import Run
from .dicom_seg import write_dicom_seg
from .expecting import COLUMN, Calibration, calibration_of
from .members import Overrides
from .predictor import Predictor
from .records import (
    MASKS,
    SHOWN,
    Entry,
    Record,
    hash_of_voxels,
    identity,
    partial_folder,
    same_scan,
    scan_of,
    short,
)

MAP_GROUPS = ("confidence", "uncertainty")
SHAPING = ("overlap", "sampler", "steps", "legacy_timesteps", "head", "samples", "ensemble", "seed")
"""Settings of ``predict`` that masks depend on, beyond rounding, and that are single values."""

Files = dict[str, list[str]]
"""Names of written files by group."""
Facts = dict[str, Any]
"""What the line of a case says besides."""


class MaskWriter:
    """Segments a scan and writes its mask and maps; on a cluster each worker opens the runs itself."""

    def __init__(self, settings: Predict) -> None:
        self.settings = settings

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "identities": self.identities}

    @cached_property
    def runs(self) -> list[Run]:
        """The runs that vote."""
        return [Run.open(folder) for folder in self.settings.runs]

    @cached_property
    def identities(self) -> list[dict[str, str]]:
        """What the runs are, see ``records.identity``."""
        return [identity(run) for run in self.runs]

    @cached_property
    def predictor(self) -> Predictor:
        """The runs, ready to segment.

        Raises:
            InputError: They cannot be used, or are no longer what they were when the command began.
        """
        settings = self.settings
        begun = self.__dict__.get("identities")
        predictor = Predictor.open(
            self.runs,
            settings.machine,
            Overrides(settings.sampler, settings.steps, settings.legacy_timesteps, settings.head),
            overlap=settings.overlap,
            samples=settings.samples,
            ensemble=settings.ensemble,
            tta=settings.tta,
            uncertainty=settings.uncertainty,
            seed=settings.seed,
        )
        if begun is not None and begun != [identity(run) for run in self.runs]:
            problem = "has changed since the command began"
            raise InputError(", ".join(settings.runs), problem, "Let its training end first")
        return predictor

    @property
    def groups(self) -> list[str]:
        """Groups of files that the settings ask for, the mask's first."""
        mask = "mask" if self.settings.format == "auto" else self.settings.format
        return [mask, *(name for name in MAP_GROUPS if getattr(self.settings, name))]

    @cached_property
    def calibration(self) -> Calibration | None:
        """For the Dice to expect; None where the run has none, or is used in another way than it was scored."""
        if len(self.runs) > 1 or (found := calibration_of(self.runs[0])) is None:
            return None
        usual = Predict()
        changed = [n for n in (*SHAPING, "tta") if getattr(self.settings, n) != getattr(usual, n)]
        return None if changed else found

    def __call__(self, case: Case, scan: Scan, out: Path) -> tuple[Files, Facts]:
        """Write the mask of a case and the requested maps into a folder; also returns the Dice to expect.

        Raises:
            InputError: The scan does not have the axes and channels of the plan.
        """
        plan = self.predictor.plan
        with _naming(case):
            segmented = self.predictor(scan, case.name)
        endings = (".png", ".tif") if plan.spatial_dims == 2 else (".nii.gz", ".nii.gz")
        mask = self.groups[0]
        path = out / f"{case.name}{endings[0] if mask == 'mask' else '.dcm'}"
        if mask == "mask":
            write_label(path, segmented.mask, scan)
        else:
            source = case.images[0], case.series
            write_dicom_seg(path, segmented.mask, plan.classes, *source, short(self.identities))
        files: Files = {group: [] for group in self.groups} | {mask: [path.name]}
        kinds = dict.fromkeys(segmented.maps, "uncertainty")
        if self.settings.confidence:
            kinds["confidence"] = "confidence"
        for kind, group in kinds.items():
            values = segmented.confidence if group == "confidence" else segmented.maps[kind]
            files[group].append(f"{case.name}-{kind}{endings[1]}")
            write_image(out / files[group][-1], values, scan)
        shown = [plan.classes[value] for value in np.unique(segmented.mask) if value]
        expected = self.calibration(segmented.expected, plan.classes) if self.calibration else {}
        facts = {SHOWN: shown} | ({COLUMN: expected} if expected else {})
        return files, facts | dict.fromkeys(self.predictor.doubts(scan), True)

    def verify(self, case: Case) -> None:
        """Refuse a case that cannot be read, or does not have the axes and channels of the plan."""
        scan = read_scan_of(case, len(self.predictor.plan.channels))
        with _naming(case):
            self.predictor.to_plan(scan)


@contextmanager
def _naming(case: Case) -> Iterator[None]:
    """What is wrong with a scan names its file."""
    try:
        yield
    except InputError as error:
        raise InputError(case.images[0], error.problem, error.remedy) from None


@dataclass(frozen=True)
class Recorded:
    """Makes what a case lacks by its line in the record; returns its line as it is to be.

    Attributes:
        out: Folder of the masks.
        groups: Groups of files that are asked for.
        channels: That a single four-dimensional file may hold.
        make: Writes the files of a case into a folder.
    """

    out: Path
    groups: tuple[str, ...]
    channels: int
    make: Callable[[Case, Scan, Path], tuple[Files, Facts]]

    def __call__(self, item: tuple[Case, Entry | None, bool]) -> Entry:
        """The line of a case, from the case, its line so far, and whether it was trained on.

        Raises:
            InputError: The scan cannot be read or segmented; a mask of the scan before it is gone all the same.
        """
        case, former, trained = item
        before = scan_of(case)
        kept: Mapping[str, Mapping[str, str]] = {}
        if former is not None:
            kept = former["files"]
            if same_scan(former["scan"], case, before):
                scan = former["scan"] | before
                if all(self._there(kept.get(group)) for group in self.groups):
                    return former | {"scan": scan, "trained": trained}
            else:
                for name in (name for files in kept.values() for name in files):
                    (self.out / name).unlink(missing_ok=True)
                kept = {}
        image = read_scan_of(case, self.channels)
        part = partial_folder(self.out, case.name)
        shutil.rmtree(part, ignore_errors=True)
        make_folder(part)
        written, facts = self.make(case, image, part)
        hashes = {"sha256": hash_of_files(case), "voxels": hash_of_voxels(image)}
        if scan_of(case) != before:
            raise InputError(case.images[0], "changed while it was read", "Repeat the command")
        new = {
            group: {name: sha256(part / name) for name in names} for group, names in written.items()
        }
        return {
            "case": case.name,
            "scan": before | hashes,
            "trained": trained,
            "files": {**kept, **new},
        } | facts

    def _there(self, files: Mapping[str, str] | None) -> bool:
        return files is not None and all((self.out / name).is_file() for name in files)


def read_scan_of(case: Case, channels: int) -> Scan:
    """The scan of a case; a single four-dimensional file may hold that many channels."""
    return read_case_image(replace(case, file_channels=max(case.file_channels, channels)))


def write_masks(
    out: Path,
    header: dict[str, Any],
    dataset: Dataset,
    make: Recorded,
    *,
    trained: Collection[str] = (),
    skip_bad: bool = False,
    scheduler: str | None = None,
) -> Record:
    """Write the masks that a folder lacks, with their record.

    Args:
        out: The folder.
        header: Of the record.
        dataset: The cases.
        make: Makes a case.
        trained: Names of cases that were trained on.
        skip_bad: List bad scans in ``skipped.json`` instead of stopping at the first.
        scheduler: Of a cluster; None: this machine.

    Raises:
        InputError: The folder is not of these runs and settings, a mask was changed by someone else, a scan cannot be
            segmented, or none can.
    """
    Record.begin(out, header)  # before the folder is touched
    make_folder(out)
    with locked(out):
        record = Record.begin(out, header)
        record.refuse_altered(dataset)
        end_last_line(out / MASKS)
        record.write_header()
        items = [(case, record.entries.get(case.name), case.name in trained) for case in dataset]
        made = each(make, items, scheduler=scheduler, workers=0, name=lambda item: item[0].name)
        skipped = _publish(record, made, len(items), skip_bad)
        (out / "skipped.json").unlink(missing_ok=True)
        if skipped:
            write_json(out / "skipped.json", skipped)
    if len(skipped) == len(dataset):
        first = skipped[0]["reason"].rstrip(".")
        problem = f"holds no scan that can be segmented, the first because {first}"
        raise InputError(
            dataset.root, problem, f"Correct the scans; {out / 'skipped.json'} names all"
        )
    return record


def _publish(
    record: Record,
    made: Iterable[tuple[tuple[Case, Entry | None, bool], Entry | InputError]],
    total: int,
    skip_bad: bool,
) -> list[dict[str, str]]:
    """Put what was made into the record and the folder; returns the skipped cases with reasons."""
    line, skipped, again, kept = ProgressLine("segmenting"), [], [], 0
    for number, ((case, former, _), entry) in enumerate(made, start=1):
        made_now = partial_folder(record.folder, case.name).is_dir()
        if isinstance(entry, InputError):
            if not skip_bad:
                raise entry
            skipped.append({"case": case.name, "reason": str(entry)})
            record.bad.add(case.name)
            print(f"radiffuse: {entry}", file=sys.stderr)
        elif entry != former or made_now:
            if former and former["scan"].get("sha256") != entry["scan"]["sha256"]:
                again.append(case.name)
            record.publish(entry)
        kept += not (made_now or isinstance(entry, InputError))
        if number > kept:  # nothing is told of as segmented while all was there
            line.update(number, total, case.name)
    if kept:
        there = f"{kept} of {total} masks were there already and stay"
        say(f"{record.folder}: {there}" + "; nothing was segmented" * (kept == total))
    if again:
        problem = f"made again, since their scans had changed: {some(again)}"
        print(f"radiffuse: {record.folder}: {problem}", file=sys.stderr)
    return skipped
