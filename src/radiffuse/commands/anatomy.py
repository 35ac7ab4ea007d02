"""``radiffuse anatomy``: procedural images with exact labels, as a data set."""

from __future__ import annotations

from pathlib import Path

from ..config import Anatomy
from ..phantoms import is_drawn, write_dataset
from ..system.files import refuse_foreign, sweep
from ..train.progress import ProgressLine


def anatomy(settings: Anatomy) -> Path:
    """Write a procedural data set; files that are already there are kept.

    Returns:
        Its folder.

    Raises:
        InputError: The folder holds files, but no procedural image.
    """
    out = Path(settings.out)
    images = out / "images" if settings.labelled else out
    there = images.iterdir() if images.is_dir() else ()
    own = [p.name for p in there if is_drawn(p.name.partition(".")[0])]
    if settings.labelled:
        refuse_foreign(out, "images")
    refuse_foreign(images, *(own or [f"{settings.kind}-000000"]))
    sweep(out)
    write_dataset(
        settings.kind,
        out,
        count=settings.count,
        labelled=settings.labelled,
        seed=settings.seed,
        size=settings.size,
        start_index=settings.start,
        textured=settings.textured,
        progress=ProgressLine("drawing"),
    )
    return out
