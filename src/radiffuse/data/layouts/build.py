"""What all layouts share: entries of JSON files, and names, patients, classes, sites of cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from ...config import Data
from ...errors import InputError
from ..class_names import ALL_CLASSES, classes_of_set, known_sets
from ..dataset import Case, Dataset
from ..issues import Issues
from ..links import refuse_link
from ..names import composed, unique_names
from ..tables import decoded
from .identified import with_patients
from .listing import PREDICTED, own_folder
from .patients import patients_of

KEEP_ONE = "Keep one of the two"
NAMED_BY_LAYOUT = ("dicom", "chest")
"""Layouts that say themselves whose their DICOM images are, or that nothing does (VinDr-CXR)."""
NO_IMAGE = "names no image", 'Write {"image": ..., "label": ...}'


def build(
    root: Path,
    layout: str,
    cases: Sequence[Case],
    data: Data,
    issues: Issues,
    *,
    home: Path | None = None,
    places: Sequence[Path] = (),
    classes: tuple[str, ...] = (),
    channels: tuple[str, ...] = ("image",),
) -> Dataset:
    """Give cases unique names and patients, and sort them.

    Args:
        root: The folder or file that the user gave.
        layout: Name of the layout.
        cases: With the name they would like, and the patient in ``group``, '' where unknown.
        data: The settings.
        issues: Receives faults of patients; a linked file or folder is an error at once.
        home: The folder that paths are relative to; None: ``root``.
        places: A unique path of each case that may contain its patient; (): the first image.
        classes: Names by label value.
        channels: Names of the channels.
    """
    home = home or root
    _refuse_links(cases, home)
    all_places = [place_of(path, home) for path in places or [case.images[0] for case in cases]]
    pairs = list(zip(all_places, _split_of_labelled(root, cases, issues), strict=True))
    kept = pairs if data.only is None else [pair for pair in pairs if _wanted(pair[0], data.only)]
    if pairs and not kept:
        problem = f"holds no case whose path matches {data.only!r}"
        raise InputError(root, problem, "Correct --reader.only, or leave it out")
    names_of_classes, values = _classes(classes, data)
    _refuse_names(root, names_of_classes)
    kept = _named(kept)
    if data.group is None and layout not in NAMED_BY_LAYOUT:
        kept = with_patients(root, kept, issues)
    stay = {place for place, _ in kept}
    left_out = [place for place in all_places if place not in stay] if root.is_dir() else None
    stated = layout == "table"
    patients, named_any = patients_of(home, kept, data, issues, stated=stated, left_out=left_out)
    ready = [
        replace(case, group=patient, label_values=values, label_threshold=_threshold(case, data))
        for (_, case), patient in zip(kept, patients, strict=True)
    ]
    ready.sort(key=lambda case: case.name)
    if data.sites is not None:
        ready = _with_sites(ready, root / data.sites)
    _look_for_predictions(ready, issues)
    passed = (case.files for place, case in pairs if place not in stay)
    return Dataset(
        root,
        layout,
        tuple(ready),
        names_of_classes,
        channels,
        frozenset(chain.from_iterable(passed)),
        named_any,
    )


def _named(cases: Sequence[tuple[PurePosixPath, Case]]) -> list[tuple[PurePosixPath, Case]]:
    """Cases by their places, each with a name of its own."""
    identities = [f"{place}#{case.label_item or ''}" for place, case in cases]
    names = unique_names([case.name for _, case in cases], identities)
    return [(at, replace(case, name=name)) for (at, case), name in zip(cases, names, strict=True)]


def _split_of_labelled(root: Path, cases: Sequence[Case], issues: Issues) -> Sequence[Case]:
    """The cases without the split train, where no test or validation part is declared, or none with labels or classes.

    Such labels were never released, so that what is labelled is split as in any data set: else all of it would be
    trained on.
    """
    known = {case.split for case in cases if case.label is not None or case.target is not None}
    if known - {None} != {"train"}:
        return cases
    if {case.split for case in cases} <= {None, "train"}:
        problem = "names a part to train on and no other: where a test is needed, it is drawn as if no part were named"
        issues.warning(root, problem, "Set --split.test 0 to train on all, or name a test part")
    return [replace(case, split=None) if case.split == "train" else case for case in cases]


def _look_for_predictions(cases: Sequence[Case], issues: Issues) -> None:
    for role, folders in (
        ("images", {path.parent for case in cases for path in case.images}),
        ("true labels", {path.parent for case in cases for path in case.label_files}),
    ):
        for folder in sorted(f for f in folders if own_folder(f) == PREDICTED):
            remedy = f"Make sure that they are to be {role}"
            issues.warning(folder, "holds masks that radiffuse predicted", remedy)


def _refuse_links(cases: Iterable[Case], home: Path) -> None:
    """Layouts that open a folder by its name meet links that a walk of the data folder refuses."""
    files = {path for case in cases for path in case.files}
    for path in (*sorted({path.parent for path in files}), *sorted(filter(Path.is_symlink, files))):
        refuse_link(path, home)


def place_of(path: Path, home: Path) -> PurePosixPath:
    """A path relative to the data folder, with slashes on every system."""
    return PurePosixPath(path.relative_to(home).as_posix())


def once(cases: Iterable[tuple[str, Case]], home: Path, issues: Issues) -> list[Case]:
    """The case of every image; a second one is an issue at the entry that names it.

    Where the two say the same, one is kept, else none: which is right is not known.
    """
    seen: dict[Path, Case] = {}
    unclear: set[Path] = set()
    for where, case in cases:
        image = case.images[0]
        if (first := seen.setdefault(image, case)) is not case:
            problem = f"names {place_of(image, home)} a second time"
            if first != case:
                problem += ", and not the same of it"
                unclear.add(image)
            issues.error(where, problem, "Keep one entry per image")
    return [case for image, case in seen.items() if image not in unclear]


def listed(
    content: Mapping[str, Any],
    parts: Mapping[str, str | None],
    path: Path,
    issues: Issues,
    case_of: Callable[[dict[str, Any], str | None, str], Case],
) -> list[Case]:
    """Cases that a JSON file lists under the names of parts, each with its split.

    ``case_of`` makes a case of an entry, its split, and its place for messages. An entry that is text
    is taken for ``{"image": text}``.
    """
    found: list[tuple[str, Case]] = []
    for part, split in parts.items():
        entries = content.get(part) or []
        if not isinstance(entries, list):
            raise InputError(path, f"has no list under {part}", "Write a list of entries")
        for number, entry in enumerate(entries):
            where = f"{path}, {part}[{number}]"
            with issues.collected():
                entry = {"image": entry} if isinstance(entry, str) else entry
                if not isinstance(entry, dict):
                    raise InputError(where, *NO_IMAGE)
                found.append((where, case_of(entry, split, where)))
    return once(found, path.parent, issues)


def channel_names(modality: Mapping[Any, Any]) -> tuple[str, ...]:
    """The names of ``{"0": "CT", "1": "PET"}``, by their numbers as text."""
    return tuple(str(name) for _, name in sorted(modality.items(), key=lambda item: str(item[0])))


def _read_sites(path: Path) -> dict[str, str]:
    """Site by name of case, from a file of two columns."""
    try:
        lines = decoded(path.read_bytes()).splitlines()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error})", "Correct --reader.sites") from None
    sites: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        words = [word for word in re.split(r"[\s,;]+", composed(line)) if word]
        if not words:
            continue
        if len(words) != 2:
            remedy = "Write the name of a case and its site in each line"
            raise InputError(path, f"line {number} holds {len(words)} words", remedy)
        if words[0] in sites:
            raise InputError(path, f"line {number} names {words[0]} again", KEEP_ONE)
        sites[words[0]] = words[1]
    return sites


def _with_sites(cases: list[Case], path: Path) -> list[Case]:
    sites = _read_sites(path)
    places = {name: place for place, name in enumerate(sites)}
    for case in cases:
        if case.name not in sites:
            raise InputError(path, f"names no site of the case {case.name}", "Add a line for it")
    return [replace(case, site=sites[case.name], place=places[case.name]) for case in cases]


def _wanted(place: PurePosixPath, only: str) -> bool:
    try:
        return re.search(only, place.as_posix()) is not None
    except re.error as error:
        problem = f"is no regular expression ({error})"
        raise InputError(f"--reader.only {only}", problem, "Correct it") from None


def _threshold(case: Case, data: Data) -> float | None:
    where = f"--reader.label-threshold {data.label_threshold}"
    if data.label_threshold is not None and data.label_values is not None:
        raise InputError(where, "excludes --reader.label-values", "Give one of the two")
    if data.label_threshold is not None and case.label_item is not None:
        raise InputError(where, "is for label maps, not for outlines", "Leave it out")
    return data.label_threshold


def _classes(
    declared: tuple[str, ...], data: Data
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Names of the classes, and the label values of each; () where those are 0, 1, 2, ..."""
    values, names = data.label_values, named(data)
    if values is None:
        if names is None or len(set(names)) == len(names):
            return names or declared, ()
        values = tuple(range(len(names)))
    if len(set(values)) < len(values):
        where = f"--reader.label-values {','.join(map(str, values))}"
        raise InputError(where, "names a value twice", "Give each value once, background first")
    if names is not None and len(names) != len(values):
        where = f"--reader.class-names {','.join(names)}"
        problem = f"are {len(names)} names for {len(values)} label values"
        raise InputError(where, problem, "Give one name per value, background first")
    if names is None and not declared:
        return (), tuple((value,) for value in values)
    if names is None:
        names = tuple(declared[v] if v < len(declared) else f"label {v}" for v in values)
    classes = tuple(dict.fromkeys(names))
    pairs = list(zip(names, values, strict=True))
    return classes, tuple(tuple(v for own, v in pairs if own == name) for name in classes)


def _refuse_names(root: Path, classes: Sequence[str]) -> None:
    if wrong := {"", ALL_CLASSES}.intersection(classes):
        problem = f"has a class called {wrong.pop()!r}, which tables call the mean over the classes or nothing"
        raise InputError(root, problem, "Rename it there, or name all with --reader.class-names")


def named(data: Data) -> tuple[str, ...] | None:
    """Class names of the settings; the name of a public set stands for its organs."""
    names = data.class_names
    if names is not None and len(names) == 1 and names[0] in known_sets():
        return tuple(name for _, name in sorted(classes_of_set(names[0]).items()))
    return names
