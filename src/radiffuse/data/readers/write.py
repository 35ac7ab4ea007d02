"""Masks and maps, written atomically in the geometry of their scan."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...system.files import whole
from ..scan import Array, Scan, narrowest
from .formats import suffix_of
from .geometry import NiftiScan, swap_film_axes


def label_suffix(scan: Scan) -> str:
    """The suffix of a scan's mask: ``.png`` for films without an affine, else ``.nii.gz``."""
    return ".png" if scan.spatial_dims == 2 and scan.affine is None else ".nii.gz"


def write_label(path: Path, mask: Array, like: Scan) -> None:
    """Write a label map in the geometry of ``like``, with sform and qform if that was NIfTI.

    Args:
        path: ``.png`` (8-bit gray whose values are the labels, films only), ``.nii``, ``.nii.gz``.
        mask: ``(*spatial)`` of integers, in the order of ``like.array``.
        like: The scan of the mask.

    Raises:
        InputError: The suffix is another, a PNG would hold labels above 255, or the disk refuses.
        ValueError: Mask and scan differ in shape, or the mask is not of integers.
    """
    if mask.dtype.kind not in "biu":
        raise ValueError(f"A label map is of integers, not {mask.dtype}.")
    low, high = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if suffix_of(path) == ".png" and (low < 0 or high > 255):
        problem = f"would hold label {high}, and 8-bit PNG ends at 255"
        raise InputError(path, problem, "Write .nii.gz instead")
    kind = narrowest(low, high)
    if kind is None:
        raise ValueError(f"Labels {low} to {high} do not fit 32 bits.")
    _write(path, mask.astype(kind, copy=False), like, "label maps are", (".png",))


def write_image(path: Path, array: Array, like: Scan) -> None:
    """Write a map of real numbers (a probability, an uncertainty) or an image of one channel.

    Args:
        path: ``.nii``, ``.nii.gz``; films: ``.tif``, ``.tiff``, or ``.png`` if uint8 or uint16.
        array: ``(*spatial)``, in the order of ``like.array``. float64 is written as float32.
        like: The scan whose geometry the map takes over.

    Raises:
        InputError: The suffix is another, or the disk refuses.
        ValueError: Array and scan differ in shape.
    """
    png = (".png",) if array.dtype in (np.uint8, np.uint16) else ()
    values = array.astype(np.float32) if array.dtype.kind == "f" else array
    _write(path, values, like, f"{array.dtype} is", (".tif", ".tiff", *png))


def _write(path: Path, values: Array, like: Scan, what: str, films: tuple[str, ...]) -> None:
    """Write in the format of the suffix; ``films`` are the picture formats that are legal."""
    if values.shape != like.spatial_shape:
        raise ValueError(f"Shape {values.shape} does not fit a scan of {like.spatial_shape}.")
    suffix = suffix_of(path)
    if suffix in (".nii", ".nii.gz"):
        _write_nifti(path, values.astype(np.uint8) if values.dtype == np.bool_ else values, like)
    elif values.ndim != 2 or suffix not in films:
        problem = f"has the suffix {suffix!r}, in which {values.ndim}D {what} not written"
        raise InputError(path, problem, f"Use .nii.gz, or {films[0]} for films")
    elif suffix == ".png":
        write_marked_film(path, values, {})
    else:
        import tifffile

        with whole(path) as file:
            tifffile.imwrite(file, values, photometric="minisblack", metadata=None)


def write_marked_film(path: Path, pixels: Array, marks: Mapping[str, str]) -> None:
    """Write a gray PNG, uint8 or uint16 ``(rows, columns)``, with text in its metadata.

    ``marks`` are texts by keyword, Latin-1, each keyword up to 79 characters.

    Raises:
        InputError: The disk refuses.
    """
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    for keyword, text in marks.items():
        info.add_text(keyword, text)
    with whole(path) as file:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.save(file, format="PNG", optimize=False, pnginfo=info)


def _write_nifti(path: Path, data: Array, like: Scan) -> None:
    """NIfTI-1 in the file order of axes: films are transposed back to (columns, rows)."""
    image = _nifti_image(data.T if data.ndim == 2 else data, _file_affine(like), like)
    with whole(path) as file:
        if suffix_of(path) == ".nii":
            image.to_stream(file)
            return
        # Without name and time in the gzip header the same mask gives the same file.
        with gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed:
            image.to_stream(packed)


def _file_affine(like: Scan) -> NDArray[np.float64]:
    if like.affine is None:
        spacing = like.spacing or (1.0,) * like.spatial_dims
        spacing = spacing if like.spatial_dims == 3 else (*spacing[::-1], 1.0)
        return np.diag([*spacing, 1.0])
    if like.spatial_dims == 2:
        return swap_film_axes(like.affine)
    return np.asarray(like.affine, np.float64)


def _nifti_image(data: Array, affine: NDArray[np.float64], like: Scan) -> Any:
    import nibabel as nib

    known = like.affine is not None or not isinstance(like, NiftiScan)
    image = nib.Nifti1Image(data, affine if known else None, dtype=data.dtype)
    image.header.set_xyzt_units("mm")
    if isinstance(like, NiftiScan):
        # Where the two disagree on purpose (scanner and atlas space), both must survive.
        (sform, sform_code), (qform, qform_code) = like.sform, like.qform
        image.set_sform(sform if sform_code else None, sform_code, update_affine=False)
        image.set_qform(qform if qform_code else None, qform_code, update_affine=False)
        if not sform_code and not qform_code:
            sizes = np.linalg.norm(affine[:3, :3], axis=0) * known
            image.header.set_zooms(sizes[: data.ndim])
    else:
        image.set_sform(affine, 1, update_affine=False)
        image.set_qform(affine, 1, update_affine=False)
        if not np.allclose(image.get_qform(), affine, atol=1e-3):  # a quaternion has no shear
            image.set_qform(None, 0, update_affine=False)
    return image
