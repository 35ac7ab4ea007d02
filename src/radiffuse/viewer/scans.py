"""The scans that the page shows, each with its layers: masks, truth, maps of uncertainty, differences."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..data.cases import read_case_image, read_case_label
from ..data.class_names import ALL_CLASSES, read_classes
from ..data.dataset import Case
from ..data.layouts.listing import named_file
from ..data.readers import read_label, read_scan
from ..data.scan import Array, Scan, on_grid
from ..errors import InputError
from ..inference.expecting import COLUMN, in_words
from ..inference.records import Record
from .refusal import Refused, known

MASK, TRUTH, MAP, DIFFERENCE = "mask", "truth", "map", "difference"
DIFFERENCES = ("", "agrees", "predicted alone", "missed", "another class")
"""Names of the values of a difference."""
CACHE = 3 * 2**30
"""Bytes of decoded scans and layers that stay in memory; what was used last always stays."""
MOST = 500
"""Most scans in the list."""
ENDINGS = (".png", ".nii.gz", ".nii", ".mha", ".nrrd", ".tif")
"""Of masks, the first that is there."""


@dataclass(frozen=True)
class Layer:
    """Something that lies on a scan's grid.

    Attributes:
        id: Unique on its scan.
        name: For the user.
        kind: ``MASK``, ``TRUTH``, ``MAP`` or ``DIFFERENCE``.
        load: Reads or computes it: ``(steps, *spatial)``, integers, or for a map float32.
        classes: Names by value, background first; empty for maps.
        steps: Training timesteps of the steps of a sampler, or ().
        parts: Difference: ids of prediction and truth.
        model: Hash of what made a mask, for a file that is handed out; '' where that is not known.
        note: A line about it for people.
        expected: The Dice to expect, with the interval: ``dice``, ``low``, ``high``, ``level``; {} where nothing is.
    """

    id: str
    name: str
    kind: str
    load: Callable[[], Array]
    classes: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    parts: tuple[str, str] | None = None
    model: str = ""
    note: str = ""
    expected: Mapping[str, float] = field(default_factory=dict)

    def class_name(self, value: int) -> str:
        """Name of a value, also of one beyond the known classes."""
        return self.classes[value] if value < len(self.classes) else f"class-{value}"


@dataclass
class Item:
    """A scan in the list.

    Attributes:
        id: Number.
        case: Where its files are.
        dropped: Where the file lies, if it was dropped on the page.
        layers: By id.
        channels: Names.
        patient: '' where nothing names it.
        place: In the work list, 0 where there is none.
        why: It is in that list.
        corrected: How many corrections of it were saved.
    """

    id: str
    case: Case
    dropped: Path | None = None
    layers: dict[str, Layer] = field(default_factory=dict)
    channels: tuple[str, ...] = ("image",)
    patient: str = ""
    place: int = 0
    why: str = ""
    corrected: int = 0

    @property
    def name(self) -> str:
        """Of the case."""
        return self.case.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the scan."""
        return self.case.series or self.case.images

    @property
    def expected(self) -> Mapping[str, float]:
        """What to expect of its newest mask of which anything is known."""
        known = (layer.expected for layer in [*self.layers.values()][::-1] if layer.expected)
        return next(known, {})

    def layer(self, id: str) -> Layer:
        """A layer by its id.

        Raises:
            Refused: There is none (404).
        """
        return known(self.layers, id, "layer")


