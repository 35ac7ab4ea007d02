"""Drawn anatomy as files, in the layouts that every command reads."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..system.files import unwritable, write_atomic, write_json
from .drawing import Drawing
from .registry import ANATOMIES, draw, find, verify


def write_dataset(
    anatomy: str,
    out: Path,
    *,
    count: int,
    labelled: bool,
    seed: int,
    size: tuple[int, ...] | None = None,
    spacing: tuple[float, ...] | None = None,
    start_index: int = 0,
    textured: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draw ``count`` cases into a folder; running it again completes what is missing.

    Films become 8-bit PNG, CT becomes int16 NIfTI (``.nii.gz``) in HU. With labels the layout is ``images/``,
    ``labels/`` and ``classes.json``, without it is a folder of images. Each file appears complete or not at all.

    Args:
        anatomy: Name in ``ANATOMIES``.
        out: Folder to write into, made if missing.
        count: Cases, 1 or more.
        labelled: Whether to write label maps.
        seed: Seed of the data set.
        size: Pixels along each axis, or one number for all; None: the usual ones of the anatomy.
        spacing: Millimeters per pixel; None: the usual field of view.
        textured: See ``draw``.
        start_index: Number of the first case; sets of one seed share none.
        progress: Called with (cases done, count) after each case.

    Returns:
        How many cases were drawn, not counting those already there.

    Raises:
        InputError: An argument is not legal, the folder cannot be written, or it holds cases of other settings.
    """
    if count < 1:
        raise InputError("count", f"{count} cases cannot be written", "Give a number from 1")
    chosen = find(anatomy)
    size = chosen.size if size is None else size * chosen.spatial_dims if len(size) == 1 else size
    verify(chosen, seed, start_index, size, spacing, textured=textured)
    suffix = ".png" if chosen.spatial_dims == 2 else ".nii.gz"
    drawn, compared = 0, False
    try:
        images, labels = _folders(out, chosen.classes if labelled else ())
        for done, index in enumerate(range(start_index, start_index + count)):
            name = f"{anatomy}-{index:06d}{suffix}"
            label = labels / name if labels else None
            kept = (images / name).exists() and (label is None or label.exists())
            if not kept or not compared:  # of those that are there, the first stands for all
                drawing = draw(anatomy, seed, index, size, spacing, textured=textured)
                _write_or_compare(drawing, images / name, label, kept)
                compared, drawn = compared or kept, drawn + (not kept)
            if progress is not None:
                progress(done + 1, count)
    except OSError as error:
        raise unwritable(out, error.strerror) from error
    return drawn


def is_drawn(name: str) -> bool:
    """Whether a case is called as those that are drawn here."""
    return re.fullmatch(rf"({'|'.join(ANATOMIES)})-\d{{6}}", name) is not None


def _folders(out: Path, classes: Sequence[str]) -> tuple[Path, Path | None]:
    """Those of images and labels, made where missing; without classes there are no labels."""
    if not classes:
        out.mkdir(parents=True, exist_ok=True)
        return out, None
    images, labels = out / "images", out / "labels"
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(out / "classes.json", {str(value): name for value, name in enumerate(classes)})
    return images, labels


def _write_or_compare(drawing: Drawing, image: Path, label: Path | None, kept: bool) -> None:
    data = _image_bytes(drawing)
    if not kept:
        if label is not None:
            write_atomic(label, _label_bytes(drawing))
        write_atomic(image, data)
    elif image.read_bytes() != data:
        problem = "already there, and drawn with other settings"
        raise InputError(image, problem, "write into another folder, or delete this one")


def _image_bytes(drawing: Drawing) -> bytes:
    if drawing.image.ndim == 2:
        return _png(np.rint(drawing.image * 255).astype(np.uint8))
    return _nifti(np.rint(drawing.image).astype(np.int16), drawing)


def _label_bytes(drawing: Drawing) -> bytes:
    return _png(drawing.label) if drawing.label.ndim == 2 else _nifti(drawing.label, drawing)


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def _nifti(voxels: np.ndarray[tuple[int, ...], np.dtype[np.integer]], drawing: Drawing) -> bytes:
    import nibabel as nib

    volume = nib.Nifti1Image(voxels, drawing.affine)
    volume.header.set_xyzt_units("mm")
    # A fixed time stamp, so that the same case gives the same file.
    return gzip.compress(volume.to_bytes(), compresslevel=6, mtime=0)
