"""COCO JSON: how most public dental and film sets with outlines come."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..dataset import Case, Dataset
from ..issues import Issue, some
from ..readers.coco import Coco, load_coco
from .build import Draft, build
from .listing import SPLITS, inside


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """Each entry of ``images`` is a case whose label is drawn from its annotations.

    Given is the JSON file, or a folder that holds one or several: itself, in ``annotations/``, or
    in folders called train, validation, test (as Roboflow exports them), which then are the split.
    All files must declare the same categories. Images lie beside the JSON file, in ``images/``, or
    in a folder named after the split. An image without annotations is all background.

    Raises:
        InputError: The JSON is damaged, its categories differ, or it has boxes without outlines
            only.
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
    drafts: list[Draft] = []
    classes = load_coco(documents[0]).classes
    for path in documents:
        document = load_coco(path)
        if document.classes != classes:
            problem = f"declares other categories than {documents[0].name}"
            raise InputError(path, problem, "Give both the same categories, or open one alone")
        drafts += _drafts(home, path, document, issues)
    drafts = _once(drafts, issues)
    return build(root, "coco", drafts, data, issues, home=home, classes=classes)


def _candidates(folder: Path) -> list[Path]:
    inner = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.is_symlink()]
    wanted = [folder, *(p for p in inner if p.name.lower() in {"annotations", *SPLITS})]
    return [p for f in wanted for p in sorted(f.glob("*.json")) if not p.name.startswith(".")]


def _looks_like_coco(path: Path) -> bool:
    """By its keys; a damaged file counts where its text has them, so that its damage is told."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    if not all(f'"{name}"' in text for name in ("images", "annotations", "categories")):
        return False
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


def _split_of(path: Path) -> str | None:
    """From the folder (``train/x.json``) or the name (``instances_val2017.json``)."""
    if path.parent.name.lower() in SPLITS:
        return SPLITS[path.parent.name.lower()]
    words = "".join(c if c.isalpha() else " " for c in path.stem.lower()).split()
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _drafts(home: Path, path: Path, document: Coco, issues: list[Issue]) -> list[Draft]:
    split = _split_of(path)
    folders = _image_folders(home, path)
    drafts = []
    for item, image in document.images.items():
        where = f"{path}, image {item}"
        faults = document.faults(item)
        if faults:
            shown = some(faults, most=2)
            remedy = "Export outlines (polygons or RLE) for every object"
            issues.append(Issue("error", f"{where} ({image.file_name})", shown, remedy))
            continue
        try:
            file = _image_file(folders, image.file_name, where)
        except InputError as error:
            issues.append(Issue.of(error))
            continue
        relative = PurePosixPath(file.relative_to(home).as_posix())
        name = str(PurePosixPath(image.file_name).with_suffix(""))
        case = Case(name, (file,), label=path, label_item=item, split=split)
        drafts.append(Draft(relative, case))
    return drafts


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
    # A link or a name that leads out says more than "does not exist" in the last folder tried.
    raise next((e for e in errors if "does not exist" not in e.problem), errors[0])


def _once(drafts: list[Draft], issues: list[Issue]) -> list[Draft]:
    seen: dict[PurePosixPath, Draft] = {}
    for draft in drafts:
        if draft.image in seen:
            where = f"{draft.case.label}, image {draft.case.label_item}"
            issues.append(
                Issue(
                    "error", where, f"names {draft.image} a second time", "Keep one entry per image"
                )
            )
        seen.setdefault(draft.image, draft)
    return list(seen.values())
