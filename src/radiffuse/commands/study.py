"""Compare methods at several label budgets."""

from __future__ import annotations

from pathlib import Path

from ..config import Study
from ..reports.study import write_study_report
from ..studies.study import run_study
from .fit import fit
from .generate import generate
from .pretrain import pretrain


def study(settings: Study) -> Path:
    """Compare methods at several label budgets.

    Returns:
        The report, in the study folder with ``results.csv``, ``summary.csv`` and ``comparisons.csv``.

    Raises:
        InputError: Data or settings that cannot be used; what was finished is kept.
    """
    return write_study_report(run_study(settings, pretrain, fit, generate))
