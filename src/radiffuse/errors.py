"""The errors a user can cause. Each names where, says what is wrong, and what to do next."""

from __future__ import annotations

from pathlib import Path


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
        line = f"{self.where}: {self.problem}. {self.remedy}."
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


class RunError(InputError):
    """A run folder that is incomplete, damaged, or was written by another version."""


class TrainingDiverged(RadiffuseError):
    """The loss stopped being finite. Names the step, the cases and the last good checkpoint."""
