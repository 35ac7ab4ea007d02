"""Public chest sets as downloaded, recognized by their tables, which give patient, view and findings.

NIH ChestX-ray14 (Wang et al. 2017), CheXpert (Irvin et al. 2019), MIMIC-CXR-JPG (Johnson et al. 2019),
PadChest (Bustos et al. 2020), VinDr-CXR (Nguyen et al. 2022). As they are often downloaded in part,
films that are missing are left out with one warning.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...config import Data
from ...errors import InputError
from ..dataset import ABSENT, PRESENT, UNCERTAIN, Case, Dataset
from ..issues import Issues, some
from ..tables import Row, read_table
from .build import build
from .listing import key, walk

EXPECTED = "the table of NIH ChestX-ray14, CheXpert, MIMIC-CXR-JPG, PadChest or VinDr-CXR"
VIEWS = {"frontal": "", "lateral": "lateral", "l": "lateral", "ll": "lateral", "lat": "lateral"}
"""Views that are written in several ways; all others are kept in lower case (pa, ap, ...)."""
NIH_FINDINGS = (
    *("atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema", "fibrosis"),
    *("hernia", "infiltration", "mass", "nodule", "pleural_thickening", "pneumonia"),
    "pneumothorax",
)
CHEXPERT_FINDINGS = (
    *("no finding", "enlarged cardiomediastinum", "cardiomegaly", "lung opacity", "lung lesion"),
    *("edema", "consolidation", "pneumonia", "atelectasis", "pneumothorax", "pleural effusion"),
    *("pleural other", "fracture", "support devices"),
)
"""Also those of MIMIC-CXR-JPG."""
MIMIC_SPLITS = {"train": "train", "validate": "validation", "test": "test"}
SHARE_PRESENT = 2 / 3
"""VinDr-CXR: a finding is present if at least this share of the readers saw it, uncertain if fewer did [ours]."""

RESTORE = "Restore the table as it was downloaded"


class Film(NamedTuple):
    """What a table says about a film; ``path`` may be the file name alone, '' is unknown."""

    where: str
    path: str
    patient: str
    view: str
    findings: Mapping[str, int]
    split: str | None


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """One of the five sets, by its table.

    Raises:
        InputError: A table cannot be read, lacks a column, or holds an unknown value.
    """
    films = next((films for set_ in SETS if (films := list(set_(root)))), None)
    if films is None:
        return None
    finding = data.finding.lower() if data.finding is not None else None
    known = sorted({name for film in films for name in film.findings})
    if finding is not None and finding not in known:
        where = f"--reader.finding {data.finding}"
        raise InputError(where, f"is no finding of {root}", f"Choose from {some(known, 40)}")
    targets = {PRESENT: finding, ABSENT: f"no {finding}"} if finding is not None else {}
    listing = walk(root)
    issues += listing.issues
    find = _finder(listing.images)
    views = {_view(view) for view in data.views or ()}
    cases: list[Case] = []
    missing: list[str] = []
    for film in films:
        view = _view(film.view)
        if views and view not in views:
            continue
        places = find(film.path)
        if len(places) > 1:
            problem = f"names {film.path}, of which there are {len(places)}"
            issues.error(film.where, problem, "Keep one of them")
        elif not places:
            missing.append(film.path)
        else:
            case = Case(
                key(places[0]),
                (root / places[0],),
                group=film.patient,
                split=film.split,
                target=targets.get(film.findings.get(finding or "", UNCERTAIN)),
                view=view,
                findings=tuple(sorted(film.findings.items())),
            )
            cases.append(case)
    if missing:
        problem = f"lacks {len(missing)} films that its table names: {some(missing)}"
        issues.warning(root, problem, "Download them, or go on without")
    return build(root, "chest", cases, data, issues)


def _finder(images: Sequence[PurePosixPath]) -> Callable[[str], Sequence[PurePosixPath]]:
    """A function that finds the images that a path in a table may refer to."""
    known = set(images)
    by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
    for image in images:
        by_name[image.name].append(image)

    def find(text: str) -> Sequence[PurePosixPath]:
        path = PurePosixPath(text)
        if path in known:
            return [path]
        return [p for p in by_name.get(path.name, ()) if p.as_posix().endswith(text)]

    return find


# ------------------------------------------------------------------------------------------------ the sets


def _nih(root: Path) -> Iterator[Film]:
    """``Data_Entry_2017.csv`` (or ``_v2020``), films in ``images_001/images/`` and so on, ``test_list.txt``."""
    rows = _rows(root, "Data_Entry_2017*.csv", "image index", "finding labels", "patient id")
    lists = (("test_list.txt", "test"), ("train_val_list.txt", "train"))
    splits = {word: split for name, split in lists for word in _words(root / name)}
    for row in rows:
        words = {w.strip().lower() for w in row["finding labels"].split("|") if w.strip()}
        if strange := words - {*NIH_FINDINGS, "no finding"}:
            raise _strange(row.where, "finding labels", ", ".join(sorted(strange)))
        findings = _present(words, NIH_FINDINGS) if words else {}
        name, view = row["image index"], row.get("view position", "")
        yield Film(row.where, name, row["patient id"], view, findings, splits.get(name))


def _chexpert(root: Path) -> Iterator[Film]:
    """``train.csv`` and ``valid.csv``, whose paths begin with the name of the folder itself."""
    for name, split in (("train.csv", "train"), ("valid.csv", "validation")):
        rows = _rows(root, name)
        if not rows or "frontal/lateral" not in rows[0]:
            continue
        for row in _rows(root, name, "path"):
            # CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg
            parts = PurePosixPath(row["path"]).parts
            patient = next((part for part in parts if part.startswith("patient")), "")
            view = row.get("ap/pa") or row["frontal/lateral"]
            place = "/".join(parts[-4:])
            yield Film(row.where, place, patient, view, _labeler(row), split)


def _mimic(root: Path) -> Iterator[Film]:
    """``mimic-cxr-2.0.0-metadata.csv.gz``, ``-chexpert`` and ``-split``, films in ``files/p10/p10000032/s.../``."""
    name = "mimic-cxr-2.*-{}.csv*"
    films = _rows(root, name.format("metadata"), "dicom_id", "subject_id", "study_id")
    if not films:
        return
    rows = _rows(root, name.format("chexpert"), "study_id")
    studies = {row["study_id"]: row for row in rows}
    rows = _rows(root, name.format("split"), "dicom_id", "split")
    splits = {row["dicom_id"]: row["split"].lower() for row in rows}
    for row in films:
        subject, study, dicom = row["subject_id"], row["study_id"], row["dicom_id"]
        path = f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
        split = MIMIC_SPLITS.get(splits.get(dicom, ""))
        view = row.get("viewposition", "")
        findings = _labeler(studies[study]) if study in studies else {}
        yield Film(row.where, path, subject, view, findings, split)


def _padchest(root: Path) -> Iterator[Film]:
    """``PADCHEST_chest_x_ray_images_labels_160K...csv`` (or ``.gz``), films in numbered folders or in one."""
    pattern = "PADCHEST_chest_x_ray_images_labels*.csv*"
    rows = _rows(root, pattern, "imageid", "patientid", "labels")
    labels = [_listed(row) for row in rows]
    names = sorted({name for found in labels for name in found or ()})
    for row, found in zip(rows, labels, strict=True):
        findings = {} if found is None else _present(found, names)
        view = row.get("projection", "")
        yield Film(row.where, row["imageid"], row["patientid"], view, findings, None)


def _vindr(root: Path) -> Iterator[Film]:
    """``annotations/image_labels_train.csv`` with a row per reader and ``..._test.csv`` with their consensus."""
    for split in ("train", "test"):
        for folder in (root / "annotations", root):
            readers: dict[str, list[Row]] = defaultdict(list)
            for row in _rows(folder, f"image_labels_{split}.csv", "image_id"):
                readers[row["image_id"]].append(row)
            for image, rows in readers.items():
                yield Film(rows[0].where, f"{split}/{image}.dicom", "", "", _votes(rows), split)


SETS = (_nih, _chexpert, _mimic, _padchest, _vindr)
"""Each yields the films of its table, none where there is no such table."""


# ------------------------------------------------------------------------------------------------ values


def _present(words: set[str], names: Iterable[str]) -> dict[str, int]:
    return {name: PRESENT if name in words else ABSENT for name in names}


def _labeler(row: Row) -> dict[str, int]:
    """Findings of CheXpert's labeler: 1, 0, -1 uncertain, empty where not mentioned."""
    legal = {"1": PRESENT, "0": ABSENT, "-1": UNCERTAIN}
    findings = {}
    for name in CHEXPERT_FINDINGS:
        if text := row.get(name, ""):
            if text.removesuffix(".0") not in legal:
                raise _strange(row.where, name, text)
            findings[name] = legal[text.removesuffix(".0")]
    return findings


