"""A fingerprint of the data becomes a plan: how every scan is treated, now and at prediction.

The plan is a JSON file that a person can edit. It is saved with every model and is all that prediction needs.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..config import IGNORE, PlanSettings
from ..errors import InputError
from .boxes import BODY_HU
from .cases import read_case_image, read_case_label
from .dataset import Case, Dataset
from .readers import MAX_PIXELS

PLAN_VERSION = 1
NOT_DARK = -0.98
"""Without HU, voxels above this, of [-1, 1], are taken for the body."""
FINGERPRINT_CASES = 32
"""Cases that are decoded to decide size, spacing and intensity; spread evenly over the data set."""


@dataclass(frozen=True)
class Plan:
    """How a scan becomes the network's input.

    Attributes:
        spatial_dims: 2 or 3.
        channels: Names of the input channels; every channel is one file, colors are turned to gray.
        classes: Names by label value, background first; () where there are no labels.
        size: 2D: size of the whole image in pixels (rows, columns). 3D: size of a patch in voxels.
        spacing: 3D: mm per voxel after resampling, axes (right, anterior, superior). None in 2D.
        resize: 2D: ``stretch`` to ``size``, or ``fit`` inside and pad.
        intensity: ``percentiles`` of each image, or a fixed ``window``; mapped to [-1, 1] and clipped.
        low: Lower percentile, or lower end of the window (HU for CT).
        high: Upper percentile, or upper end of the window.
        postprocess: What is done to predicted masks, see ``config.PlanSettings``.
        crop: ``nonzero``: only the box of the pixels that are not 0 in all channels is looked at; ``body``: that of the
            body, of CT; None: everything.
        version: Version of this format.
    """

    spatial_dims: int
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    resize: Literal["stretch", "fit"] = "stretch"
    intensity: Literal["percentiles", "window"] = "percentiles"
    low: float = 0.5
    high: float = 99.5
    postprocess: Literal["none", "largest", "muscle-ultrasound"] = "none"
    crop: Literal["nonzero", "body"] | None = None
    version: int = PLAN_VERSION

    @property
    def body(self) -> float:
        """Prepared voxels above this are taken for the body: -500 HU; without HU, all that is not as dark as can be."""
        if self.intensity == "window" and self.low < BODY_HU < self.high:
            return 2 * (BODY_HU - self.low) / (self.high - self.low) - 1
        return NOT_DARK

    def with_classes(self, classes: Sequence[str]) -> Plan:
        """The same treatment for other classes."""
        return dataclasses.replace(self, classes=tuple(classes))

    def to_json(self) -> str:
        """The plan as the text of ``plan.json``."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``, which a person may have edited.

    Raises:
        InputError: Missing, not JSON, of another version, or with a value that is not legal.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        plan = Plan(**values)
    except FileNotFoundError:
        raise InputError(path, "is missing", "Give a complete run folder") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            path, f"is not a plan ({error})", "Restore the file or train again"
        ) from None
    if plan.version != PLAN_VERSION:
        raise InputError(
            path,
            f"has version {plan.version}, this radiffuse reads {PLAN_VERSION}",
            "Use the radiffuse that wrote it, or train again",
        )
    _verify(plan, str(path))
    return plan


def _verify(plan: Plan, where: str) -> None:
    if plan.spatial_dims not in (2, 3) or not _are(plan.size, int, plan.spatial_dims):
        raise InputError(
            where,
            f"size {_short(plan.size)} does not fit {_short(plan.spatial_dims)} spatial axes",
            "Give one number per axis",
        )
    if min(plan.size) < 8:
        raise InputError(where, f"size {plan.size} is too small", "Use at least 8 along each axis")
    if math.prod(plan.size) > MAX_PIXELS:
        raise InputError(
            where, f"size {plan.size} is too large", f"Use at most {MAX_PIXELS} pixels"
        )
    if not _are((plan.low, plan.high), float) or not plan.low < plan.high:
        raise InputError(
            where,
            f"intensity {_short(plan.low)} to {_short(plan.high)} is empty",
            "Put the lower value first",
        )
    if plan.spatial_dims == 3 and (
        not _are(plan.spacing, float, 3) or min(plan.spacing or ()) <= 0
    ):
        raise InputError(
            where, f"spacing {_short(plan.spacing)} is not legal", "Give three positive mm"
        )
    if not _are(plan.channels, str) or not plan.channels or not _are(plan.classes, str):
        raise InputError(where, "channels or classes are no names", "Give a list of names")
    legal = typing.get_type_hints(Plan)
    for name in ("resize", "intensity", "postprocess", "crop"):
        choices = _choices(legal[name])
        if getattr(plan, name) not in choices:
            problem = f"{name} {_short(getattr(plan, name))} is not legal"
            raise InputError(where, problem, f"Choose of {', '.join(map(str, choices))}")


def _are(values: object, kind: type, count: int | None = None) -> bool:
    """Whether something is a tuple of so many finite numbers, or names."""
    if not isinstance(values, tuple) or (count is not None and len(values) != count):
        return False
    if kind is str:
        return all(isinstance(value, str) for value in values)
    kinds = (int,) if kind is int else (int, float)
    return all(
        isinstance(v, kinds) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )


