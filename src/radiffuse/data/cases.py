"""Image and label map of a case, whatever its layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..errors import InputError
from ..system.files import sha256
from .dataset import Case
from .label_values import refuse_soft_edges
from .readers import inspect, read_label, read_scan, source_files
from .readers.coco import rasterize_coco
from .scan import Scan, narrowest, on_grid


def read_case_image(case: Case) -> Scan:
    """All channels of a case as ``(C, *spatial)``, with the geometry of the first.

    Raises:
        InputError: A file cannot be read, or channels differ in size or place.
    """
    several = case.file_channels if len(case.images) == 1 else 1
    scans = [read_scan(path, series=case.series, channels=several) for path in case.images]
    return scans[0] if len(scans) == 1 else join_channels(scans, case.images)


def join_channels(scans: Sequence[Scan], paths: Sequence[Path]) -> Scan:
    """Scans of one channel each as one ``(C, *spatial)``, with the geometry of the first.

    Raises:
        InputError: They differ in size or place, or one has several channels; ``paths`` name them.
    """
    first = scans[0]
    for path, scan in zip(paths, scans, strict=True):
        if scan.array.shape[0] != 1:
            problem = f"holds {scan.array.shape[0]} channels where it is one of {len(scans)}"
            raise InputError(path, problem, "Give one channel per file")
    arrays = []
    for path, scan in zip(paths, scans, strict=True):
        try:
            arrays.append(on_grid(scan, first, path, paths[0].name).array)
        except InputError as error:
            remedy = f"Resample it to the grid of {paths[0].name}, or move out of the case what is no channel"
            raise InputError(path, error.problem, remedy) from None
    ranges = {scan.value_range for scan in scans}
    return replace(
        first,
        array=np.concatenate(arrays),
        value_range=first.value_range if len(ranges) == 1 else None,
        unit=first.unit if len({scan.unit for scan in scans}) == 1 else "gray",
    )


def remembered_hash(path: Path) -> str:
    """Hash of the content of a file, which is read once as long as size and time stay the same.

    For the records of trainings only: many folds of a choice learn from the same scans, and labels of many cases lie
    in one file.
    """
    status = path.stat()
    return _remembered_hash(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _remembered_hash(path: Path, size: int, time: int) -> str:
    return sha256(path)


def hash_of_files(case: Case, hash_of_file: Callable[[Path], str] = sha256) -> str:
    """Hash of the content of a scan's files; of a single one as ``sha256sum`` gives it.

    Channels count in their order; the files of a series, which their headers place, in any. Every file is read, since
    one of the same size and time may have another content; ``hash_of_file`` may be ``remembered_hash`` instead.
    """
    channels = [sorted(map(hash_of_file, source_files(path, case.series))) for path in case.images]
    hashes = [hash for channel in channels for hash in channel]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def size_of_files(case: Case) -> int:
    """Bytes of a scan's files."""
    files = (file for path in case.images for file in source_files(path, case.series))
    return sum(file.stat().st_size for file in files)


def label_place(case: Case) -> str:
    """Where the label of a case is, for messages."""
    return f"{case.label}, image {case.label_item}" if case.label_item else str(case.label)


def read_case_label(case: Case, image: Scan | None = None) -> Scan:
    """The label map of a case, integer ``(1, *spatial)``, on the grid of its image where that is given.

    Raises:
        InputError: The case has no label, it cannot be read, or it does not fit its image.
    """
    label = _label(case)
    if image is None:
        return label
    label = on_grid(label, image, label_place(case), case.images[0].name)
    return label.with_array(np.ascontiguousarray(label.array))


def _label(case: Case) -> Scan:
    if case.label is None:
        raise InputError(case.name, "has no label", "Add one, or leave the case unlabelled")
    if case.label_parts:
        return _by_class(_joined(case) if case.label in case.label_parts else _composed(case), case)
    if case.label_item is None:
        return _by_class(_map(case.label, case), case)
    header = inspect(case.images[0], case.series)
    drawn = rasterize_coco(case.label, case.label_item, header.spatial_shape)
    return Scan(drawn[None], header.spacing, header.affine)


def _map(path: Path, case: Case) -> Scan:
    """One label file with its own values, or 0 and 1 by the threshold."""
    label = read_label(path, case.label_threshold)
    if not case.label_values:  # values that are named are trusted
        refuse_soft_edges(path, label.array)
    return label


def _composed(case: Case) -> Scan:
    """One label map from a mask per class; where masks overlap, the later class wins."""
    first = _map(case.label_parts[0], case)
    result = np.zeros(first.array.shape, np.uint8)
    for value, path in enumerate(case.label_parts, start=1):
        part = first if value == 1 else _map(path, case)
        part = on_grid(part, first, path, case.label_parts[0].name)
        inside = part.array != 0
        if inside.any() and np.ptp(part.array[inside]):
            problem = "holds several values where it is the mask of one structure"
            raise InputError(path, problem, "Give 0 and one other value")
        result[inside] = value
    return first.with_array(result)


def _joined(case: Case) -> Scan:
    """One label map from several of an image, each with its own values; where they overlap, the later one wins."""
    first, *others = parts = [_map(path, case) for path in case.label_parts]
    ends = [int(end) for part in parts for end in (part.array.min(), part.array.max())]
    kind = narrowest(min(ends), max(ends)) or np.int64  # files of one image may differ in type
    result = first.array.astype(kind)
    for path, part in zip(case.label_parts[1:], others, strict=True):
        part = on_grid(part, first, path, case.label_parts[0].name)
        np.copyto(result, part.array, where=part.array != 0, casting="unsafe")  # they do fit
    return first.with_array(result)


def _by_class(scan: Scan, case: Case) -> Scan:
    """The label map with its own values replaced by 0, 1, 2, ... and 255."""
    if not case.label_values and case.ignore_value is None:
        return scan
    numbers = {v: number for number, values in enumerate(case.label_values) for v in values}
    found: dict[int, int] = {}
    for value in (int(v) for v in np.unique(scan.array)):
        if value == case.ignore_value or (value == IGNORE and value not in numbers):
            continue
        if case.label_values and value not in numbers:
            refuse_soft_edges(case.label or Path(case.name), scan.array)
            problem = f"holds the value {value}, which is none of {', '.join(map(str, numbers))}"
            remedy = (
                "Name all values with --reader.label-values, background first, or where all but 0 are the same class "
                "leave it out and give --reader.label-threshold 1"
            )
            raise InputError(case.label or case.name, problem, remedy)
        found[value] = numbers.get(value, value)
    ends = IGNORE, *found.values()
    result = np.full(scan.array.shape, IGNORE, narrowest(min(ends), max(ends)) or np.int64)
    for value, number in found.items():
        result[scan.array == value] = number
    return scan.with_array(result)
