"""Which image is a known one: the same files, files of the same content under another name, or the same pixels."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ..errors import InputError
from .arrays import checksum, logged_rows
from .cases import hash_of_files
from .dataset import Case, Dataset
from .layouts.identified import without_headers_of
from .prepare import prepare
from .prepared import Prepared
from .provenance import of_other_patients
from .readers import source_files

GLANCE = 2048
"""Bytes at the start, middle and end of a file."""
Result = TypeVar("Result")


def finder(known: Iterable[Case], *, glance: bool = False) -> Callable[[Case], Case | None]:
    """What returns of a case the known one whose image is the same, or None.

    Only the content of files of one size is compared. An image that cannot be read is the same as none but itself:
    whoever reads it next names it.

    Args:
        known: The known cases.
        glance: Compare parts of ``GLANCE`` bytes of such files alone, which is enough for advice; else those in which
            these agree are read whole.
    """
    places: dict[object, Case] = {}
    by_size: dict[tuple[int, ...], list[Case]] = defaultdict(list)
    for case in known:
        places[case.images, case.series] = case
        if size := _if_readable(_sizes, case):
            by_size[size].append(case)

    @functools.cache
    def by_glance(size: tuple[int, ...]) -> dict[str | None, list[Case]]:
        parts: dict[str | None, list[Case]] = defaultdict(list)
        for case in by_size[size]:
            parts[_if_readable(_glance, case)].append(case)
        return parts

    @functools.cache
    def by_content(size: tuple[int, ...], seen: str) -> dict[str | None, Case]:
        return {_if_readable(hash_of_files, case): case for case in by_glance(size)[seen]}

    def find(case: Case) -> Case | None:
        if same := places.get((case.images, case.series)):
            return same
        size = _if_readable(_sizes, case)
        seen = _if_readable(_glance, case) if size in by_size else None
        if not (size and seen and seen in by_glance(size)):
            return None
        if glance:
            return by_glance(size)[seen][-1]
        content = _if_readable(hash_of_files, case)
        return by_content(size, seen).get(content) if content else None

    return find


def copied(cases: Iterable[Case]) -> dict[str, Case]:
    """Of each case whose image is that of a case before it, by its name: the first with this image."""
    alike = [list(cases)]
    for content_of in (_sizes, _glance, hash_of_files):  # few need be read whole
        parts: list[list[Case]] = []
        for some in alike:
            same: dict[object, list[Case]] = defaultdict(list)
            for case in some:
                if content := _if_readable(content_of, case):
                    same[content].append(case)
            parts += [part for part in same.values() if len(part) > 1]
        alike = parts
    return {case.name: part[0] for part in alike for case in part[1:]}


def without_held_out(images: Dataset, held: Dataset | None, others: Iterable[Case] = ()) -> Dataset:
    """The images that are neither of the patients of cases that are held out, nor drawn from one, nor their copies.

    ``others`` are further cases of the set of those held out, see ``without_headers_of``.
    """
    if held is None:
        return images
    is_copy = finder(held)
    return without_patients_of(images, held, others).filter(lambda case: not is_copy(case))


def without_patients_of(images: Dataset, held: Dataset, others: Iterable[Case] = ()) -> Dataset:
    """The images that are neither of the patients of these cases, by name or DICOM header, nor drawn from one.

    ``others``: as to ``without_held_out``.
    """
    kept = of_other_patients(images, {case.group for case in held})
    return without_headers_of(kept, held, others)


def copies_of_held_out(prepared: Prepared, held: Iterable[Dataset], cache: Path) -> set[int]:
    """Indices of prepared images that equal a held-out one on the grid of the plan, whatever their files are.

    Args:
        prepared: The images.
        held: What is held out, in parts that are prepared apart; of those that cannot be read there are no copies.
        cache: See ``prepare.cache_folder``.
    """
    seen: set[int] = set()
    for part in held:
        with contextlib.suppress(InputError):  # none of them can be read
            known = prepare(part, prepared.plan, labelled=False, cache=cache, skip_bad=True)
            sums = logged_rows(known.folder)
            seen.update(sums[row] for row in known.rows)
    if prepared.labelled:  # its checksums are of images with their label maps
        mine = [checksum(prepared.image(index)) for index in range(len(prepared))]
    else:
        logged = logged_rows(prepared.folder)
        mine = [logged.get(row, -1) for row in prepared.rows]
    return {index for index, own in enumerate(mine) if own in seen}


# ------------------------------------------------------------------------------------------------ internal


def _files(case: Case) -> list[Path]:
    return [file for path in case.images for file in source_files(path, case.series)]


def _sizes(case: Case) -> tuple[int, ...]:
    return tuple(sorted(file.stat().st_size for file in _files(case)))


def _glance(case: Case) -> str:
    parts = []
    for path in _files(case):
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            parts.append(b"".join(_at(file, place) for place in (0, size // 2, size - GLANCE)))
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def _at(file: io.FileIO, place: int) -> bytes:
    file.seek(max(place, 0))
    return file.read(GLANCE)


def _if_readable(function: Callable[[Case], Result], case: Case) -> Result | None:
    try:
        return function(case)
    except (InputError, OSError):
        return None
