"""The scans that the page shows, each with its layers: masks, truth, maps of uncertainty, differences."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..data.cases import read_case_image, read_case_label
from ..data.class_names import read_classes
from ..data.dataset import Case
from ..data.readers import read_label, read_scan
from ..data.scan import Array, Scan, geometry_difference
from ..errors import InputError
from .refusal import Refused, unknown

MASK, TRUTH, MAP, DIFFERENCE = "mask", "truth", "map", "difference"
DIFFERENCES = ("", "agrees", "predicted alone", "missed", "another class")
"""Names of the values of a difference."""
CACHE = 3 * 2**30
"""Bytes of decoded scans and layers that stay in memory; what was used last always stays."""
MOST = 500
"""Most scans in the list."""


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
        source: Who made it, for a file that is handed out.
    """

    id: str
    name: str
    kind: str
    load: Callable[[], Array]
    classes: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    parts: tuple[str, str] | None = None
    source: str = ""


@dataclass
class Item:
    """A scan in the list.

    Attributes:
        id: Number.
        case: Where its files are.
        dropped: Where the file lies, if it was dropped on the page.
        layers: By id.
    """

    id: str
    case: Case
    dropped: Path | None = None
    layers: dict[str, Layer] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the case."""
        return self.case.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the scan."""
        return self.case.series or self.case.images

    def layer(self, id: str) -> Layer:
        """A layer by its id.

        Raises:
            Refused: There is none (404).
        """
        try:
            return self.layers[id]
        except KeyError:
            raise unknown("layer") from None


class Scans:
    """All of them, with the arrays that were used last in memory. May be used from several threads."""

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
                    self.attach(item, Layer("truth", "truth", TRUTH, _truth(case), tuple(classes)))
                self._items[item.id] = item
                added.append(item)
            return added

    def attach(self, item: Item, layer: Layer) -> None:
        """Put a layer on a scan, in the place of one of the same id; with its difference from the truth."""
        with self._lock:
            item.layers[layer.id] = layer
            self._cache.pop((item.id, layer.id), None)
            pairs = [
                (mask, truth)
                for mask in list(item.layers.values())
                for truth in list(item.layers.values())
                if mask.kind == MASK and truth.kind == TRUTH and layer.id in (mask.id, truth.id)
            ]
            for mask, truth in pairs:
                id = f"{mask.id}-against-{truth.id}"
                self._cache.pop((item.id, id), None)
                item.layers[id] = Layer(
                    id, f"{mask.name} against {truth.name}", DIFFERENCE,
                    _difference(self, item, mask, truth), DIFFERENCES, parts=(mask.id, truth.id),
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
        try:
            return self._items[id]
        except KeyError:
            raise unknown("scan") from None

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


def mask_layers(folder: Path, item: Item, scans: Scans) -> list[Layer]:
    """What a folder of masks holds for a scan: its mask, and maps named ``CASE-entropy.nii.gz`` and the like."""
    case = item.case
    found = _file(folder, case.name, (".png", ".nii.gz", ".nii", ".mha", ".nrrd", ".tif"))
    if found is None:
        return []
    names = (
        read_classes(str(folder / "classes.json")) if (folder / "classes.json").is_file() else {}
    )
    classes = tuple(names.get(i, f"class-{i}") for i in range(max(names, default=-1) + 1))
    layers = [
        Layer("given", "prediction", MASK, _label(found, item, scans), classes, source=folder.name)
    ]
    for i, path in enumerate(sorted(folder.iterdir())):
        kind = path.name.removeprefix(f"{case.name}-").partition(".")[0]
        if path.name.startswith(f"{case.name}-") and (
            kind in ("confidence", "entropy", "variance") or kind.startswith("mean-")
        ):
            layers.append(Layer(f"given-map-{i}", kind, MAP, _map(path)))
    return layers


def counts(array: Array) -> list[list[int]]:
    """Voxels of each value at each step of ``(steps, *spatial)``; those of ``IGNORE`` are left out."""
    found = [np.bincount(step.ravel(), minlength=IGNORE + 1) for step in array]
    top = max((int(np.flatnonzero(row[:IGNORE]).max(initial=0)) for row in found), default=0)
    return [[int(n) for n in row[: top + 1]] for row in found]


def overlap(predicted: Array, true: Array) -> list[dict[str, float | int | None]]:
    """Dice and IoU of each foreground value, outside ``IGNORE``; None where both are empty.

    Args:
        predicted: ``(*spatial)``.
        true: The same shape.
    """
    valid = true != IGNORE
    p, t = predicted[valid], true[valid]
    size = int(max(p.max(initial=0), t.max(initial=0))) + 1
    both = np.bincount(p[p == t], minlength=size)
    one, other = np.bincount(p, minlength=size), np.bincount(t, minlength=size)
    rows: list[dict[str, float | int | None]] = []
    for value in range(1, size):
        total, shared = int(one[value] + other[value]), int(both[value])
        rows.append(
            {
                "value": value,
                "dice": 2 * shared / total if total else None,
                "iou": shared / (total - shared) if total else None,
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------ internal


def _truth(case: Case) -> Callable[[], Array]:
    return lambda: _labels(read_case_label(case), case.name)


def _label(path: Path, item: Item, scans: Scans) -> Callable[[], Array]:
    def load() -> Array:
        mask = read_label(path)
        if difference := geometry_difference(mask, scans.scan(item)):
            raise InputError(path, f"{difference} than {item.name}", "Give the mask of this scan")
        return _labels(mask, path)

    return load


def _map(path: Path) -> Callable[[], Array]:
    return lambda: read_scan(path).array[:1].astype(np.float32)


def _labels(scan: Scan, where: Path | str) -> Array:
    low, high = int(scan.array.min()), int(scan.array.max())
    if low < 0 or high > IGNORE:
        problem = f"holds label {low if low < 0 else high}"
        raise InputError(where, problem, f"Labels from 0 to {IGNORE} can be shown")
    return scan.array.astype(np.uint8)


def _difference(scans: Scans, item: Item, mask: Layer, truth: Layer) -> Callable[[], Array]:
    def load() -> Array:
        p, t = scans.array(item, mask)[-1], scans.array(item, truth)[-1]
        result = np.zeros(p.shape, np.uint8)
        result[(p == t) & (p > 0)] = 1
        result[(p > 0) & (t == 0)] = 2
        result[(p == 0) & (t > 0)] = 3
        result[(p > 0) & (t > 0) & (p != t)] = 4
        result[t == IGNORE] = 0
        return result[None]

    return load


def _fitting(layer: Layer, scan: Scan) -> Array:
    array = layer.load()
    if array.shape[1:] != scan.spatial_shape:
        sizes = [" x ".join(map(str, shape)) for shape in (array.shape[1:], scan.spatial_shape)]
        raise InputError(
            layer.name, f"is {sizes[0]}, the scan {sizes[1]}", "Give the mask of this scan"
        )
    return array


def _file(folder: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    return next((p for s in suffixes if (p := folder / f"{name}{s}").is_file()), None)


def _bytes(value: Scan | Array) -> int:
    array = value.array if isinstance(value, Scan) else value
    return 0 if isinstance(array, np.memmap) else int(array.nbytes)
