"""Apply a plan to a scan, and bring the network's output back onto the scan's own grid.

Films are stretched or fitted to the plan's grid. Volumes are turned to RAS axes and resampled to the
plan's spacing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import IGNORE
from ..errors import InputError
from .body import BODY_HU, Box, content_box
from .plan import Plan
from .scan import Array, Scan, canonical_spacing, in_color, orientation, resampled

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray, ITU-R BT.601."""
NARROWEST = 100.0
"""HU that a CT spans at least: air and soft tissue are 1000 apart [ours]."""


@dataclass(frozen=True)
class Undo:
    """How an array goes from the plan's grid back to the scan's own.

    Attributes:
        shape: The scan's spatial shape.
        inner: Shape of the content on the plan's grid, before padding.
        offset: Where the content starts on the plan's grid.
        axes: 3D: file axis of each canonical axis.
        flips: 3D: whether it is reversed.
        box: First and last + 1 pixel of the crop, along each canonical axis; None: everything.
    """

    shape: tuple[int, ...]
    inner: tuple[int, ...]
    offset: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    flips: tuple[bool, ...] | None = None
    box: Box | None = None

    @property
    def turned(self) -> tuple[int, ...]:
        """The scan's shape with its axes in the order of the plan."""
        return self.shape if self.axes is None else tuple(self.shape[a] for a in self.axes)

    @property
    def target(self) -> tuple[int, ...]:
        """Shape of the crop, before resizing."""
        return self.turned if self.box is None else tuple(s.stop - s.start for s in self.box)


def in_gray(scan: Scan, channels: int) -> Array:
    """The values ``(C, *spatial)`` of a scan; of a color film that is seen in one channel its luminance, float32.

    A gray film that was stored as RGB has all three channels again where three are seen.
    """
    array = scan.array
    if scan.as_color and len(array) == 1 and channels == 3:
        return np.repeat(array, 3, axis=0)
    if not in_color(len(array), scan.spatial_dims, channels):
        return array
    gray: Array = np.tensordot(np.asarray(LUMINANCE, np.float32), array.astype(np.float32), axes=1)
    return gray[None]


def not_in_hu(scan: Scan, plan: Plan) -> bool:
    """Whether the plan has a window of HU, and the values are none: nothing is below 0, or all is within ``NARROWEST``.

    DICOM files that state how their values become HU are believed.
    """
    if plan.intensity != "window" or plan.low >= 0 or scan.unit == "HU":
        return False
    low, high = float(scan.array.min()), float(scan.array.max())
    return low >= 0 or high - low < NARROWEST


def image_to_plan(scan: Scan, plan: Plan) -> tuple[Array, Undo]:
    """A scan as the network's input, float32 ``(channels, *spatial)`` in [-1, 1], and how to go back.

    Color films become gray where the plan has one channel.
    """
    array = in_gray(scan, len(plan.channels)).astype(np.float32, copy=False)
    array, undo = _to_grid(array, scan, plan)
    data = torch.from_numpy(np.ascontiguousarray(array))
    content = torch.stack([_rescale(channel, plan) for channel in data])
    content = resize_image(content, undo.inner)
    return _pad(content, plan, undo, value=-1.0).numpy(), undo


def label_to_plan(scan: Scan, plan: Plan, undo: Undo | None = None) -> Array:
    """A label map on the plan's grid: uint8 ``(*spatial)``, 255 is ignore.

    Each class is resized as an image and the largest fraction wins, which keeps thin structures better
    than the nearest pixel does; of equal ones, the lower label. A plan that crops needs the image's
    ``undo``.
    """
    assert plan.crop is None or undo is not None
    array, undo = _to_grid(scan.array, scan, plan, undo)
    label = torch.from_numpy(np.ascontiguousarray(array[0]).astype(np.int64))
    best = torch.zeros(undo.inner)
    result = torch.zeros(undo.inner, dtype=torch.int64)
    for value in torch.unique(label).tolist():
        fraction = resize_image((label == value).float()[None], undo.inner)[0]
        wins = fraction > best
        best, result = torch.where(wins, fraction, best), torch.where(wins, value, result)
    return _pad(result[None], plan, undo, value=IGNORE)[0].numpy().astype(np.uint8)


def undo_of(scan: Scan, plan: Plan) -> Undo:
    """How an image or label map on the plan's grid goes back to a scan, whose pixels are not read without a crop."""
    return _to_grid(scan.array, scan, plan)[1]


def scores_to_scan(scores: Tensor, undo: Undo) -> tuple[Array, Array]:
    """Mask, uint8, and winning score, float32, on the scan's own grid from scores ``(K, *spatial)``.

    One class is resized at a time, so memory does not grow with K. Outside the crop, background has a
    score of 1.
    """
    best = torch.full(undo.target, -torch.inf)
    mask = torch.zeros(undo.target, dtype=torch.uint8)
    for value in range(scores.shape[0]):
        resized = _undo_resize(scores[value], undo)
        wins = resized > best
        best = torch.where(wins, resized, best)
        mask[wins] = value
    return _to_file(mask.numpy(), undo, 0), _to_file(best.numpy(), undo, 1)


