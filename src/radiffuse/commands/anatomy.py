"""``radiffuse anatomy``: procedural images with exact labels, as a data set."""

from __future__ import annotations

from pathlib import Path

from ..config import Anatomy
from ..phantoms import write_dataset
from ..system.files import sweep
from ..train.progress import ProgressLine


def anatomy(settings: Anatomy) -> Path:
    """Write a procedural data set; files that are already there are kept.

    Returns:
        Its folder.
    """
    out = Path(settings.out)
    sweep(out)
    write_dataset(
        settings.kind,
        out,
        count=settings.count,
        labelled=settings.labelled,
        seed=settings.seed,
        size=settings.size,
        start_index=settings.start,
        progress=ProgressLine("drawing"),
    )
    return out