def _choices(kind: Any) -> tuple[Any, ...]:
    members = typing.get_args(kind)
    return sum((_choices(m) if typing.get_args(m) else (_none(m),) for m in members), ())


def _none(member: Any) -> Any:
    return None if member is type(None) else member


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:60] + "..."


def make_plan(dataset: Dataset, settings: PlanSettings, *, labelled: bool) -> Plan:
    """Look at the data and decide; explicit settings win.

    Args:
        dataset: The cases.
        settings: Overrides.
        labelled: Also find the classes, which reads every label map unless the data set declares them.

    Raises:
        InputError: No case can be read, 2D and 3D are mixed, or a setting is not legal.
    """
    if not dataset.cases:
        raise InputError(
            dataset.root, "holds no images", "See docs/reference/layouts.md for what is read"
        )
    chosen = np.unique(np.linspace(0, len(dataset) - 1, FINGERPRINT_CASES).round().astype(int))
    scans = [s for s in (_try_read(dataset.cases[i]) for i in chosen) if s is not None]
    if not scans:
        read_case_image(dataset.cases[0])  # raises, and names the file
        raise InputError(
            dataset.root, "none of its images can be read", "Run radiffuse check on it"
        )
    dims = {scan.spatial_dims for scan in scans}
    if len(dims) > 1:
        raise InputError(
            dataset.root, "mixes films and volumes", "Put 2D and 3D images in folders of their own"
        )
    spatial_dims = dims.pop()
    ct = all(_is_ct(scan) for scan in scans)
    if settings.crop == "body" and not ct:
        problem = "finds the body in CT, by its HU, and these images are not all CT"
        raise InputError("--plan.crop body", problem, "Leave it out, or give the CT scans alone")
    if settings.window is not None:
        intensity, (low, high) = "window", settings.window
    elif settings.percentiles is not None or not ct:
        intensity, (low, high) = "percentiles", settings.percentiles or (0.5, 99.5)
    else:
        intensity, low, high = "window", -1350.0, 1000.0  # [code] of arXiv 2501.19265
    spacing = None
    if spatial_dims == 3:
        from .transform import canonical_spacing

        found = np.median([canonical_spacing(scan) for scan in scans], axis=0)
        spacing = settings.spacing or tuple(round(float(v), 4) for v in found)
    plan = Plan(
        spatial_dims=spatial_dims,
        channels=dataset.channels,
        classes=find_classes(dataset) if labelled else (),
        size=_size(settings.size, scans, spatial_dims, spacing),
        spacing=spacing,
        resize=settings.resize or "stretch",
        intensity=intensity,  # type: ignore[arg-type]
        low=float(low),
        high=float(high),
        postprocess=settings.postprocess or "none",
        crop=settings.crop,
    )
    _verify(plan, "--plan")
    return plan


def _is_ct(scan: Any) -> bool:
    """HU by its header, or (NIfTI has no unit) a volume with as much below -500 as air around a body gives."""
    if scan.unit == "HU":
        return True
    return scan.spatial_dims == 3 and bool(np.percentile(scan.array, 1) < -500)


def _size(
    given: tuple[int, ...] | None,
    scans: Sequence[Any],
    dims: int,
    spacing: tuple[float, ...] | None,
) -> tuple[int, ...]:
    if given is not None:
        return given * dims if len(given) == 1 else given
    if dims == 2:
        return (64, 64)
    from .transform import resampled_shape

    assert spacing is not None
    shape = np.median([resampled_shape(scan, spacing) for scan in scans], axis=0)
    # The largest multiple of 16 that most scans fill, and that a CPU can train.
    return tuple(int(min(48, max(16, n // 16 * 16))) for n in shape)


def _try_read(case: Case) -> Any:
    try:
        return read_case_image(case)
    except InputError:
        return None


def find_classes(dataset: Dataset) -> tuple[str, ...]:
    """Names by label value: declared by the data set, else found in every label map.

    Raises:
        InputError: A label map has a value outside 0 to 254 and not 255 (ignore), or all hold nothing but 0 and 255.
    """
    if dataset.classes:
        return dataset.classes
    ignoring: set[str] = set()

    def highest(case: Case) -> int:
        values = np.unique(read_case_label(case).array)
        if IGNORE in values:
            ignoring.add(case.name)
        values = values[values != IGNORE]
        if len(values) and (values[0] < 0 or values[-1] > IGNORE):
            raise InputError(
                case.label or case.name,
                f"has label values from {values[0]} to {values[-1]}",
                f"Use 0 to {IGNORE - 1}, and {IGNORE} for what is not to be counted",
            )
        return int(values[-1]) if len(values) else 0

    with ThreadPoolExecutor() as pool:
        top = max(pool.map(highest, dataset.labelled.cases), default=0)
    if top == 0 and ignoring:
        raise InputError(
            dataset.root,
            f"has label maps of nothing but 0 and {IGNORE}, which means ignore",
            f"If {IGNORE} is the foreground, say so with --label-values 0,{IGNORE}",
        )
    return ("background", *(f"class-{value}" for value in range(1, top + 1)))
