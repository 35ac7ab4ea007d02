"""What every layout does at the end: names, patients, order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..class_names import classes_of_set, known_sets
from ..dataset import Case, Dataset
from ..issues import Issue
from ..names import unique_names
from .listing import key
from .patients import Groups


@dataclass(frozen=True)
class Draft:
    """A case before it has its final name and patient.

    Attributes:
        image: Path of the first image relative to the data folder; tells drafts apart.
        case: Its ``name`` is what it would like to be called; ``group`` is what the layout knows,
            or ''.
    """

    image: PurePosixPath
    case: Case


def build(
    root: Path,
    layout: str,
    drafts: Sequence[Draft],
    data: Data,
    issues: list[Issue],
    *,
    home: Path | None = None,
    classes: tuple[str, ...] = (),
    channels: tuple[str, ...] = ("image",),
) -> Dataset:
    """Give drafts unique names and patients and sort them.

    Args:
        root: What the user gave, a folder or a file.
        layout: Name of the layout.
        drafts: One per case.
        data: Holds the expression for patients.
        issues: Receives what is wrong with patients.
        home: The folder that paths are relative to; None: ``root``.
        classes: Names by label value.
        channels: Names of the channels.
    """
    everything = drafts
    if data.only is not None:
        drafts = [draft for draft in drafts if _wanted(draft.image, data.only)]
        if everything and not drafts:
            problem = f"holds no case whose path matches {data.only!r}"
            raise InputError(root, problem, "Correct --reader.only, or leave it out")
    names_of_classes, values = _classes(classes, data)
    groups = Groups(home or root, data, issues)
    identities = [f"{draft.image}#{draft.case.label_item or ''}" for draft in drafts]
    names = unique_names([draft.case.name for draft in drafts], identities)
    cases = [
        replace(
            draft.case,
            name=name,
            group=groups.of(draft.image, name, draft.case.group),
            label_values=values,
        )
        for draft, name in zip(drafts, names, strict=True)
    ]
    groups.finish()
    cases.sort(key=lambda case: case.name)
    if data.sites is not None:
        cases = _with_sites(cases, root / data.sites)
    kept = {draft.image for draft in drafts}
    passed = frozenset(
        path for draft in everything if draft.image not in kept for path in _files(draft.case)
    )
    return Dataset(root, layout, tuple(cases), names_of_classes, channels, passed)


def _files(case: Case) -> list[Path]:
    return [*case.images, *case.series, *case.label_files]


def read_sites(path: Path) -> dict[str, str]:
    """Site by name of case, from a file of two columns.

    Raises:
        InputError: It cannot be read, a line has not two words, or a case stands there twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", "Correct --reader.sites") from None
    sites = {}
    for number, line in enumerate(lines, start=1):
        words = [word for word in re.split(r"[\s,;]+", line.strip()) if word]
        if words and len(words) != 2:
            problem = f"line {number} holds {len(words)} words"
            raise InputError(path, problem, "Write the name of a case and its site in each line")
        if words and words[0] in sites:
            raise InputError(path, f"line {number} names {words[0]} again", "Keep one of the two")
        if words:
            sites[words[0]] = words[1]
    return sites


def _with_sites(cases: list[Case], path: Path) -> list[Case]:
    sites = read_sites(path)
    places = {name: place for place, name in enumerate(sites)}
    for case in cases:
        if case.name not in sites:
            raise InputError(path, f"names no site of the case {case.name}", "Add a line for it")
    return [replace(case, site=sites[case.name], place=places[case.name]) for case in cases]


def _wanted(path: PurePosixPath, only: str) -> bool:
    try:
        return re.search(only, path.as_posix()) is not None
    except re.error as error:
        raise InputError(
            f"--reader.only {only}", f"is no regular expression ({error})", "Correct it"
        ) from None


def _classes(
    declared: tuple[str, ...], data: Data
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Names of the classes, and the values that the label maps use for each, () where those are 0, 1, 2, ..."""
    values, names = data.label_values, named(data)
    if values is None:
        if names is None or len(set(names)) == len(names):
            return names or declared, ()
        values = tuple(range(len(names)))
    if len(set(values)) < len(values):
        raise InputError(
            f"--reader.label-values {','.join(map(str, values))}",
            "names a value twice",
            "Give each value once, background first",
        )
    if names is not None and len(names) != len(values):
        raise InputError(
            f"--reader.class-names {','.join(names)}",
            f"are {len(names)} names for {len(values)} label values",
            "Give one name per value, background first",
        )
    if names is None:
        if not declared:
            return (), tuple((value,) for value in values)
        names = tuple(declared[v] if v < len(declared) else f"label {v}" for v in values)
    classes = tuple(dict.fromkeys(names))
    pairs = list(zip(names, values, strict=True))
    return classes, tuple(tuple(v for own, v in pairs if own == name) for name in classes)


def named(data: Data) -> tuple[str, ...] | None:
    """The names that the settings give the classes; the name of a set in the table of organs stands for its organs."""
    names = data.class_names
    if names is not None and len(names) == 1 and names[0] in known_sets():
        return tuple(name for _, name in sorted(classes_of_set(names[0]).items()))
    return names


def plain(
    root: Path, image: PurePosixPath, *, target: str | None = None, split: str | None = None
) -> Draft:
    """A draft of one image file that is named after its path."""
    return Draft(image, Case(key(image), (root / image,), target=target, split=split))
