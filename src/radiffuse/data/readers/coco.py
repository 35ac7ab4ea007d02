"""Label maps from polygons and run lengths of COCO JSON (https://cocodataset.org/#format-data).

Drawn here, not by pycocotools: it differs from the even-odd rule along outlines, and reads out of
bounds where run lengths are damaged.
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
from ...system.files import read_json
from ..scan import Array

NEEDS_OUTLINES = "Export outlines (polygons or RLE) for every object"
_EXPORT = "Export the file again"


class CocoImage(NamedTuple):
    """One entry of ``images``; ``height`` and ``width`` are None where not given."""

    file_name: str
    height: int | None
    width: int | None


@dataclass(frozen=True)
class Coco:
    """A parsed COCO file.

    Attributes:
        images: By image id, as text.
        annotations: By image id, in the order of the file.
        values: Label value by category id: 1, 2, ... in ascending order of ids.
        classes: Names by label value, background first.
    """

    images: dict[str, CocoImage]
    annotations: dict[str, list[dict[str, Any]]]
    values: dict[str, int]
    classes: tuple[str, ...]

    def faults(self, item: str) -> list[str]:
        """Why annotations of an image cannot be drawn."""
        faults = (_fault(annotation, self.values) for annotation in self.annotations.get(item, []))
        return [fault for fault in faults if fault]


def load_coco(path: Path) -> Coco:
    """Parse a COCO file; cached while it is unchanged on disk.

    Raises:
        InputError: The file is missing, or is not COCO JSON.
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
        images = {}
        for entry in content["images"]:
            sides = (None if entry.get(s) is None else int(entry[s]) for s in ("height", "width"))
            images[str(entry["id"])] = CocoImage(str(entry["file_name"]), *sides)
        annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[str(annotation["image_id"])].append(annotation)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"is not COCO ({type(error).__name__}: {error})"
        raise InputError(path, problem, _EXPORT) from None
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
    return Coco(images, dict(annotations), values, classes)


def rasterize_coco(path: Path, item: str, shape: tuple[int, ...]) -> Array:
    """Label map of one image: uint8 ``(rows, columns)`` of ``Coco.values``, 255 is ignore.

    A pixel belongs to a polygon if its center lies inside (even-odd rule; the polygons of one
    annotation are united). Where objects overlap, the later annotation wins. Crowds (``iscrowd``)
    become ``IGNORE`` wherever no object covers them.

    Raises:
        InputError: The image is unknown, has another size than declared, or cannot be drawn.
    """
    document = load_coco(path)
    where = f"{path}, image {item}"
    if item not in document.images:
        raise InputError(where, "is not in the file", "Open the data set again")
    image = document.images[item]
    declared = (image.height, image.width)
    if len(shape) != 2 or (None not in declared and declared != tuple(shape)):
        where, actual = f"{where} ({image.file_name})", " x ".join(map(str, shape))
        problem = f"is declared as {image.height} x {image.width} pixels but has {actual}"
        raise InputError(where, problem, "Draw the outlines on the image in its own size")
    if faults := document.faults(item):
        raise InputError(where, faults[0], NEEDS_OUTLINES)
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
    """Pixels whose center lies in a polygon, by the even-odd rule: bool ``(rows, columns)``.

    Each edge flips the pixels to the right of where it crosses a row of centers. ``points`` are
    ``(n, 2)``, x (columns) and y (rows); the first pixel spans 0 to 1.
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
    if tuple(outline["size"]) != shape:
        problem = f"has run lengths for {outline['size']}, not {list(shape)}"
        raise InputError(where, problem, _EXPORT)
    counts = outline["counts"]
    runs = decode_counts(counts, where) if isinstance(counts, str) else counts
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != shape[0] * shape[1]:
        raise InputError(where, "has run lengths that do not fill the image", _EXPORT)
    mask: Array = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape, order="F")
    return mask


def decode_counts(text: str, where: str = "RLE") -> list[int]:
    """Run lengths from COCO's compressed text.

    Each number is written in groups of five bits, lowest first, as characters from ``0``; bit 6
    says that more follow, and the highest bit of the last group is the sign. From the fourth run
    on, the difference to the run before the previous one is written.

    Raises:
        InputError: The text ends within a number or has other characters.
    """
    damaged = InputError(where, "has damaged run lengths", _EXPORT)
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
