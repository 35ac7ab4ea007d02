"""Study what synthetic films add to classification."""

from __future__ import annotations

from pathlib import Path

from ..config import Augment
from ..reports.augment import write_augment_report
from ..studies.augment import run_augment
from .classify import classify
from .generate import generate


def augment(settings: Augment) -> Path:
    """Train and test classifiers with and without synthetic films.

    Returns:
        The study folder with ``results.csv``, ``summary.csv`` and ``report.html``.

    Raises:
        InputError: Data or settings that cannot be used; what was finished is kept.
    """
    out = run_augment(settings, classify, generate)
    write_augment_report(out)
    return out
