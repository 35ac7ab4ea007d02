"""The errors a user can cause. Each names where, says what is wrong, and what to do next."""

from __future__ import annotations

import contextlib
import difflib
import errno
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from unicodedata import category


class RadiffuseError(Exception):
    """Anything the user can mend. The command line prints it as one line and exits with code 2."""

    exit_code = 2


class InputError(RadiffuseError):
    """A file, folder or setting that cannot be used.

    Args:
        where: The file, folder, case or setting that is at fault.
        problem: What is wrong with it, without a final period.
        remedy: What the user can do about it, without a final period.
    """

    def __init__(self, where: Path | str, problem: str, remedy: str) -> None:
        self.where = str(where)
        self.problem = problem
        self.remedy = remedy
        super().__init__(where, problem, remedy)

    def __str__(self) -> str:
        """One line: ``WHERE: PROBLEM. REMEDY.`` Control characters of hostile names are escaped."""
        end = self.remedy if self.remedy.endswith("?") else f"{self.remedy}."
        return printable(f"{self.where}: {_shortened(self.problem)}. {end}")


class SettingError(InputError):
    """A word that is no setting, or a value that a setting does not take: one sentence, and a hint if there is one."""

    def __str__(self) -> str:
        """``--labels takes a whole number, not 'five'.``; control characters are escaped."""
        text = f"{self.where} {_shortened(self.problem)}{self.remedy and f'. {self.remedy}'}"
        return printable(text if text.endswith("?") else f"{text}.")


def printable(text: str, keep: str = "") -> str:
    r"""Text whose control and format characters are written out, as ``\x1b`` or ``\u202e``.

    Those of a hostile name could steer the terminal, or turn around what is read. Spaces of any kind, and the
    characters in ``keep``, stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep or category(c) == "Zs" else repr(c)[1:-1] for c in text
    )


def _shortened(text: str) -> str:
    """A damaged file can be quoted at any length."""
    return text if len(text) <= 1000 else f"{text[:700]} ... {text[-200:]}"


def missing(path: Path) -> InputError:
    """The error for a path that does not exist; it names what lies there under a similar name."""
    parts = (path, *path.parents)
    gone = next((p for p in parts if p.parent.is_dir()), path)
    with contextlib.suppress(OSError):
        names = [p.name for p in islice(gone.parent.iterdir(), 1000)]
        for name in difflib.get_close_matches(gone.name, names, n=3, cutoff=0.7):
            meant = gone.with_name(name) / path.relative_to(gone)
            if meant.exists():
                return InputError(path, "does not exist", f"Did you mean {meant}?")
    return InputError(path, "does not exist", "Check the spelling of the path")


class RunError(InputError):
    """A run folder that is incomplete, damaged, or was written by another version."""


DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError),
    *(EOFError, OSError),
)
"""What Python and its libraries raise for content that is not what it should be."""


@contextlib.contextmanager
def damaged(
    where: Path | str, remedy: str = "Restore the file, or run its command again"
) -> Iterator[None]:
    """Turn what goes wrong with the content of a file, or of a folder's files, into one line.

    Args:
        where: The file or folder.
        remedy: What the user can do about it.

    Raises:
        RunError: Names it, and what is wrong.
    """
    try:
        yield
    except DAMAGE as error:
        if from_surroundings(error) is not None:
            raise
        reason = first_line(error)
        reason = f"no {reason}" if isinstance(error, KeyError) else reason
        raise RunError(where, f"is damaged ({reason})", remedy) from None


class OutOfMemory(InputError):
    """Memory does not hold a training step, even in parts. Says what would."""


class NotFinite(InputError):
    """A network answers with NaN or infinity. Names what it was given."""


class TrainingDiverged(RadiffuseError):
    """The loss stopped being finite. Names the step, the cases and the last good checkpoint."""


OF_ONE_NETWORK = (OutOfMemory, NotFinite, TrainingDiverged)
"""What speaks against one network among several, not against data, settings or the machine's disk."""

_SURROUNDINGS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}
"""Refusals of the disk, the file system or its permissions: nothing that a program can mend."""
_FULL = ("no space left", "disk quota exceeded", "file too large", "read-only file system")
_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "could not create a primitive",  # oneDNN, short of memory for its code or scratch
    "cannot allocate memory",
    "bad_alloc",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the processor or on a GPU. Imports no torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _MEMORY)


def from_surroundings(error: Exception) -> RadiffuseError | None:
    """The line for a full disk, a folder without permission or too little memory; None for any other error.

    Libraries in C report a full disk in errors of their own, or without a number; their words are looked at.
    """
    if is_out_of_memory(error):
        return InputError(
            "memory",
            f"ran out ({first_line(error)})",
            "Lower --micro-batch, --size or --machine.workers, or use a machine with more; "
            "the same command goes on from what is done",
        )
    number = getattr(error, "errno", None)
    words = str(error).lower()
    short_write = isinstance(error, OSError) and number is None and "requested and" in words
    if not (
        short_write
        or (isinstance(error, OSError) and number in _SURROUNDINGS)
        or any(full in words for full in _FULL)
    ):
        return None
    reason = "No space left on device" if short_write else getattr(error, "strerror", None)
    return InputError(
        getattr(error, "filename", None) or "disk",
        f"cannot be used ({reason or first_line(error)})",
        "Free the disk, or choose a folder that can be written; the same command goes on from what is done",
    )


def first_line(error: BaseException) -> str:
    """What an error says, in a line for a message: its first, without a final period, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]
