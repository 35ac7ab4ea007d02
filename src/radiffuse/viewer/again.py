"""The next training: from the labels so far and what was corrected."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..config.given import reader_flags
from ..errors import RadiffuseError
from ..inference.records import Record
from ..system.saying import near
from ..train.run import Run
from .corrections import Corrections
from .runs import Runs


def next_fit(corrections: Corrections, runs: Runs, record: Record | None, labelled: str) -> str:
    """The command that learns from the labels so far and the corrections.

    Args:
        corrections: Of the page.
        runs: Of the page: the first that segments is trained again.
        record: Of the masks; where no run was given, it names that.
        labelled: A data set with labels that was given, or ''.
    """
    paths = [entry.path for entry in runs.all() if entry.use == "segment"]
    paths += [Path(str(run["run"])) for run in (record.header["runs"] if record else ())]
    words, out, more = ["radiffuse", "fit"], "runs/corrected", [near(corrections.folder)]
    root = labelled
    try:
        run = Run.open(paths[0]) if paths else None
        root = str(run.data.get("root") or labelled) if run else labelled
        root = near(Path(root)) if root else root
        settings = run.config["settings"] if run else {}
    except RadiffuseError:
        settings = {}
    if not root:
        return shlex.join([*words, more[0], "--out", out])
    for name in ("method", "from_run", "hours", "unlabelled"):
        value = settings.get(name)
        if value and value != "auto":
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            words += [f"--{name.removesuffix('_run')}", text]
    words += reader_flags(settings.get("reader", {}))
    earlier = [folder for folder in settings.get("with_run", ()) if folder not in more]
    if paths:
        out = f"{str(paths[0]).rstrip('/')}-corrected"
    return shlex.join(
        [*words[:2], root, *words[2:], "--with", ",".join([*earlier, *more]), "--out", out]
    )
