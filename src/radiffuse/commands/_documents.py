"""What a trained run leaves for its readers: the model card and the report."""

from __future__ import annotations

from pathlib import Path


def leave_documents(folder: Path) -> Path:
    """Write ``README.md``, where the run is whole, and then ``report.html``, which marks its command as ended.

    Args:
        folder: Folder of a run, finished or not.

    Returns:
        Path of the report.

    Raises:
        RunError: The folder does not exist, or holds nothing of a run.
        InputError: A file of it is damaged, or the documents cannot be written.
    """
    from ..release.card import write_card
    from ..reports.run import write_run_report
    from ..train.run import RUN_VERSION, Run

    run = Run(folder)
    saved = run.finished or (run.model / "model_index.json").is_file()
    described = all((folder / name).is_file() for name in ("plan.json", "config.yaml"))
    if saved and described and run.config.get("run_version") == RUN_VERSION:
        write_card(folder)
    return write_run_report(folder)
