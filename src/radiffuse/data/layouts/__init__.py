"""From a path to cases: how the folder is organized is recognized, or named by ``data.layout``.

One module per layout, each with a function ``read(root, data, issues)`` that returns a
``Dataset``, or None where the path is not organized in its way. What is wrong with single files
goes into ``issues``, so that ``check`` can list everything at once and ``skip_bad`` can go on
without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ...config import Data
from ...errors import InputError
from ..dataset import Dataset
from ..issues import Issue, raise_first, some
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

Layout = Callable[[Path, Data, list[Issue]], Dataset | None]

LAYOUTS: dict[str, Layout] = {
    "nnunet": nnunet.read,
    "msd": msd.read,
    "datalist": datalist.read,
    "coco": coco.read,
    "pairs": pairs.read,
    "totalsegmentator": totalsegmentator.read,
    "suffixes": suffixes.read,
    "chest": chest.read,
    "table": table.read,
    "dicom": dicom.read,
    "classes": classes.read,
    "images": images.read,
}
"""In the order in which they are tried: those that declare themselves first, plain images last."""

EXPECTED = {
    "nnunet": "dataset.json with channel_names, imagesTr/ and labelsTr/",
    "msd": "dataset.json with a list 'training'",
    "datalist": "a JSON data list of MONAI with 'training', or a folder with datalist.json",
    "coco": "a JSON file with images, annotations and categories",
    "pairs": "images/ and labels/ (or masks/) with files of the same names",
    "totalsegmentator": "folders that hold a scan and segmentations/ with a mask per structure",
    "suffixes": "files called CASE_t1, CASE_t2, ... and CASE_seg (or CASE_img and CASE_mask)",
    "chest": "the table of NIH ChestX-ray14, CheXpert, MIMIC-CXR-JPG, PadChest or VinDr-CXR",
    "table": "a CSV or Parquet file with a column 'image'",
    "dicom": "a tree of DICOM files and nothing else",
    "classes": "two or more folders of images, one per class",
    "images": "a folder of images",
}
"""What each layout looks like, for messages."""


def register(name: str, read: Layout, expected: str) -> None:
    """Make a layout of one's own known in this process; with ``auto`` it is tried before all others.

    Args:
        name: What ``Dataset.layout`` will be.
        read: ``read(root, data, issues)``: a ``Dataset``, best made by ``layouts.build.build``, or None where the path
            is not organized in this way.
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
    settings = data if data is not None else Data()
    dataset, issues = survey(path, settings)
    if not settings.skip_bad:
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
        raise InputError(
            root, f"is {own}, not a data set", "Give the folder of the scans themselves"
        )
    names = LAYOUTS if settings.layout == "auto" else {settings.layout: LAYOUTS[settings.layout]}
    with walked_once():
        for read in names.values():
            issues: list[Issue] = []
            dataset = read(root, settings, issues)
            if dataset is not None:
                if not dataset.cases:
                    raise_first(issues)
                    raise _nothing_fits(root, settings)
                return dataset, tuple(issues)
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
