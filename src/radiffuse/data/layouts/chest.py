"""The public chest sets as they are downloaded: their own tables, with patient, view and findings.

NIH ChestX-ray14 (Wang et al. 2017), CheXpert (Irvin et al. 2019), MIMIC-CXR-JPG (Johnson et al. 2019), PadChest (Bustos
et al. 2020) and VinDr-CXR (Nguyen et al. 2022). A set is recognized by the name of its table. Films that a table names
and the folder lacks are left out with one warning, because these sets are often downloaded in part.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..dataset import ABSENT, PRESENT, UNCERTAIN, Case, Dataset
from ..documents import read_table
from ..issues import Issue, some
from .build import Draft, build
from .listing import key, walk

Row = dict[str, str]
VIEWS = {"frontal": "", "lateral": "lateral", "l": "lateral", "ll": "lateral", "lat": "lateral"}
"""Words for views that are written in several ways; all others are kept, in small letters (pa, ap, ...)."""
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
"""VinDr-CXR: a finding is present where so many of the readers saw it, uncertain where fewer did. [ours]"""


@dataclass(frozen=True)
class Film:
    """What a table says of a film.

    Attributes:
        path: Below the data folder; or the file name alone.
        patient: '' where the set does not tell.
        view: In small letters, '' where it is not told.
        findings: By name: present, absent or uncertain; what is not told is not in it.
        split: Declared by the set, or None.
        where: File and row, for messages.
    """

    path: str
    patient: str
    view: str
    findings: Mapping[str, int]
    split: str | None
    where: str


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """One of the five sets, by its table.

    Raises:
        InputError: A table cannot be read, lacks a column, or holds a value that is none of the set's.
    """
    if root.is_file():
        return None
    for reader in (_nih, _chexpert, _mimic, _padchest, _vindr):
        films = reader(root)
        if films is not None:
            return _dataset(root, list(films), data, issues)
    return None


def _dataset(root: Path, films: Sequence[Film], data: Data, issues: list[Issue]) -> Dataset:
    listing = walk(root)
    issues += listing.issues
    by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
    for image in listing.images:
        by_name[image.name].append(image)
    known = set(listing.images)
    drafts: list[Draft] = []
    missing: list[str] = []
    if data.finding is not None:
        named = sorted({name for film in films for name in film.findings})
        if data.finding.lower() not in named:
            problem = f"is no finding of {root}"
            raise InputError(
                f"--reader.finding {data.finding}", problem, f"Choose from {some(named, 40)}"
            )
    views = {_view(view) for view in data.views or ()}
    for film in films:
        if views and film.view not in views:
            continue
        path = PurePosixPath(film.path)
        if path not in known:
            found = [p for p in by_name[path.name] if p.as_posix().endswith(film.path)]
            if len(found) > 1:
                problem = f"names {film.path}, of which there are {len(found)}"
                issues.append(Issue("error", film.where, problem, "Keep one of them"))
                continue
            if not found:
                missing.append(film.path)
                continue
            path = found[0]
        case = Case(
            key(path),
            (root / path,),
            group=film.patient,
            split=film.split,
            target=_target(film, data.finding),
            view=film.view,
            findings=tuple(sorted(film.findings.items())),
        )
        drafts.append(Draft(path, case))
    if missing:
        problem = f"lacks {len(missing)} films that its table names: {some(missing)}"
        issues.append(Issue("warning", str(root), problem, "Download them, or go on without"))
    return build(root, "chest", drafts, data, issues)


def _target(film: Film, finding: str | None) -> str | None:
    if finding is None:
        return None
    name = finding.lower()
    return {PRESENT: name, ABSENT: f"no {name}"}.get(film.findings.get(name, UNCERTAIN))


# ------------------------------------------------------------------------------------------------ the sets


def _nih(root: Path) -> Iterator[Film] | None:
    """``Data_Entry_2017.csv`` (or ``_v2020``), films in ``images_001/images/`` and so on, ``test_list.txt``."""
    table = _table(root, "Data_Entry_2017*.csv")
    if table is None:
        return None
    rows = _rows(table, "image index", "finding labels", "patient id")
    split = _list(root, "test_list.txt", "test") | _list(root, "train_val_list.txt", "train")

    def films() -> Iterator[Film]:
        for where, row in rows:
            words = {w.strip().lower() for w in row["finding labels"].split("|") if w.strip()}
            if strange := words - {*NIH_FINDINGS, "no finding"}:
                raise _strange(where, "finding labels", ", ".join(sorted(strange)))
            told = {n: PRESENT if n in words else ABSENT for n in NIH_FINDINGS} if words else {}
            name = row["image index"]
            view = _view(row.get("view position", ""))
            yield Film(name, row["patient id"], view, told, split.get(name), where)

    return films()


def _chexpert(root: Path) -> Iterator[Film] | None:
    """``train.csv`` and ``valid.csv``, whose paths begin with the name of the folder itself."""
    tables = [
        (path, split)
        for name, split in (("train.csv", "train"), ("valid.csv", "validation"))
        if (path := _table(root, name)) and "frontal/lateral" in read_table(path)[0]
    ]
    if not tables:
        return None

    def films() -> Iterator[Film]:
        for table, split in tables:
            for where, row in _rows(table, "path", "frontal/lateral"):
                # CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg
                parts = PurePosixPath(row["path"]).parts
                patient = next((part for part in parts if part.startswith("patient")), "")
                path = "/".join(parts[-4:])
                view = _view(row.get("ap/pa") or row["frontal/lateral"])
                yield Film(path, patient, view, _uncertain(row, where), split, where)

    return films()


def _mimic(root: Path) -> Iterator[Film] | None:
    """``mimic-cxr-2.0.0-metadata.csv.gz``, ``-chexpert`` and ``-split``, films in ``files/p10/p10000032/s.../``."""
    tables = {
        kind: _table(root, f"mimic-cxr-2.*-{kind}.csv*")
        for kind in ("metadata", "chexpert", "split")
    }
    if tables["metadata"] is None:
        return None
    films_of = _rows(tables["metadata"], "dicom_id", "subject_id", "study_id")
    studies = {
        row["study_id"]: (where, row)
        for where, row in (_rows(tables["chexpert"], "study_id") if tables["chexpert"] else ())
    }
    splits = {
        row["dicom_id"]: row["split"].lower()
        for _, row in (_rows(tables["split"], "dicom_id", "split") if tables["split"] else ())
    }

    def films() -> Iterator[Film]:
        for where, row in films_of:
            subject, study, dicom = row["subject_id"], row["study_id"], row["dicom_id"]
            path = f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
            told = studies.get(study)
            findings = _uncertain(told[1], told[0]) if told else {}
            split = MIMIC_SPLITS.get(splits.get(dicom, ""))
            yield Film(path, subject, _view(row.get("viewposition", "")), findings, split, where)

    return films()


def _padchest(root: Path) -> Iterator[Film] | None:
    """``PADCHEST_chest_x_ray_images_labels_160K...csv`` (or ``.gz``), films in numbered folders or in one."""
    table = _table(root, "PADCHEST_chest_x_ray_images_labels*.csv*")
    if table is None:
        return None
    rows = _rows(table, "imageid", "patientid", "labels")
    labels = [_labels(row["labels"], where) for where, row in rows]
    names = sorted({name for found in labels for name in found or ()})

    def films() -> Iterator[Film]:
        for (where, row), found in zip(rows, labels, strict=True):
            told = {} if found is None else {n: PRESENT if n in found else ABSENT for n in names}
            view = _view(row.get("projection", ""))
            yield Film(row["imageid"], row["patientid"], view, told, None, where)

    return films()


def _vindr(root: Path) -> Iterator[Film] | None:
    """``annotations/image_labels_train.csv`` with a row per reader and ``..._test.csv`` with their consensus."""
    tables = [
        (path, split)
        for split in ("train", "test")
        for folder in (root / "annotations", root)
        if (path := _table(folder, f"image_labels_{split}.csv"))
    ]
    if not tables:
        return None

    def films() -> Iterator[Film]:
        for table, split in tables:
            readers: dict[str, list[Row]] = defaultdict(list)
            places: dict[str, str] = {}
            for where, row in _rows(table, "image_id"):
                readers[row["image_id"]].append(row)
                places.setdefault(row["image_id"], where)
            for image, rows in readers.items():
                findings = _votes(rows, places[image])
                yield Film(f"{split}/{image}.dicom", "", "", findings, split, places[image])

    return films()


# ------------------------------------------------------------------------------------------------ values


def _uncertain(row: Row, where: str) -> dict[str, int]:
    """Findings of CheXpert's labeler: 1, 0, -1 uncertain, empty where the report does not say."""
    legal = {"1": PRESENT, "0": ABSENT, "-1": UNCERTAIN}
    told = {}
    for name in CHEXPERT_FINDINGS:
        if text := row.get(name, ""):
            if text.removesuffix(".0") not in legal:
                raise _strange(where, name, text)
            told[name] = legal[text.removesuffix(".0")]
    return told


