"""What DICOM headers say of images and patients, read once within a command that asks again and again.

Nothing of it is kept longer, see ``dicom``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

Tags = tuple[str, ...]

_READ: ContextVar[dict[tuple[Path, Tags], tuple[tuple[int, int], Mapping[str, str]]] | None]
_READ = ContextVar("_READ", default=None)
"""Size and time of change of each file, and what it said, within ``reading_headers_once``."""


@contextmanager
def reading_headers_once() -> Iterator[None]:
    """Within the block a header is read again only if its file has changed."""
    token = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(token)


def header_of(path: Path, tags: Tags) -> Mapping[str, str]:
    """The text of each of the tags, '' where the file has none.

    Raises:
        InputError: As ``dicomfile.load``. For damaged values pydicom raises many kinds, whose text may quote the
            patient.
    """
    from ..readers.dicomfile import load

    read, facts = _READ.get(), path.stat()
    state = facts.st_size, facts.st_mtime_ns
    if read is not None and (there := read.get((path, tags))) and there[0] == state:
        return there[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the patient
        found = load(path, tags)
        said = {tag: str(found.get(tag) or "") for tag in tags}
    if read is not None:
        read[path, tags] = state, said
    return said
