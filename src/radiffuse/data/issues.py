"""Faults of a data set, which layouts and the check collect instead of stopping at the first."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..system.distributed import rank

_SAID: set[str] = set()
"""Lines that were printed."""
_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@dataclass(frozen=True)
class Issue:
    """One fault, worded as in ``InputError``; an error stops a run unless ``skip_bad`` is on."""

    severity: Literal["error", "warning"]
    where: str
    problem: str
    remedy: str


class Issues(list[Issue]):
    """Faults in the order in which they were found."""

    def error(self, where: Path | str, problem: str, remedy: str) -> None:
        """Add a fault that stops a run."""
        self.append(Issue("error", str(where), problem, remedy))

    def warning(self, where: Path | str, problem: str, remedy: str) -> None:
        """Add a fault that the user should judge."""
        self.append(Issue("warning", str(where), problem, remedy))

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Add an ``InputError`` of the block as an issue instead of stopping at it."""
        try:
            yield
        except InputError as error:
            self.error(error.where, error.problem, error.remedy)


def raise_first(issues: Sequence[Issue]) -> None:
    """Raise the first error as ``InputError``, with the number of the others."""
    for error in _first(issues):
        raise error


@contextmanager
def unsaid() -> Iterator[None]:
    """Within the block ``say`` prints nothing, and what it would have printed can be printed later."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


def say(issues: Sequence[Issue]) -> None:
    """Print the warnings, and the first of the errors that ``skip_bad`` goes on with; each line once per process."""
    warnings = [issue for issue in issues if issue.severity == "warning"]
    lines = [InputError(issue.where, issue.problem, issue.remedy) for issue in warnings]
    for line in map(str, [*_first(issues), *lines]):
        if rank() == 0 and line not in _SAID and not _SILENT.get():
            _SAID.add(line)
            print(f"warning: {line}", file=sys.stderr)


def _first(issues: Sequence[Issue]) -> list[InputError]:
    """The first error, with the number of the others; [] where there is none."""
    errors = [issue for issue in issues if issue.severity == "error"]
    if more := len(errors[1:]):
        problem = f"{errors[0].problem} (and {more} more error{'s' if more > 1 else ''}: `radiffuse check` lists all)"
        errors[0] = replace(errors[0], problem=problem)
    return [InputError(issue.where, issue.problem, issue.remedy) for issue in errors[:1]]


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