class Scans:
    """All scans, with the most recently used arrays in memory. May be used from several threads."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._cache: OrderedDict[tuple[str, str], Scan | Array] = OrderedDict()

    def add(
        self, cases: Sequence[Case], classes: Sequence[str] = (), dropped: Path | None = None
    ) -> list[Item]:
        """Put cases into the list, with their true masks where they have some.

        Raises:
            Refused: The list is full.
        """
        with self._lock:
            if len(self._items) + len(cases) > MOST:
                raise Refused(507, f"The list holds at most {MOST} scans.")
            added = []
            for case in cases:
                item = Item(str(next(self._numbers)), case, dropped)
                if case.label is not None:
                    load = partial(_truth, item, self)
                    self.attach(item, Layer("truth", "truth", TRUTH, load, tuple(classes)))
                self._items[item.id] = item
                added.append(item)
            return added

    def attach(self, item: Item, layer: Layer) -> None:
        """Put a layer on a scan, in the place of one of the same id; with its difference from the truth."""
        with self._lock:
            item.layers[layer.id] = layer
            self._cache.pop((item.id, layer.id), None)
            masks, truths = (
                [other for other in item.layers.values() if other.kind == kind]
                for kind in (MASK, TRUTH)
            )
            for mask, truth in itertools.product(masks, truths):
                if layer.id not in (mask.id, truth.id):
                    continue
                id = f"{mask.id}-against-{truth.id}"
                self._cache.pop((item.id, id), None)
                item.layers[id] = Layer(
                    id, f"{mask.name} against {truth.name}", DIFFERENCE,
                    partial(_difference, self, item, mask, truth), DIFFERENCES,
                    parts=(mask.id, truth.id),
                )  # fmt: skip

    def all(self) -> list[Item]:
        """In the order they were added."""
        with self._lock:
            return list(self._items.values())

    def get(self, id: str) -> Item:
        """A scan by its number.

        Raises:
            Refused: There is none (404).
        """
        return known(self._items, id, "scan")

    def remove(self, item: Item) -> bool:
        """Take a scan off the list; whether its dropped file is of no more use."""
        with self._lock:
            self._items.pop(item.id, None)
            for key in [key for key in self._cache if key[0] == item.id]:
                del self._cache[key]
            return item.dropped is not None and all(
                other.dropped != item.dropped for other in self._items.values()
            )

    def scan(self, item: Item) -> Scan:
        """The scan itself.

        Raises:
            InputError: It cannot be read.
        """
        found = self._cached((item.id, ""), lambda: read_case_image(item.case))
        assert isinstance(found, Scan)
        return found

    def array(self, item: Item, layer: Layer) -> Array:
        """A layer's values, ``(steps, *spatial)``.

        Raises:
            InputError: It cannot be read, or does not lie on the scan's grid.
        """
        found = self._cached((item.id, layer.id), lambda: _fitting(layer, self.scan(item)))
        assert not isinstance(found, Scan)
        return found

    def _cached(self, key: tuple[str, str], load: Callable[[], Scan | Array]) -> Scan | Array:
        with self._lock:
            if key not in self._cache:
                self._cache[key] = load()
            self._cache.move_to_end(key)
            total = sum(map(_bytes, self._cache.values()))
            while total > CACHE and len(self._cache) > 1:
                total -= _bytes(self._cache.popitem(last=False)[1])
            return self._cache[key]


def mask_layers(
    folder: Path, item: Item, scans: Scans, record: Record | None = None
) -> list[Layer]:
    """What a folder of masks holds for a scan: its mask, and maps named ``CASE-entropy.nii.gz`` and the like.

    Where the folder has a record, it names classes and model, and a mask of another scan is refused when it is shown.

    Raises:
        InputError: ``classes.json`` is not as the record says.
    """
    case, file = item.case, folder / "classes.json"
    found = named_file(folder, case.name, ENDINGS)
    if found is None:
        return []
    names: Mapping[int, str] = {}
    if record is not None:
        names = record.classes()
    elif file.is_file():
        names = read_classes(str(file))
    classes = tuple(names.get(i, f"class-{i}") for i in range(max(names, default=-1) + 1))
    own = record is not None and not record.altered(found, case.name)
    model = record.models if record is not None and own else ""
    name = "prediction" if own or record is None else "prediction, changed since"
    load = partial(_label, found, item, scans, record)
    entry = record.entries.get(case.name, {}) if record is not None and own else {}
    found_out = entry.get(COLUMN, {})
    note, expected = in_words(found_out), found_out.get(ALL_CLASSES, {})
    layers = [Layer("given", name, MASK, load, classes, model=model, note=note, expected=expected)]
    for i, path in enumerate(sorted(folder.iterdir())):
        kind = path.name.removeprefix(f"{case.name}-").partition(".")[0]
        if path.name.startswith(f"{case.name}-") and (
            kind in ("confidence", "entropy", "variance") or kind.startswith("mean-")
        ):
            map_of = partial(_map, path, item, scans, record)
            layers.append(Layer(f"given-map-{i}", kind, MAP, map_of))
    return layers


def counts(array: Array) -> list[list[int]]:
    """Voxels of each value at each step of ``(steps, *spatial)``; those of ``IGNORE`` are left out."""
    found = [np.bincount(step.ravel(), minlength=IGNORE + 1) for step in array]
    top = max((int(np.flatnonzero(row[:IGNORE]).max(initial=0)) for row in found), default=0)
    return [[int(n) for n in row[: top + 1]] for row in found]


def overlap(predicted: Array, true: Array) -> list[dict[str, float | int | None]]:
    """Dice and IoU of each foreground value of two ``(*spatial)``, outside ``IGNORE``; None where both are empty."""
    valid = true != IGNORE
    p, t = predicted[valid], true[valid]
    size = int(max(p.max(initial=0), t.max(initial=0))) + 1
    both, one, other = (np.bincount(v, minlength=size) for v in (p[p == t], p, t))
    rows: list[dict[str, float | int | None]] = []
    for value in range(1, size):
        total, shared = int(one[value] + other[value]), int(both[value])
        dice, iou = (2 * shared / total, shared / (total - shared)) if total else (None, None)
        rows.append({"value": value, "dice": dice, "iou": iou})
    return rows


# ------------------------------------------------------------------------------------------------ internal


def _truth(item: Item, scans: Scans) -> Array:
    return _labels(read_case_label(item.case, scans.scan(item)), item.case.name)


def _label(path: Path, item: Item, scans: Scans, record: Record | None) -> Array:
    scan, mask = scans.scan(item), read_label(path)
    if record is not None:
        record.verify_scan(item.case, scan)
    return _labels(on_grid(mask, scan, path, item.name), path)


def _map(path: Path, item: Item, scans: Scans, record: Record | None) -> Array:
    scan = scans.scan(item)
    if record is not None:
        record.verify_scan(item.case, scan)
    values = on_grid(read_scan(path), scan, path, item.name)
    return values.array[:1].astype(np.float32)


def _labels(scan: Scan, where: Path | str) -> Array:
    low, high = int(scan.array.min()), int(scan.array.max())
    if low < 0 or high > IGNORE:
        problem = f"holds label {low if low < 0 else high}"
        raise InputError(where, problem, f"Labels from 0 to {IGNORE} can be shown")
    return scan.array.astype(np.uint8)


def _difference(scans: Scans, item: Item, mask: Layer, truth: Layer) -> Array:
    """Values by ``DIFFERENCES``."""
    p, t = scans.array(item, mask)[-1], scans.array(item, truth)[-1]
    cases = [t == IGNORE, (p == t) & (p > 0), (p > 0) & (t == 0), (p == 0) & (t > 0), p != t]
    return np.select(cases, (0, 1, 2, 3, 4)).astype(np.uint8)[None]


def _fitting(layer: Layer, scan: Scan) -> Array:
    array = layer.load()
    if array.shape[1:] != scan.spatial_shape:
        sizes = [" x ".join(map(str, shape)) for shape in (array.shape[1:], scan.spatial_shape)]
        raise InputError(
            layer.name, f"is {sizes[0]}, the scan {sizes[1]}", "Give the mask of this scan"
        )
    return array


def _bytes(value: Scan | Array) -> int:
    array = value.array if isinstance(value, Scan) else value
    return 0 if isinstance(array, np.memmap) else int(array.nbytes)
