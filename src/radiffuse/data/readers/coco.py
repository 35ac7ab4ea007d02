"""Label maps from polygons and run lengths of COCO JSON (https://cocodataset.org/#format-data).

Drawn here rather than by pycocotools, whose polygons differ along the outline from the pixels whose
center lies inside, and which reads memory that is not its own where run lengths are damaged.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...config import IGNORE
from ...errors import InputError
from ..documents import read_json
from ..scan import Array


class CocoImage(NamedTuple):
    """One entry of ``images``; ``height`` and ``width`` are None where the file does not say."""

    file_name: str
    height: int | None
    width: int | None


@dataclass(frozen=True)
class Coco:
    """A parsed COCO file.

    Attributes:
        path: The file.
        images: By image id, as text.
        annotations: By image id, in the order of the file.
        values: Label value by category id: 1, 2, ... in ascending order of ids.
        classes: Names by label value, background first.
    """

    path: Path
    images: dict[str, CocoImage]
    annotations: dict[str, list[dict[str, Any]]]
    values: dict[str, int]
    classes: tuple[str, ...]

    def faults(self, item: str) -> list[str]:
        """What keeps the annotations of one image from being drawn."""
        found = (_fault(annotation, self.values) for annotation in self.annotations.get(item, []))
        return [fault for fault in found if fault]


def load_coco(path: Path) -> Coco:
    """Parse a COCO file, or take it from the cache while it is unchanged on disk.

    Raises:
        InputError: The file is missing, is no JSON, or is not COCO.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Restore the file") from None
    return _parse(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _parse(path: Path, modified: int, size: int) -> Coco:
    content = read_json(path)
    try:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        names = [str(category["name"]) for category in categories]
        images = {str(entry["id"]): _image(entry) for entry in content["images"]}
        annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[str(annotation["image_id"])].append(annotation)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"is not COCO ({type(error).__name__}: {error})"
        raise InputError(path, problem, "Export it again") from None
    values = {str(category["id"]): value for value, category in enumerate(categories, start=1)}
    for holds, problem in (
        (len(images) == len(content["images"]), "gives two images the same id"),
        (len(names) < IGNORE, f"has {len(names)} categories, more than {IGNORE - 1}"),
        (len(values) == len(names), "gives two categories the same id"),
        (len(set(names)) == len(names), "gives two categories the same name"),
    ):
        if not holds:
            raise InputError(path, problem, "Correct the file or export it again")
    classes = ("background", *("background (category)" if n == "background" else n for n in names))
    return Coco(path, images, dict(annotations), values, classes)


def _image(entry: dict[str, Any]) -> CocoImage:
    sides = (None if entry.get(s) is None else int(entry[s]) for s in ("height", "width"))
    return CocoImage(str(entry["file_name"]), *sides)


def rasterize_coco(path: Path, item: str, shape: tuple[int, ...]) -> Array:
    """Draw the annotations of one image.

    A pixel belongs to a polygon if its center lies inside (even-odd rule; the polygons of one
    annotation are united). Where objects overlap, the later annotation wins. Crowds (``iscrowd``)
    are no single objects: they become ``IGNORE`` wherever no object lies on them.

    Args:
        path: The COCO file.
        item: Image id, as text.
        shape: Rows and columns of the image as it was read.

    Returns:
        uint8 ``(rows, columns)``, values of ``Coco.values``, 0 is background, 255 ignore.

    Raises:
        InputError: The image is unknown, has another size than the file says, or cannot be drawn.
    """
    document = load_coco(path)
    where = f"{path}, image {item}"
    if item not in document.images:
        raise InputError(where, "is not in the file", "Open the data set again")
    image = document.images[item]
    declared = (image.height, image.width)
    if len(shape) != 2 or (None not in declared and declared != tuple(shape)):
        actual = " x ".join(map(str, shape))
        problem = f"is declared as {image.height} x {image.width} pixels but has {actual}"
        remedy = "Draw the outlines on the image in its own size"
        raise InputError(f"{where} ({image.file_name})", problem, remedy)
    if faults := document.faults(item):
        raise InputError(where, faults[0], "Export outlines (polygons or RLE) for every object")
    label = np.zeros(shape, np.uint8)
    annotations = document.annotations.get(item, [])
    for annotation in sorted(annotations, key=lambda a: not a.get("iscrowd")):  # crowds first
        value = document.values[str(annotation["category_id"])]
        mask = _mask(annotation["segmentation"], (shape[0], shape[1]), where)
        label[mask] = IGNORE if annotation.get("iscrowd") else value
    return label


def _fault(annotation: dict[str, Any], values: dict[str, int]) -> str:
    """Why one annotation cannot be drawn, or ''."""
    name = f"annotation {annotation.get('id', '?')}"
    if str(annotation.get("category_id")) not in values:
        return f"{name} has the unknown category {annotation.get('category_id')!r}"
    outline = annotation.get("segmentation")
    if not outline:
        return f"{name} has {'a box and ' if annotation.get('bbox') else ''}no outline"
    if isinstance(outline, dict):
        counts, size = outline.get("counts"), outline.get("size")
        usable = isinstance(counts, list | str) and isinstance(size, list) and len(size) == 2
        return "" if usable else f"{name} has no counts or size in its run lengths"
    try:
        sound = all(
            len(p) >= 6 and len(p) % 2 == 0 and np.isfinite(np.asarray(p, np.float64)).all()
            for p in outline
        )
    except (TypeError, ValueError, OverflowError):
        sound = False
    return "" if sound else f"{name} has a polygon that is no list of x, y, x, y, x, y, ..."


def _mask(outline: Any, shape: tuple[int, int], where: str) -> Array:
    if isinstance(outline, dict):
        return _run_lengths(outline, shape, where)
    mask = np.zeros(shape, bool)
    for polygon in outline:
        mask |= fill_polygon(np.asarray(polygon, np.float64).reshape(-1, 2), shape)
    return mask


def fill_polygon(points: Array, shape: tuple[int, int]) -> Array:
    """Pixels whose center lies in a polygon, by the even-odd rule.

    Each edge flips the pixels to the right of where it crosses a row of centers; the parity of
    flips is the inside.

    Args:
        points: ``(n, 2)`` x (columns) and y (rows), where the first pixel reaches from 0 to 1.
        shape: Rows and columns.

    Returns:
        bool ``(rows, columns)``.
    """
    rows, columns = shape
    flips = np.zeros((rows, columns + 1), np.int32)
    closed = np.concatenate([points, points[:1]])
    for (x0, y0), (x1, y1) in pairwise(closed):
        if y0 == y1:
            continue
        low, high = sorted((y0, y1))
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, rows)) for y in (low, high))
        crossed = np.arange(first, last)
        x = x0 + (crossed + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        np.add.at(flips, (crossed, np.clip(np.ceil(x - 0.5), 0, columns).astype(int)), 1)
    inside: Array = np.cumsum(flips, axis=1)[:, :columns] % 2 == 1
    return inside


def _run_lengths(outline: dict[str, Any], shape: tuple[int, int], where: str) -> Array:
    """Runs of 0 and 1 in turn, down the columns."""
    remedy = "Export the file again"
    if tuple(outline["size"]) != shape:
        problem = f"has run lengths for {outline['size']}, not {list(shape)}"
        raise InputError(where, problem, remedy)
    counts = outline["counts"]
    runs = decode_counts(counts, where) if isinstance(counts, str) else counts
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != shape[0] * shape[1]:
        raise InputError(where, "has run lengths that do not fill the image", remedy)
    values = np.arange(len(runs)) % 2 == 1
    mask: Array = np.repeat(values, runs).reshape(shape, order="F")
    return mask


def decode_counts(text: str, where: str = "RLE") -> list[int]:
    """Run lengths from COCO's compressed text.

    Each number is written in groups of five bits, lowest first, as characters from ``0``; bit 6
    says that more follow, the highest bit of the last group is the sign. From the fourth run on,
    what is written is the difference to the run before last.

    Raises:
        InputError: The text ends within a number or has other characters.
    """
    damaged = InputError(where, "has damaged run lengths", "Export the file again")
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40:
            raise damaged
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise damaged
    return runs
