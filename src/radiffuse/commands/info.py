"""``radiffuse info``: what a run, a folder of weights or a plan is; or its report once more."""

from __future__ import annotations

from pathlib import Path

from ..config import Info
from ..reports.information import describe
from ..system.files import sweep
from ._documents import leave_documents


def info(settings: Info) -> Path | None:
    """Print in one screen what a run is, without loading the network.

    Returns:
        With ``report`` the page, written again; else None.

    Raises:
        InputError: The path is none of these, or is damaged.
        RunError: A damaged run.
    """
    path = Path(settings.run)
    if settings.report:
        return _write_report(path)
    for name, value in describe(path):
        print(f"{name:<11} {value}")
    return None


def _write_report(folder: Path) -> Path:
    from ..reports.run import write_evaluation_report
    from ..reports.study import write_study_report

    sweep(folder)
    if (folder / "study.yaml").is_file():
        return write_study_report(folder)
    if (folder / "cases.csv").is_file():
        return write_evaluation_report(folder)
    return leave_documents(folder)
