"""What every layout does at the end: names, patients, order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...config import Data
from ..dataset import Case, Dataset
from ..groups import Groups
from ..issues import Issue
from ..listing import key
from ..names import unique_names


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
    groups = Groups(home or root, data, issues)
    identities = [f"{draft.image}#{draft.case.label_item or ''}" for draft in drafts]
    names = unique_names([draft.case.name for draft in drafts], identities)
    cases = [
        replace(draft.case, name=name, group=groups.of(draft.image, name, draft.case.group))
        for draft, name in zip(drafts, names, strict=True)
    ]
    groups.finish()
    cases.sort(key=lambda case: case.name)
    return Dataset(root, layout, tuple(cases), classes, channels)


def plain(
    root: Path, image: PurePosixPath, *, target: str | None = None, split: str | None = None
) -> Draft:
    """A draft of one image file that is named after its path."""
    return Draft(image, Case(key(image), (root / image,), target=target, split=split))
