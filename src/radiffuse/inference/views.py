"""Views of an image at prediction, mirrored and at other scales, whose probabilities are averaged.

What is seen is what training showed: images are mirrored only along the axes that the plan permits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..data.plan import Plan
from ..data.transform import resize_image
from ..errors import InputError

SCALES = (1.0, 0.8, 1.25)
"""How much larger an image is seen with ``scale`` [ours]; training goes from .7 to 1.4."""
Slabs = Iterable[tuple[int, Tensor]]
"""First plane, and values ``(K, planes, ...)``."""


@dataclass(frozen=True)
class View:
    """A way to see an image.

    Attributes:
        flips: Spatial axes that are mirrored.
        scale: How much larger it is.
    """

    flips: tuple[int, ...] = ()
    scale: float = 1.0

    def of(self, image: Tensor) -> Tensor:
        """The image ``(C, *S)`` as it is seen."""
        if self.scale != 1:
            image = resize_image(
                image, tuple(max(1, round(n * self.scale)) for n in image.shape[1:])
            )
        return image.flip([axis + 1 for axis in self.flips]) if self.flips else image

    def undo(self, slabs: Slabs, shape: Sequence[int]) -> Slabs:
        """Slabs of what was seen, in order, as slabs of the image of ``shape``."""
        if self.scale != 1:
            slabs = _resized(slabs, shape, self.scale)
        for first, slab in slabs:
            start = shape[0] - first - slab.shape[1] if 0 in self.flips else first
            yield start, slab.flip([axis + 1 for axis in self.flips]) if self.flips else slab


def views(kinds: Sequence[str], plan: Plan, name: str) -> list[View]:
    """The views of a run, the image as it is first: each way of mirroring it at each scale.

    Args:
        kinds: ``mirror``, ``scale``, both, or ``none``.
        plan: Of the run.
        name: Of the run, for the message.

    Raises:
        InputError: The plan permits no mirroring, or ``none`` stands beside others.
    """
    if "none" in kinds and len(set(kinds)) > 1:
        where = f"--tta {','.join(kinds)}"
        raise InputError(where, "asks for none and for others", "Leave one out")
    if "mirror" in kinds and not plan.mirror:
        why = plan.reasons.get("mirror", "it names no axis to mirror")
        problem = f"is not for {name}, by its plan: {why}"
        raise InputError("--tta mirror", problem, "Leave mirror out")
    axes = plan.mirror if "mirror" in kinds else ()
    flips = [f for n in range(len(axes) + 1) for f in itertools.combinations(axes, n)]
    scales = SCALES if "scale" in kinds else SCALES[:1]
    return [View(flip, scale) for scale in scales for flip in flips]


# ------------------------------------------------------------------------------------------------ internal


def _resized(slabs: Slabs, shape: Sequence[int], scale: float) -> Iterator[tuple[int, Tensor]]:
    """Linear interpolation, plane by plane: across planes at once, along them as soon as both neighbors are there."""
    seen = max(1, round(shape[0] * scale))
    places = ((torch.arange(shape[0]) + 0.5) * seen / shape[0] - 0.5).clamp(0, seen - 1)
    below = places.floor().long()
    above = (below + 1).clamp(max=seen - 1)
    planes, start, done = torch.empty(0), 0, 0
    for first, slab in slabs:
        slab = _across(slab, shape[1:])
        planes = torch.cat([planes, slab], 1) if planes.numel() else slab
        ready = int((above < first + slab.shape[1]).sum())
        if ready == done:
            continue
        at = slice(done, ready)
        share = (places - below)[at].reshape(-1, *[1] * (len(shape) - 1))
        yield done, torch.lerp(planes[:, below[at] - start], planes[:, above[at] - start], share)
        if ready < shape[0]:
            kept = min(int(below[ready]), first + slab.shape[1])
            planes, start = planes[:, kept - start :], kept
        done = ready


def _across(slab: Tensor, size: Sequence[int]) -> Tensor:
    """Each plane ``(K, planes, ...)`` resized."""
    mode = "linear" if len(size) == 1 else "bilinear"
    flat = slab.flatten(0, 1)[:, None]
    resized = functional.interpolate(flat, tuple(size), mode=mode, align_corners=False)
    return resized.reshape(*slab.shape[:2], *size)