def _votes(rows: list[Row]) -> dict[str, int]:
    """Findings of one film from a row per reader."""
    findings = {}
    for column in rows[0].keys() - {"image_id", "rad_id", ""}:
        words = [row[column].removesuffix(".0") for row in rows]
        if strange := [word for word in words if word not in ("0", "1")]:
            raise _strange(rows[0].where, column, strange[0])
        share = words.count("1") / len(words)
        value = PRESENT if share >= SHARE_PRESENT else UNCERTAIN if share else ABSENT
        # The two tables of the set spell this column differently.
        findings["other diseases" if column == "other disease" else column] = value
    return findings


def _listed(row: Row) -> set[str] | None:
    """PadChest's list of findings, written as in Python; None where there is none."""
    text = row["labels"]
    if not text or text.lower() == "nan":
        return None
    try:
        words = ast.literal_eval(text)
        return {str(word).strip().lower() for word in words if str(word).strip()}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _strange(row.where, "labels", text[:60]) from None


def _view(text: str) -> str:
    word = text.strip().lower()
    return VIEWS.get(word, word)


def _strange(where: str, column: str, value: str) -> InputError:
    return InputError(where, f"has {value!r} in the column {column}", RESTORE)


def _rows(folder: Path, pattern: str, *columns: str) -> list[Row]:
    """The rows of a table, which must have the columns; none where there is no such table."""
    table = next(iter(sorted(folder.glob(pattern))), None) if folder.is_dir() else None
    if table is None:
        return []
    rows = read_table(table)
    for column in columns:
        if column not in rows[0]:
            raise InputError(table, f"lacks the column {column!r}", RESTORE)
    return rows


def _words(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.is_file() else []
