"""The plan: how scans are preprocessed in training and prediction; an editable JSON file of the model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..config import PlanSettings
from ..config.types import STEP
from ..config.values import from_dict, is_legal
from ..errors import InputError
from .dataset import Dataset
from .fingerprint import Fingerprint, find_classes, take_fingerprint
from .readers import MAX_PIXELS
from .scan import resampled

PLAN_VERSION = 1
BODY_HU = -500.0
"""Denser voxels are body, table or clothes [related: vox2vec]."""
NOT_DARK = -0.98
"""Without HU, voxels above this, of [-1, 1], count as the body."""

Resize = Literal["stretch", "fit"]
Intensity = Literal["percentiles", "window"]
Crop = Literal["nonzero", "body"]
LEGAL: dict[str, tuple[str | None, ...]] = {
    "resize": get_args(Resize),
    "intensity": get_args(Intensity),
    "crop": (*get_args(Crop), None),
}


@dataclass(frozen=True)
class Plan:
    """How a scan becomes the network's input.

    Attributes:
        spatial_dims: 2 or 3.
        channels: Names of the input channels; color becomes gray.
        classes: Names by label value, background first; () without labels.
        size: 2D: the image in pixels (rows, columns). 3D: a patch in voxels.
        spacing: 3D: mm per voxel after resampling, axes (right, anterior, superior). None in 2D.
        resize: 2D: ``stretch`` to ``size``, or ``fit`` inside and pad.
        intensity: ``percentiles`` of each image, or a fixed ``window``; mapped to [-1, 1] and clipped.
        low, high: Percentiles, or ends of the window (HU for CT).
        postprocess: Steps on predicted masks, see ``config.PlanSettings``.
        crop: To the box of pixels that are not 0 in all channels (``nonzero``), of the body in CT
            (``body``), or not at all (None).
        version: Version of this format.
    """

    spatial_dims: int
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    resize: Resize = "stretch"
    intensity: Intensity = "percentiles"
    low: float = 0.5
    high: float = 99.5
    postprocess: tuple[str, ...] = ()
    crop: Crop | None = None
    version: int = PLAN_VERSION

    @property
    def body(self) -> float:
        """Prepared voxels above this count as the body: -500 HU, or without HU ``NOT_DARK``."""
        if self.intensity == "window" and self.low < BODY_HU < self.high:
            return 2 * (BODY_HU - self.low) / (self.high - self.low) - 1
        return NOT_DARK

    def with_classes(self, classes: Sequence[str]) -> Plan:
        """The plan with other classes."""
        return dataclasses.replace(self, classes=tuple(classes))

    def to_json(self) -> str:
        """Text of ``plan.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``, which a person may have edited.

    Raises:
        InputError: It is missing, not JSON, of another version, or has a value that is not legal.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(step := values.get("postprocess"), str):  # of plans with one step
            values["postprocess"] = [step]
        plan: Plan = from_dict(Plan, values, strict=True)
    except FileNotFoundError:
        raise InputError(path, "is missing", "Give a complete run folder") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = f"is not a plan ({error})"
        raise InputError(path, problem, "Restore the file or train again") from None
    if plan.version != PLAN_VERSION:
        problem = f"has version {plan.version}, this radiffuse reads {PLAN_VERSION}"
        raise InputError(path, problem, "Use the radiffuse that wrote it, or train again")
    _verify(plan, str(path))
    return plan


