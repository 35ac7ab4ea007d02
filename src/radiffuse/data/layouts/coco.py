"""COCO JSON, the usual format of public dental and film data sets with outlines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..dataset import Case, Dataset
from ..issues import Issues, some
from ..readers.coco import NEEDS_OUTLINES, Coco, load_coco
from ..tables import decoded
from .build import build, once
from .listing import SPLITS, entries, inside

EXPECTED = "a JSON file with images, annotations and categories"
KEYS = ("images", "annotations", "categories")


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Each entry of ``images`` is a case whose label is drawn from its annotations.

    ``root`` is the JSON file, or a folder with JSON files in it, in ``annotations/``, or in folders
    named after splits (as Roboflow exports them). All must declare the same categories. Images lie
    beside the JSON file, in ``images/``, or in a folder named after the split. An image without
    annotations is all background, with a line; in a file without any, images are unlabelled.

    Raises:
        InputError: The JSON is damaged, or categories differ between files.
    """
    if root.is_file():
        if root.suffix.lower() != ".json" or not _looks_like_coco(root):
            return None
        home = root.parent.parent if root.parent.name.lower() == "annotations" else root.parent
        documents = [root]
    else:
        home = root
        documents = [path for path in _candidates(root) if _looks_like_coco(path)]
    if not documents:
        return None
    listed: list[tuple[str, Case]] = []
    classes = load_coco(documents[0]).classes
    for path in documents:
        document = load_coco(path)
        if document.classes != classes:
            problem = f"declares other categories than {documents[0].name}"
            raise InputError(path, problem, "Give both the same categories, or open one alone")
        _look_at_annotations(path, document, issues)
        listed += _cases(home, path, document, issues)
    cases = once(listed, home, issues)
    return build(root, "coco", cases, data, issues, home=home, classes=classes)


def _candidates(folder: Path) -> list[Path]:
    inner = [p for p in entries(folder) if p.is_dir() and not p.is_symlink()]
    wanted = [folder, *(p for p in inner if p.name.lower() in {"annotations", *SPLITS})]
    return [p for f in wanted for p in sorted(f.glob("*.json")) if not p.name.startswith(".")]


def _looks_like_coco(path: Path) -> bool:
    """By its keys; a damaged file counts if its text has them, so that the damage is reported."""
    try:
        text = decoded(path.read_bytes())
    except OSError:
        return False
    if not all(f'"{name}"' in text for name in KEYS):
        return False
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and content.keys() >= set(KEYS)


def _split_of(path: Path) -> str | None:
    """From the folder (``train/x.json``) or the name (``instances_val2017.json``)."""
    if path.parent.name.lower() in SPLITS:
        return SPLITS[path.parent.name.lower()]
    words = "".join(c if c.isalpha() else " " for c in path.stem.lower()).split()
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _look_at_annotations(path: Path, document: Coco, issues: Issues) -> None:
    """Report annotations that label nothing, and images without any: truly empty ones, or not looked at."""
    every = [annotation for own in document.annotations.values() for annotation in own]
    if strays := sorted(document.annotations.keys() - document.images.keys()):
        count = sum(len(document.annotations[item]) for item in strays)
        problem = f"has {count} of {len(every)} annotations of images that it does not list: {some(strays)}"
        remedy = "Make sure that ids agree: an image without annotations is all background"
        issues.warning(path, problem, remedy)
    images = document.images
    empty = [images[item].file_name for item in images if item not in document.annotations]
    if empty and every:
        share = f"{len(empty)} of {len(images)} images"
        problem = f"has no annotation for {share}, which count as all background: {some(empty)}"
        remedy = "Make sure that they show none of the classes; take out of the file what nobody has labelled"
        issues.warning(path, problem, remedy)
    elif empty:
        issues.warning(path, "has no annotations: its images count as unlabelled", "Add some")
    if crowds := sum(bool(annotation.get("iscrowd")) for annotation in every):
        problem = f"marks {crowds} of {len(every)} annotations as crowds, which are neither learned nor scored"
        remedy = "Write iscrowd 0 where they are objects: some programs mark all painted masks so"
        issues.warning(path, problem, remedy)


def _cases(home: Path, path: Path, document: Coco, issues: Issues) -> Iterator[tuple[str, Case]]:
    split, folders = _split_of(path), _image_folders(home, path)
    for item, image in document.images.items():
        where = f"{path}, image {item}"
        if faults := document.faults(item):
            where = f"{where} ({image.file_name})"
            issues.error(where, some(faults, most=2), NEEDS_OUTLINES)
            continue
        with issues.collected():
            file = _image_file(folders, image.file_name, where)
            name = str(PurePosixPath(image.file_name).with_suffix(""))
            label, own = (path, item) if document.annotations else (None, None)
            yield where, Case(name, (file,), label, own, split=split)


def _image_folders(home: Path, path: Path) -> list[Path]:
    stems = [word for word in path.stem.replace("-", "_").split("_") if word]
    folders = [path.parent, path.parent / "images", home, home / "images"]
    folders += [base / word for base in (home, home / "images") for word in stems]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _image_file(folders: list[Path], name: str, where: str) -> Path:
    errors: list[InputError] = []
    for folder in folders:
        try:
            return inside(folder, name, where)
        except InputError as error:
            errors.append(error)
    # That a link or a name leads out says more than "does not exist".
    raise next((e for e in errors if "does not exist" not in e.problem), errors[0])
