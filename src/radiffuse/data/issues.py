"""What is wrong with a data set, one line each: the currency of layouts and of the check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong.

    Attributes:
        severity: An ``"error"`` stops a run unless ``skip_bad`` leaves the case out; a
            ``"warning"`` is for the user to judge.
        where: File, folder, row or case.
        problem: What is wrong with it, without a final period.
        remedy: What the user can do about it, without a final period.
    """

    severity: Literal["error", "warning"]
    where: str
    problem: str
    remedy: str


class Issues(list[Issue]):
    """Everything that was found wrong, in the order in which it was found."""

    def error(self, where: Path | str, problem: str, remedy: str) -> None:
        """Add what stops a run."""
        self.append(Issue("error", str(where), problem, remedy))

    def warning(self, where: Path | str, problem: str, remedy: str) -> None:
        """Add what the user should judge."""
        self.append(Issue("warning", str(where), problem, remedy))

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Add an ``InputError`` of the block as an issue instead of stopping at it."""
        try:
            yield
        except InputError as error:
            self.error(error.where, error.problem, error.remedy)


def raise_first(issues: Sequence[Issue]) -> None:
    """Stop at the first error, and say how many more there are.

    Raises:
        InputError: Where ``issues`` holds at least one error.
    """
    errors = [issue for issue in issues if issue.severity == "error"]
    if not errors:
        return
    first, more = errors[0], len(errors) - 1
    problem = first.problem
    if more:
        problem += f" (and {more} more error{'s' if more > 1 else ''}: `radiffuse check` lists all)"
    raise InputError(first.where, problem, first.remedy)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
