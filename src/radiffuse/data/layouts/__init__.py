"""From a path to cases: the organization of the folder is recognized, or named by ``data.layout``.

One module per layout, with a description ``EXPECTED`` for messages, and ``read(root, data, issues)``
that returns a ``Dataset``, or None where the path is organized in another way. Faults of single files
go into ``issues``, so that ``check`` lists all of them and ``skip_bad`` goes on without the files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ...config import Data
from ...errors import InputError, missing
from ..dataset import Dataset
from ..issues import Issue, Issues, raise_first, say, some
from ..links import refuse_link
from ..readers import SUFFIXES
from .doubts import look_for_masks, look_for_outlines, look_for_tables
from .listing import CORRECTED, GENERATED, GRANT, PREDICTED, entries, own_folder, walk, walked_once

Layout = Callable[[Path, Data, Issues], Dataset | None]

_IN_ORDER = (
    *(
        "corrections",
        "nnunet",
        "msd",
        "datalist",
        "coco",
        "pairs",
        "totalsegmentator",
        "suffixes",
        "chest",
    ),
    *("table", "dicom", "classes", "images"),
)
"""As they are tried: those that declare themselves first, plain images last."""
_MODULES = {name: import_module(f"{__name__}.{name}") for name in _IN_ORDER}
LISTS = {".json", ".csv", ".tsv", ".parquet", ".gz"}
"""Suffixes of files that say what a data set holds."""
ARCHIVES = {".zip", ".gz", ".tar", ".tgz", ".7z", ".rar"}
LAYOUTS: dict[str, Layout] = {name: module.read for name, module in _MODULES.items()}
EXPECTED: dict[str, str] = {name: module.EXPECTED for name, module in _MODULES.items()}
"""What each layout looks like, for messages."""


def register(name: str, read: Layout, expected: str) -> None:
    """Add a layout in this process; ``auto`` tries it before all others.

    ``read`` returns a ``Dataset`` (see ``build.build``), or None where the path is organized in
    another way. ``expected`` says what the layout looks like, for messages.
    """
    before = {key: value for key, value in LAYOUTS.items() if key != name}
    LAYOUTS.clear()
    LAYOUTS.update({name: read} | before)
    EXPECTED[name] = expected


def open_dataset(path: Path | str, data: Data | None = None) -> Dataset:
    """The cases under a path, at least one, sorted by name. No pixel is read. What does not stop is said on stderr.

    Args:
        path: A folder, a table, a COCO JSON file, or a single image.
        data: Layout, patients, and whether unusable files are left out (``skip_bad``).

    Raises:
        InputError: No layout fits, or there is a fault and ``skip_bad`` is off.
    """
    dataset, issues = survey(path, data)
    if data is None or not data.skip_bad:
        raise_first(issues)
    say(issues)
    return dataset


def survey(path: Path | str, data: Data | None = None) -> tuple[Dataset, tuple[Issue, ...]]:
    """Like ``open_dataset``, but returns the usable cases and all faults instead of raising.

    Raises:
        InputError: The path does not exist, or no layout fits it.
    """
    settings = data if data is not None else Data()
    root = existing(path)
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise InputError(root, "cannot be listed (Permission denied)", GRANT)
    own = own_folder(root)
    if own_folder(root.resolve().parent) == PREDICTED:
        own = f"of {PREDICTED}"
    if own not in ("", GENERATED, CORRECTED):
        raise InputError(root, f"is {own}, not a data set", "Give the folder of the scans")
    for path in entries(root):
        if path.suffix.lower() in LISTS and path.is_symlink():
            refuse_link(path, root)
    names = LAYOUTS if settings.layout == "auto" else (settings.layout,)
    with walked_once(root):
        for name in names:
            issues = Issues()
            dataset = LAYOUTS[name](root, settings, issues)
            if dataset is not None:
                _refuse_foreign(root, name, settings)
                if dataset.cases:
                    look_for_tables(dataset, settings, issues)
                    look_for_masks(dataset, issues)
                    look_for_outlines(dataset, issues)
                    return dataset, tuple(issues)
                raise_first(issues)
                break
        raise _nothing_fits(root, settings)


def existing(path: Path | str) -> Path:
    """The path of a data set.

    Raises:
        InputError: It does not exist.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise missing(root)
    return root


def _refuse_foreign(root: Path, name: str, data: Data) -> None:
    """Refuse settings of the public chest sets for another layout."""
    for key in ("views", "finding") if name in _MODULES and name != "chest" else ():
        if (value := getattr(data, key)) is not None:
            problem = f"is for the public chest sets, and {root} has the layout {name}"
            words = value if isinstance(value, str) else ",".join(value)
            raise InputError(f"--reader.{key} {words}", problem, "Leave it out")


def _nothing_fits(root: Path, data: Data) -> InputError:
    kind, expected = "a data set", f"{EXPECTED['images']}; with labels, {EXPECTED['pairs']}"
    if data.layout != "auto":
        kind, expected = f"the layout {data.layout!r}", EXPECTED[data.layout]
    formats = ", ".join(sorted(SUFFIXES))
    packed = any(p.suffix.lower() in ARCHIVES for p in walk(root).others)
    first = "Unpack the archives first. " if packed else ""
    remedy = (
        f"{first}Expected is {expected}. Formats: {formats}. All layouts: docs/reference/layouts.md"
    )
    return InputError(root, f"holds nothing that fits {kind} (found {_found(root)})", remedy)


def _found(root: Path) -> str:
    if root.is_file():
        return f"a file of {root.stat().st_size} bytes"
    listing = walk(root)
    if listing.issues and not listing.images:
        return f"{listing.issues[0].where}, which {listing.issues[0].problem}"
    counts = Counter(path.suffix.lower() or "no suffix" for path in listing.images + listing.others)
    if not counts:
        return "no files" + (" but hidden ones and texts" if any(root.iterdir()) else "")
    return some([f"{number} of {suffix}" for suffix, number in counts.most_common()])
