"""``radiffuse anatomy``: procedural images with exact labels, as a data set."""

from __future__ import annotations

from pathlib import Path

from ..config import Anatomy
from ..errors import InputError
from ..phantoms import is_drawn, write_dataset
from ..system.files import refuse_foreign
from ..system.leftovers import sweep
from ..train.progress import ProgressLine


def anatomy(settings: Anatomy) -> Path:
    """Write a procedural data set; files that are already there are kept.

    Returns:
        Its folder.

    Raises:
        InputError: The folder holds files, but no procedural image; or some that were drawn with other settings.
    """
    out = Path(settings.out)
    images = out / "images" if settings.labelled else out
    own = _drawn(images)
    _refuse_others(settings, out, own)
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


# ------------------------------------------------------------------------------------------------ internal


def _drawn(folder: Path) -> list[str]:
    """Names of the procedural images in a folder."""
    there = folder.iterdir() if folder.is_dir() else ()
    return [path.name for path in there if is_drawn(path.name.partition(".")[0])]


def _refuse_others(settings: Anatomy, out: Path, own: list[str]) -> None:
    """Refuse images that were drawn with labels where there are to be none, without them, or with other classes."""
    remedy = "or choose another --out"
    if settings.labelled and _drawn(out):
        problem = "holds images that were drawn without labels"
        raise InputError(out, problem, f"Add --labelled false, {remedy}")
    if not settings.labelled and _drawn(out / "images"):
        problem = "holds images that were drawn with labels"
        raise InputError(out, problem, f"Leave out --labelled false, {remedy}")
    kinds = {name.rpartition("-")[0] for name in own} - {settings.kind}
    if settings.labelled and kinds:
        problem = f"holds images of {' and '.join(sorted(kinds))}, which have other classes"
        raise InputError(out, problem, "Choose another --out")
