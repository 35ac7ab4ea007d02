"""The scans that are segmented without labels, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..data.dataset import Case, Dataset
from ..data.scan import Scan
from ..errors import InputError
from ..inference.masks import read_scan_of
from ..train.progress import ProgressLine

KINDS = {2: "film", 3: "volume"}
Item = TypeVar("Item")


def verify_kind(case: Case, scan: Scan, dims: int) -> None:
    """Refuse a scan of other axes than those of the network.

    Raises:
        InputError: It is a volume for a network of films, or the other way round.
    """
    if scan.spatial_dims != dims:
        remedy = f"Give {KINDS[dims]}s, on which the run was trained"
        raise InputError(case.images[0], f"is a {KINDS[scan.spatial_dims]}", remedy)


def readable(
    dataset: Dataset, channels: int, verify: Callable[[Case, Scan], None], *, skip_bad: bool
) -> Iterator[Scan]:
    """All scans of a data set; with ``skip_bad`` those that cannot be used are left out.

    Raises:
        InputError: A scan cannot be read, or ``verify`` refuses it.
    """
    for case in dataset:
        try:
            scan = read_scan_of(case, channels)
            verify(case, scan)
        except InputError:
            if not skip_bad:
                raise
        else:
            yield scan


def counted(items: Iterable[Item], total: int, what: str = "reading") -> Iterator[Item]:
    """The items, with a line of progress."""
    line = ProgressLine(what)
    for number, item in enumerate(items, start=1):
        yield item
        line(number, total)
