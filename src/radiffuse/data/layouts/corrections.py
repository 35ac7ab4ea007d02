"""What was corrected on the page of ``radiffuse view``: scans with label maps, and who made them, when, from what.

corrections.jsonl   a line per saving, of which the last of a case counts
CASE/               a copy of the scan, and label-1, label-2, ... as they were saved
classes.json        names by label value
renamed.json        where classes were renamed on the page: their names by those that they have elsewhere
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ...config import Data
from ...config.values import misfit
from ...errors import InputError
from ...system.files import MOST_JSON, read_json
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issues
from .build import build
from .listing import inside

EXPECTED = "a folder of corrections, as radiffuse view saves them"
FILE = "corrections.jsonl"
RENAMED = "renamed.json"


class Entry(TypedDict):
    """A line of ``FILE``.

    Attributes:
        radiffuse: Version.
        state: ``corrected``.
        case: Its name.
        time: When, UTC.
        by: The login name of who did it, or ''.
        start: The mask that was corrected: ``name``, ``kind``, ``model`` (the start of its hash) and ``voxels``
            (SHA-256 of its labels); None where nothing was there.
        changed: Voxels that differ from it.
        scan: As in ``masks.jsonl``.
        patient: Or ''.
        channels: Names.
        file_channels: Channels of a single four-dimensional file.
        images: Files of the scan below the folder, one per channel; of a DICOM series its folder.
        series: Files of a DICOM series.
        label: File of the label map.
        sha256: Its hash.
    """

    radiffuse: str
    state: str
    case: str
    time: str
    by: str
    start: dict[str, str] | None
    changed: int
    scan: dict[str, Any]
    patient: str
    channels: list[str]
    file_channels: int
    images: list[str]
    series: list[str]
    label: str
    sha256: str


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """The last correction of each case.

    Raises:
        InputError: The record is damaged, or names a file that is missing or lies elsewhere.
    """
    path = root / FILE
    if not path.is_file():
        return None
    cases, channels = [], set[tuple[str, ...]]()
    for name, entry in sorted(entries(root).items()):
        where = f"{path}, {name}"
        with issues.collected():
            label = inside(root, entry["label"], where)
            series = tuple(inside(root, file, where) for file in entry["series"])
            files = (series[0].parent,) if series else entry["images"]
            images = tuple(f if isinstance(f, Path) else inside(root, f, where) for f in files)
            count, patient = entry["file_channels"], entry["patient"]
            case = Case(
                name, images, label, group=patient, series=series, file_channels=max(1, count)
            )
            cases.append(case)
            channels.add(tuple(entry["channels"]))
    if len(channels) > 1:
        raise InputError(root, "holds scans of different channels", "Correct them into two folders")
    found = channels.pop() if channels else ("image",)
    classes = declared_classes(root, issues)
    return build(root, "corrections", cases, data, issues, classes=classes, channels=found)


def entries(root: Path) -> dict[str, Entry]:
    """The last line of each case; a line that a kill cut short does not count.

    Raises:
        InputError: The record is damaged.
    """
    path, found = root / FILE, dict[str, Entry]()
    if path.is_file() and path.stat().st_size > MOST_JSON:
        raise InputError(path, f"is larger than {MOST_JSON} bytes", "Restore it")
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
            if not line.endswith(b"\n") or number < len(lines):
                continue
        missing = Entry.__required_keys__ - (entry.keys() if isinstance(entry, dict) else set())
        if missing or misfit(entry, Entry) or not entry["images"]:
            raise InputError(f"{path}, line {number}", "is no record of a correction", "Restore it")
        found[entry["case"]] = entry
    return found


def renamed_in(root: Path) -> dict[str, str]:
    """The names of renamed classes by those that they have elsewhere.

    Raises:
        InputError: ``renamed.json`` is damaged.
    """
    path = root / RENAMED
    return read_json(path, dict[str, str]) if path.is_file() else {}


def under_new_names(classes: Sequence[str], renamed: Mapping[str, str]) -> tuple[str, ...]:
    """Names of classes as they are in a folder of corrections; as they are where two would have the same."""
    found = tuple(renamed.get(name, name) for name in classes)
    return found if len(set(found)) == len(found) else tuple(classes)


def without_corrected(dataset: Dataset, corrections: Dataset) -> Dataset:
    """A data set without the cases that were corrected: of the same name, with the same content.

    Args:
        dataset: With labels.
        corrections: Of layout ``corrections``; of any other one nothing is left out.
    """
    if corrections.layout != "corrections":
        return dataset
    by_name = {case.name: case for case in corrections}

    def stays(case: Case) -> bool:
        other = by_name.get(case.name)
        return other is None or not _same(_files(case), _files(other))

    return dataset.filter(stays)


def _files(case: Case) -> list[Path]:
    return sorted(case.series) if case.series else list(case.images)


def _same(one: list[Path], other: list[Path]) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(filecmp.cmp(a, b, shallow=False) for a, b in pairs)
