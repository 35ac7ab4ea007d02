"""From a path to cases: how the folder is organized is recognized, or named by ``data.layout``.

One module per layout, each with ``EXPECTED``, what the layout looks like, and a function
``read(root, data, issues)`` that returns a ``Dataset``, or None where the path is not organized in
its way. What is wrong with single files goes into ``issues``, so that ``check`` can list everything
at once and ``skip_bad`` can go on without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ...config import Data
from ...errors import InputError
from ..dataset import Dataset
from ..issues import Issue, Issues, raise_first, some
from ..readers import SUFFIXES
from . import (
    chest,
    classes,
    coco,
    datalist,
    dicom,
    images,
    msd,
    nnunet,
    pairs,
    suffixes,
    table,
    totalsegmentator,
)
from .listing import own_folder, walk, walked_once

Layout = Callable[[Path, Data, Issues], Dataset | None]

_IN_ORDER = (
    *(nnunet, msd, datalist, coco, pairs, totalsegmentator, suffixes, chest, table, dicom, classes),
    images,
)
"""As they are tried: those that declare themselves first, plain images last."""

LAYOUTS: dict[str, Layout] = {m.__name__.rpartition(".")[2]: m.read for m in _IN_ORDER}
EXPECTED = {module.__name__.rpartition(".")[2]: module.EXPECTED for module in _IN_ORDER}
"""What each layout looks like, for messages."""


def register(name: str, read: Layout, expected: str) -> None:
    """Make a layout of one's own known in this process; with ``auto`` it is tried before all others.

    Args:
        name: What ``Dataset.layout`` will be.
        read: ``read(root, data, issues)``: a ``Dataset``, best made by ``layouts.build.build``, or
            None where the path is not organized in this way.
        expected: What the layout looks like, for messages.
    """
    before = {key: value for key, value in LAYOUTS.items() if key != name}
    LAYOUTS.clear()
    LAYOUTS.update({name: read} | before)
    EXPECTED[name] = expected


def open_dataset(path: Path | str, data: Data | None = None) -> Dataset:
    """The cases under a path. No pixel is read.

    Args:
        path: A folder, a table, a COCO JSON file, or a single image.
        data: Layout, patients, and whether unusable files are left out (``skip_bad``).

    Returns:
        At least one case, sorted by name.

    Raises:
        InputError: Nothing fits, or something is wrong and ``skip_bad`` is off; names the first
            fault.
    """
    dataset, issues = survey(path, data)
    if data is None or not data.skip_bad:
        raise_first(issues)
    return dataset


def survey(path: Path | str, data: Data | None = None) -> tuple[Dataset, tuple[Issue, ...]]:
    """Like ``open_dataset``, but returns what is wrong instead of stopping at it.

    Returns:
        The usable cases, at least one, and everything that was found wrong on the way.

    Raises:
        InputError: The path does not exist, or no layout fits it.
    """
    settings = data if data is not None else Data()
    root = Path(path).expanduser()
    if not root.exists():
        raise InputError(root, "does not exist", "Check the spelling of the path")
    if own := own_folder(root):
        problem = f"is {own}, not a data set"
        raise InputError(root, problem, "Give the folder of the scans themselves")
    names = LAYOUTS if settings.layout == "auto" else {settings.layout: LAYOUTS[settings.layout]}
    with walked_once():
        for read in names.values():
            issues = Issues()
            dataset = read(root, settings, issues)
            if dataset is not None:
                if dataset.cases:
                    return dataset, tuple(issues)
                raise_first(issues)
                break
        raise _nothing_fits(root, settings)


def _nothing_fits(root: Path, data: Data) -> InputError:
    wanted = EXPECTED if data.layout == "auto" else {data.layout: EXPECTED[data.layout]}
    expected = "; ".join(f"{name}: {looks}" for name, looks in wanted.items())
    kind = "a data set" if data.layout == "auto" else f"the layout {data.layout!r}"
    formats = ", ".join(sorted(SUFFIXES))
    remedy = f"Expected is {expected}. Formats: {formats}. See docs/reference/layouts.md"
    return InputError(root, f"holds nothing that fits {kind} (found {_found(root)})", remedy)


def _found(root: Path) -> str:
    if root.is_file():
        return f"a file of {root.stat().st_size} bytes"
    listing = walk(root)
    if listing.issues and not listing.images:
        return f"{listing.issues[0].where}, which {listing.issues[0].problem}"
    counts = Counter(path.suffix.lower() or "no suffix" for path in listing.images + listing.others)
    if not counts:
        return "no files but hidden ones and texts"
    return some([f"{number} of {suffix}" for suffix, number in counts.most_common()])