def scores_of_scan(scores: Tensor, undo: Undo) -> Array:
    """Scores ``(K, *spatial)`` as float32 on the scan's own grid; outside the crop, background has 1.

    Their argmax over K is the mask of ``scores_to_scan``.
    """
    result = np.empty((len(scores), *undo.shape), np.float32)
    for value, score in enumerate(scores):
        result[value] = map_to_scan(score, undo, outside=float(value == 0))
    return result


def map_to_scan(values: Tensor, undo: Undo, outside: float = 0.0) -> Array:
    """A map ``(*spatial)`` as float32 on the scan's own grid; ``outside`` the crop as given."""
    return _to_file(_undo_resize(values, undo).numpy(), undo, outside)


# ------------------------------------------------------------------------------------------------ internal


def _to_grid(array: Array, scan: Scan, plan: Plan, image: Undo | None = None) -> tuple[Array, Undo]:
    """Turn to the plan's axes and crop; a label map is cropped like its ``image``."""
    axes, flips = None, None
    if plan.spatial_dims == 3:
        axes, flips = orientation(scan)
        array = array.transpose(0, *(a + 1 for a in axes))
        array = np.flip(array, tuple(i + 1 for i, flip in enumerate(flips) if flip))
    if not image and plan.crop == "body" and plan.spatial_dims == 2 and array.min() > BODY_HU:
        problem = "has crop body, which is found by HU, and this film has none"
        raise InputError("plan.json", problem, "Give null or nonzero")
    box = image.box if image else content_box(array, plan.crop) if plan.crop else None
    if box is not None:
        array = array[(slice(None), *box)]
    shape = array.shape[1:]
    inner, offset = plan.film, (0,) * plan.spatial_dims
    if plan.spatial_dims == 3:
        assert plan.spacing is not None
        inner = resampled(shape, canonical_spacing(scan), plan.spacing)
    elif plan.resize == "fit":
        factor = min(plan.film[0] / shape[0], plan.film[1] / shape[1])
        inner = tuple(max(1, round(n * factor)) for n in shape)
        offset = tuple((p - n) // 2 for p, n in zip(plan.film, inner, strict=True))
    return array, Undo(scan.spatial_shape, inner, offset, axes, flips, box)


def _to_file(array: Array, undo: Undo, outside: float) -> Array:
    """Put the crop back onto the scan's own grid."""
    if undo.box is not None:
        full = np.full(undo.turned, outside, array.dtype)
        full[undo.box] = array
        array = full
    if undo.axes is None or undo.flips is None:
        return array
    array = np.flip(array, tuple(i for i, flip in enumerate(undo.flips) if flip))
    return np.ascontiguousarray(array.transpose(np.argsort(undo.axes)))


def _rescale(channel: Tensor, plan: Plan) -> Tensor:
    low, high = plan.low, plan.high
    if plan.intensity == "percentiles":
        values = np.percentile(channel.numpy(), (plan.low, plan.high))
        low, high = float(values[0]), float(values[1])
    if high <= low:
        return torch.full_like(channel, -1.0)
    return ((channel - low) / (high - low) * 2 - 1).clamp(-1, 1)


def resize_image(data: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize ``(C, *spatial)``: smoothed before shrinking, linear."""
    if tuple(data.shape[1:]) == tuple(size):
        return data
    if len(size) == 2:
        return functional.interpolate(
            data[None], size, mode="bilinear", align_corners=False, antialias=True
        )[0]
    from scipy.ndimage import gaussian_filter1d

    array = data.numpy()
    for axis, (old, new) in enumerate(zip(data.shape[1:], size, strict=True), start=1):
        if old > new:
            array = gaussian_filter1d(array, (old / new - 1) / 2, axis=axis, mode="nearest")
    return _resize_linear(torch.from_numpy(np.ascontiguousarray(array)), size)


def _resize_linear(data: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(data.shape[1:]) == tuple(size):
        return data
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return functional.interpolate(data[None], size, mode=mode, align_corners=False)[0]


def _undo_resize(values: Tensor, undo: Undo) -> Tensor:
    """A map without padding at the size of the crop."""
    window = tuple(slice(o, o + n) for o, n in zip(undo.offset, undo.inner, strict=True))
    return _resize_linear(values[window].float()[None], undo.target)[0]


def _pad(data: Tensor, plan: Plan, undo: Undo, value: float) -> Tensor:
    if plan.spatial_dims == 3 or undo.inner == plan.film:
        return data
    after = [p - n - o for p, n, o in zip(plan.film, undo.inner, undo.offset, strict=True)]
    widths = [undo.offset[1], after[1], undo.offset[0], after[0]]
    return functional.pad(data, widths, value=value)
