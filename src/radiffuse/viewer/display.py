"""What the page is sent: pixels of films as they are, volumes as NIfTI; thinned where a browser could not hold them."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

from ..data.scan import Array, Scan, orientation

FILM_SIDE, FILM_PIXELS = 8192, 2**25
"""Largest film that is sent whole: longest side, and pixels."""
VOLUME_SIDE, VOLUME_BYTES = 2048, 2**29
"""Largest volume that is sent whole: a graphics card's 3D texture, and bytes."""
MOST_EDITED = 2**28
"""Voxels of the largest mask that is corrected on the page, which holds all of it."""
SAMPLED = 500_000
"""Pixels looked at for the window."""


def stride(scan: Scan) -> int:
    """Every how many pixels along each axis are sent; 1 shows all."""
    film, shape = scan.spatial_dims == 2, scan.spatial_shape
    side, most = (FILM_SIDE, FILM_PIXELS) if film else (VOLUME_SIDE, VOLUME_BYTES)
    size = math.prod(shape) * (1 if film else _sent(scan.array.dtype).itemsize)
    k = max(1, math.ceil(max(shape) / side))
    while size / k**scan.spatial_dims > most:
        k += 1
    return k


def shown_steps(scan: Scan, steps: int) -> list[int]:
    """Which steps of a sampler are sent: all, or evenly as many as ``VOLUME_BYTES`` hold, the last one always."""
    size = math.prod(math.ceil(n / stride(scan)) for n in scan.spatial_shape)
    most = max(1, min(steps, VOLUME_BYTES // size))
    return [steps - 1 - round(i * steps / most) for i in reversed(range(most))]


def image(scan: Scan, channel: int, k: int) -> bytes:
    """Pixels of a scan: films raw, ``(C, rows, columns)``, little-endian; volumes as NIfTI of one channel."""
    array = scan.array[(slice(None), *(slice(None, None, k),) * scan.spatial_dims)]
    if scan.spatial_dims == 2:
        array = array if len(array) == 3 else array[channel : channel + 1]
        return _little(array).tobytes()
    return nifti(_little(array[channel]), scan, k)


def layer(array: Array, scan: Scan, k: int, span: tuple[float, float]) -> bytes:
    """A layer ``(steps, *spatial)``: films raw uint8, volumes as NIfTI with the steps as fourth axis.

    Labels are sent as they are; of float32, 0 to 255 mean ``span``, see ``span_of``. ``k`` is the stride of the scan.
    """
    array = array[(slice(None), *(slice(None, None, k),) * scan.spatial_dims)]
    slope, labels = 1.0, array.dtype.kind != "f"
    if not labels:
        slope = (span[1] - span[0]) / 255
        array = np.clip((array - span[0]) / slope, 0, 255).round()
    values = np.ascontiguousarray(array, np.uint8)
    if scan.spatial_dims == 2:
        return values.tobytes()
    values = values[0] if len(values) == 1 else np.moveaxis(values, 0, -1)
    shift = 0.0 if labels else span[0]
    return nifti(values, scan, k, slope=slope, shift=shift, labels=labels)


def plane(scan: Scan, channel: int, axis: int, index: int) -> bytes:
    """One slice of a volume across an axis of its array, little-endian, the other two axes in their order."""
    # By index, since ``take`` would copy all of a volume whose axes are turned.
    place: tuple[Any, ...] = (channel, *[slice(None)] * axis, index)
    return _little(scan.array[place]).tobytes()


def packed(labels: Array) -> bytes:
    """Labels of the scan's own grid as uint8 in the order of its array, by gzip: label maps shrink to a hundredth."""
    pack = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return pack.compress(np.ascontiguousarray(labels, np.uint8).data) + pack.flush()


def span_of(array: Array) -> tuple[float, float]:
    """The range a map is shown in: 0 to 1 for shares, else what occurs."""
    low, high = float(array.min()), float(array.max())
    if low >= 0 and 0.3 < high <= 1.001:
        return 0.0, 1.0
    return min(0.0, low), high if high > low else low + 1


def window(scan: Scan, channel: int) -> tuple[float, float]:
    """The window that a channel is first shown with: soft tissue for CT, else its 0.5th to 99.5th percentile."""
    if hounsfield(scan, channel):
        return -160.0, 240.0
    array = scan.array if _in_colors(scan) else scan.array[channel]
    values = array.ravel()[:: max(1, array.size // SAMPLED)]
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (float(values.min()), float(values.max()) + 1)


def hounsfield(scan: Scan, channel: int) -> bool:
    """Whether values are HU: DICOM says so; in a volume of another format, air far below zero is taken for it."""
    array = scan.array[channel]
    return scan.unit == "HU" or (scan.spatial_dims == 3 and float(array.min()) < -500)


def unit(scan: Scan) -> tuple[float, str]:
    """The size of one voxel or pixel, and its unit: mL, mm², or px and voxels where the spacing is unknown."""
    if scan.spacing is None:
        return 1.0, "px" if scan.spatial_dims == 2 else "voxels"
    size = math.prod(scan.spacing)
    return (size, "mm²") if scan.spatial_dims == 2 else (size / 1000, "mL")


def described(scan: Scan) -> dict[str, Any]:
    """What the page needs to know of a scan before it asks for pixels."""
    k = stride(scan)
    size, name = unit(scan)
    sent = _little(scan.array[:, :1]).dtype
    colors = _in_colors(scan)
    channels = range(1 if colors else len(scan.array))
    return {
        "dims": scan.spatial_dims,
        "shape": scan.spatial_shape,
        "sent": [math.ceil(n / k) for n in scan.spatial_shape],
        "stride": k,
        "axes": list(zip(*orientation(scan), strict=True)),
        "editable": math.prod(scan.spatial_shape) <= MOST_EDITED
        and (scan.spatial_dims == 3 or k == 1),
        "channels": len(channels),
        "colors": colors,
        "dtype": sent.name,
        "spacing": scan.spacing,
        "voxel": size,
        "unit": name,
        "hounsfield": [hounsfield(scan, channel) for channel in channels],
        "windows": [window(scan, channel) for channel in channels],
        "range": [float(scan.array.min()), float(scan.array.max())],
    }


def nifti(
    array: Array,
    like: Scan,
    k: int,
    *,
    slope: float = 1.0,
    shift: float = 0.0,
    labels: bool = False,
) -> bytes:
    """An uncompressed NIfTI file in memory, for showing: the place of the scan, its other header left out."""
    import nibabel

    affine = np.eye(4) if like.affine is None else np.array(like.affine, np.float64)
    if like.affine is None and like.spacing is not None:
        affine[:3, :3] = np.diag(like.spacing)
    affine[:3, :3] *= k
    made = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    made.header.set_slope_inter(slope, shift)
    made.header.set_xyzt_units("mm")
    if labels:
        made.header.set_intent("label")  # NiiVue blends the colors of numbers, but not of labels
    return bytes(made.to_bytes())


def _in_colors(scan: Scan) -> bool:
    """Whether channels are red, green and blue, which are shown at once."""
    return scan.spatial_dims == 2 and len(scan.array) == 3


def _sent(dtype: np.dtype[Any]) -> np.dtype[Any]:
    keep = ("uint8", "int16", "uint16")
    return np.dtype(dtype.name if dtype.name in keep else "float32")


def _little(array: Array) -> Array:
    sent = _sent(array.dtype).newbyteorder("<")
    return np.ascontiguousarray(array, sent)
