"""What a guess may have overlooked: tables that say more than names of folders, and masks among the images."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ...config import Data
from ...errors import InputError
from ..dataset import Case, Dataset
from ..issues import Issues, some
from ..provenance import TABLE
from ..scan import Array
from ..tables import HEAD, head_of, is_table
from .listing import GENERATED, LABEL_WORDS, entries, is_file_below, own_folder, start_of
from .patients import is_patient_table
from .unpaired import pairing

READ = {"image", "label", "patient", "class", "target", "split"}
"""Columns of a data table."""
STATED = {"label", "patient", "split"}
"""Columns that may not be passed over."""
CHOSEN = ("place", "case", "file", "why")
"""Columns of the list that ``select`` writes, which may lie beside the images."""
HEAD_ROWS = 5
"""Rows in which files are looked for."""
OUTLINES = {
    ".json": r'"(?:shapes|polygons|shape_attributes)"\s*:',
    ".csv": r"(?i)\A[^\n]*\b(?:encodedpixels|rle|landmarks|x_?min)\b",
    ".xml": r"<annotations?[>\s]",
    ".txt": r"\A\d+(?: (?:[01]|[01]?\.\d+)){4,} *\r?(?:\n|\Z)",
}
"""What files hold, by suffix: of LabelMe, ChestX-Det and VIA; tables of run lengths or boxes (SIIM-ACR, CheXmask,
VinDr); of CVAT and Pascal VOC; of YOLO."""
_MASK_FILE = {*LABEL_WORDS, "truth", "dseg"}
_MASK_FOLDER = _MASK_FILE - {"seg", "segmentation"}
"""Words in names of masks, and of the folders that hold them, whatever else is in the name."""
FEW_VALUES = 16
"""Images with so few different values are masks rather than scans [ours]."""


def tables_of_images(folder: Path, issues: Issues) -> Iterator[Path]:
    """Tables directly in a folder that have a column ``image``, but not those of patients."""
    for path in entries(folder):
        if path.name.startswith(".") or is_patient_table(path) or not path.is_file():
            continue
        if _is_workbook_of_images(path):
            issues.warning(path, "is a workbook, which is not read", "Save its table as CSV")
        if not is_table(path):
            continue
        try:
            head = head_of(path)
        except InputError as error:
            issues.warning(path, f"{error.problem}, and is passed over", error.remedy)
            continue
        rows = [(line.number, {cell.lower() for cell in line}) for line in head[1:]]
        later = [number for number, row in rows if "image" in row and len(row & READ) > 1]
        if head and "image" in head[0]:
            yield path
        elif later:
            problem = (
                f"has its column image in line {later[0]}, not in the first: it is passed over"
            )
            issues.warning(path, problem, "Remove the lines above its header")
        elif head and tuple(head[0]) != CHOSEN:
            look_at_columns(path, head, issues)


def _is_workbook_of_images(path: Path) -> bool:
    """Whether an .xlsx file has a cell ``image``, which only the start of its texts is searched for."""
    if path.suffix.lower() != ".xlsx":
        return False
    try:
        with zipfile.ZipFile(path) as book, book.open("xl/sharedStrings.xml") as texts:
            return re.search(rb">\s*image\s*<", texts.read(HEAD), re.IGNORECASE) is not None
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def guessing(root: Path, data: Data) -> bool:
    """Whether less usual names of files and folders may be believed: they yield to a table."""
    return data.layout != "auto" or not any(tables_of_images(root, Issues()))


def look_for_tables(dataset: Dataset, data: Data, issues: Issues) -> None:
    """Report tables that name images, where the folder was read in another way.

    Raises:
        InputError: Such a table states labels, patients or splits, and the layout was a guess.
    """
    if not dataset.root.is_dir() or dataset.layout == "table":
        return
    generated = own_folder(dataset.root) == GENERATED
    for path in tables_of_images(dataset.root, issues):
        if generated and path.name == TABLE:  # patients.csv says the same
            continue
        stated = sorted(STATED & set(head_of(path)[0]))
        problem = f"names images, but the folder was read as the layout {dataset.layout}"
        if stated and data.layout == "auto":
            problem += f", without its {' and '.join(stated)}"
            raise InputError(path, problem, f"Give the table itself, or --layout {dataset.layout}")
        issues.warning(path, problem, "To use it, give the table itself")


def look_for_outlines(dataset: Dataset, issues: Issues) -> None:
    """Report files of annotation programs that are not read, where nothing is labelled."""
    root = dataset.root
    if dataset.labelled or not root.is_dir():
        return
    folders = {root, *(p for p in entries(root)[:64] if p.is_dir() and not p.is_symlink())}
    folders |= {case.images[0].parent for case in dataset.cases[:1]}
    files = [p for folder in sorted(folders) for p in entries(folder)[:4096]]
    for suffix, mark in OUTLINES.items():
        found = [p for p in files if p.suffix.lower() == suffix and p.is_file()]
        if suffix == ".csv":  # tables of anything else lie beside them
            found = [path for path in found[:64] if re.search(mark, start_of(path) or "")]
        if any(re.search(mark, start_of(path) or "") for path in found[:3]):
            names = some([os.path.relpath(path, root) for path in found], 3)
            problem = f"holds outlines or boxes that are not read ({len(found)} {suffix}: {names})"
            remedy = "If they are labels, convert them to COCO JSON or to label maps"
            issues.warning(root, problem, remedy)


def look_at_columns(path: Path, head: Sequence[Sequence[str]], issues: Issues) -> None:
    """Report columns that are not read, but hold files, or patients by their name."""
    near = [name for name in head[0] if re.match("(patient|subject)([ _-]?(id|name))?$|pid$", name)]
    if near and "image" in head[0] and "patient" not in head[0]:
        problem = f"has the column {near[0]!r}, which is not read"
        issues.warning(path, problem, "Call it patient, or each image counts as its own patient")
    for number, name in enumerate(head[0]):
        cells = (line[number] for line in head[1 : 1 + HEAD_ROWS] if number < len(line))
        if name not in READ and any(is_file_below(path.parent, cell) for cell in cells):
            problem = f"names files in the column {name!r}, which is not read"
            issues.warning(path, problem, "Call it image or label if it is one, or remove it")


def masks_by_name(dataset: Dataset) -> set[Case]:
    """Cases without a label whose image is a mask by the words of its name or of a folder."""
    return {case for case in dataset if case.label is None and _is_mask(case.images[0], dataset)}


def look_for_masks(dataset: Dataset, issues: Issues) -> None:
    """Report masks that were taken for images."""
    _report(dataset, masks_by_name(dataset), "are masks by their names", issues)


def holds_few(array: Array) -> bool:
    """Whether ``(C, *spatial)`` is not constant, but holds no more than ``FEW_VALUES`` values."""
    every = array.reshape(-1)
    sample = np.unique(every[:: max(1, every.size // 4096)])  # settles nearly all scans, fast
    return len(sample) <= FEW_VALUES and 1 < len(np.unique(every)) <= FEW_VALUES


def look_at_values(dataset: Dataset, few: Callable[[Case], bool], issues: Issues) -> None:
    """Report images without a label that ``few`` says hold at most ``FEW_VALUES`` values."""
    named = masks_by_name(dataset)
    found = {c for c in dataset if c.label is None and c not in named and few(c)}
    _report(dataset, found, f"hold no more than {FEW_VALUES} values, as masks do", issues)


def _report(dataset: Dataset, cases: set[Case], why: str, issues: Issues) -> None:
    if not cases:
        return
    places = [os.path.relpath(case.images[0], dataset.root) for case in cases]
    problem = f"holds {len(cases)} unlabelled images that {why}: {some(sorted(places))}"
    remedy = (
        pairing(dataset.root) or "Pair them as docs/reference/layouts.md says, or move them away"
    )
    issues.warning(dataset.root, problem, f"They count as images: {remedy[0].lower()}{remedy[1:]}")


def _is_mask(path: Path, dataset: Dataset) -> bool:
    home = dataset.root if dataset.root.is_dir() else dataset.root.parent
    parts = path.relative_to(home).parts if path.is_relative_to(home) else (path.name,)
    if re.sub("[ _-]", "", home.absolute().name.lower()) in {*_MASK_FOLDER, "labelstr", "labelsts"}:
        return True
    *folders, name = (_words(part) for part in parts or ("",))
    return not name.isdisjoint(_MASK_FILE) or any(not w.isdisjoint(_MASK_FOLDER) for w in folders)


def _words(name: str) -> set[str]:
    return set(re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower()))