def _votes(rows: Sequence[Row], where: str) -> dict[str, int]:
    told = {}
    for column in rows[0].keys() - {"image_id", "rad_id", ""}:
        words = [row[column].removesuffix(".0") for row in rows]
        if strange := [word for word in words if word not in ("0", "1")]:
            raise _strange(where, column, strange[0])
        share = sum(word == "1" for word in words) / len(words)
        value = PRESENT if share >= SHARE_PRESENT else UNCERTAIN if share else ABSENT
        # The two tables of the set spell this column differently.
        told["other diseases" if column == "other disease" else column] = value
    return told


def _labels(text: str, where: str) -> set[str] | None:
    """PadChest's list of findings, written as in Python; None where there is none."""
    if not text or text.lower() == "nan":
        return None
    try:
        words = ast.literal_eval(text)
        return {str(word).strip().lower() for word in words if str(word).strip()}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise _strange(where, "labels", text[:60]) from None


def _view(text: str) -> str:
    word = text.strip().lower()
    return VIEWS.get(word, word)


def _strange(where: str, column: str, value: str) -> InputError:
    return InputError(
        where, f"has {value!r} in the column {column}", "Restore the table as it was downloaded"
    )


def _table(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None) if folder.is_dir() else None


def _rows(table: Path, *columns: str) -> list[tuple[str, Row]]:
    rows = read_table(table)
    for column in columns:
        if column not in rows[0]:
            raise InputError(
                table, f"lacks the column {column!r}", "Restore the table as it was downloaded"
            )
    return [(f"{table}, row {number}", row) for number, row in enumerate(rows, start=2)]


def _list(root: Path, name: str, split: str) -> dict[str, str]:
    path = root / name
    words = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return dict.fromkeys(words, split)
