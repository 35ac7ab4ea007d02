"""One rule for links: what is checked, hashed and split lies in the data folder, and no folder below it is a link."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError

REMEDY = "Copy the {} in its place, or give the folder that holds both"


def link_fault(path: Path, home: Path) -> tuple[Path, str] | None:
    """The link, ``path`` or a folder between it and ``home``, that must not be followed, and why.

    ``home`` itself may be a link. A link to a file within ``home`` is no fault; one to a folder is, since
    its files would be counted twice, or without end.
    """
    above = (path, *path.parents)
    for part in above[: above.index(home)] if home in above else (path,):
        if not part.is_symlink():
            continue
        try:
            target = part.resolve(strict=True)
        except (OSError, RuntimeError):
            return part, "is a broken link"
        if not target.is_relative_to(home.resolve()):
            return part, "is a link that leads out of the data folder"
        if target.is_dir():
            return part, "is a link to another folder in the same data set"
    return None


def refuse_link(path: Path, home: Path) -> None:
    """Raise for the fault of ``link_fault``.

    Raises:
        InputError: There is one; it names the link.
    """
    if fault := link_fault(path, home):
        raise InputError(*fault, REMEDY.format("folder" if fault[0].is_dir() else "file"))