def make_plan(dataset: Dataset, settings: PlanSettings, *, labelled: bool) -> Plan:
    """Derive a plan from the data; explicit settings win.

    ``labelled`` also finds the classes, which reads all label maps unless the data set declares them.

    Raises:
        InputError: No case can be read, 2D and 3D are mixed, or a setting is not legal.
    """
    found = take_fingerprint(dataset)
    if settings.crop == "body" and not found.ct:
        problem = "finds the body in CT, by its HU, and these images are not all CT"
        raise InputError("--plan.crop body", problem, "Leave it out, or give the CT scans alone")
    intensity: Intensity = "percentiles"
    low, high = settings.percentiles or (0.5, 99.5)
    if settings.window is not None:
        intensity, (low, high) = "window", settings.window
    elif settings.percentiles is None and found.ct:
        intensity, low, high = "window", -1350.0, 1000.0  # [code] of arXiv 2501.19265
    spacing = None
    if found.spatial_dims == 3:
        middle = np.median(found.spacings, axis=0)
        spacing = settings.spacing or tuple(round(float(v), 4) for v in middle)
    plan = Plan(
        spatial_dims=found.spatial_dims,
        channels=dataset.channels,
        classes=find_classes(dataset) if labelled else (),
        size=_size(settings.size, found, spacing),
        spacing=spacing,
        resize=settings.resize or "stretch",
        intensity=intensity,
        low=float(low),
        high=float(high),
        postprocess=settings.postprocess or (),
        crop=settings.crop,
    )
    _verify(plan, "--plan")
    return plan


# ------------------------------------------------------------------------------------------------ internal


def _size(
    given: tuple[int, ...] | None, found: Fingerprint, spacing: tuple[float, ...] | None
) -> tuple[int, ...]:
    if given is not None:
        return given * found.spatial_dims if len(given) == 1 else given
    if spacing is None:
        return (64, 64)
    pairs = zip(found.shapes, found.spacings, strict=True)
    shape = np.median([resampled(n, mm, spacing) for n, mm in pairs], axis=0)
    # The largest multiple of 16 that half of the scans fill and a CPU can train with.
    return tuple(int(min(48, max(16, n // 16 * 16))) for n in shape)


def _verify(plan: Plan, where: str) -> None:
    if fault := next(_faults(plan), None):
        raise InputError(where, *fault)


def _faults(plan: Plan) -> Iterator[tuple[str, str]]:
    """Problems with remedies; each check assumes that those before it have passed."""
    if plan.spatial_dims not in (2, 3) or not _are(plan.size, int, plan.spatial_dims):
        axes = f"{_short(plan.spatial_dims)} spatial axes"
        yield f"size {_short(plan.size)} does not fit {axes}", "Give one number per axis"
    if min(plan.size) < 8:
        yield f"size {plan.size} is too small", "Use at least 8 along each axis"
    if math.prod(plan.size) > MAX_PIXELS:
        yield f"size {plan.size} is too large", f"Use at most {MAX_PIXELS} pixels"
    if not _are((plan.low, plan.high), float) or not plan.low < plan.high:
        values = f"{_short(plan.low)} to {_short(plan.high)}"
        yield f"intensity {values} is empty", "Put the lower value first"
    legal_spacing = _are(plan.spacing, float, 3) and min(plan.spacing or ()) > 0
    if plan.spatial_dims == 3 and not legal_spacing:
        yield f"spacing {_short(plan.spacing)} is not legal", "Give three positive mm"
    if not _are(plan.channels, str) or not plan.channels or not _are(plan.classes, str):
        yield "channels or classes are no names", "Give a list of names"
    for step in plan.postprocess:
        if not is_legal(step, STEP):
            yield f"postprocess {_short(step)} is not legal", f"Legal is {STEP.legal}"
    for name, legal in LEGAL.items():
        if getattr(plan, name) not in legal:
            value = _short(getattr(plan, name))
            yield f"{name} {value} is not legal", f"Choose from {', '.join(map(str, legal))}"


def _are(values: object, kind: type, count: int | None = None) -> bool:
    """Whether ``values`` is a tuple of ``count`` finite numbers or strings."""
    if not isinstance(values, tuple) or (count is not None and len(values) != count):
        return False
    if kind is str:
        return all(isinstance(value, str) for value in values)
    kinds = (int,) if kind is int else (int, float)
    return all(
        isinstance(v, kinds) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:60] + "..."
