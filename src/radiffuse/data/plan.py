"""The plan: how scans are preprocessed in training and prediction; an editable JSON file of the model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..config import PlanSettings, TrainingPlan
from ..config.given import refuse_given
from ..config.types import Step
from ..config.values import from_dict, misfit, plain
from ..errors import InputError
from ..system.files import read_json
from .body import BODY_HU, NOT_DARK
from .dataset import Dataset
from .fingerprint import Fingerprint, find_classes, take_fingerprint
from .readers import MAX_PIXELS
from .scan import resampled
from .sides import sides

PLAN_VERSION = 1

OF_FILMS = ("grid", "resize", "colored")
"""Values that plans of volumes do not have."""
PREPARED = ("size", "grid", "spacing", "resize", "intensity", "low", "high", "crop")
"""What decides which image a network sees."""
OF_TRAINING = ("mirror", "training", "shift", "reasons", "structures", "ceilings", "colored")
"""What a plan says that no scan is prepared by, and no mask written."""

Resize = Literal["stretch", "fit"]
Intensity = Literal["percentiles", "window"]
Crop = Literal["nonzero", "body"]


@dataclass(frozen=True)
class Structures:
    """How large, many and thin the structures are, by the fingerprint.

    Attributes:
        unit: ``"mm"``, or ``"px"`` where the spacing is unknown.
        anisotropy: The coarsest median spacing over the finest.
        classes: By name the volume (of films the area), the number of pieces and the thinnest extent: medians over the
            cases that have the class.
    """

    unit: str
    anisotropy: float
    classes: dict[str, tuple[float, float, float]]

    def __post_init__(self) -> None:
        facts = {name: tuple(values) for name, values in self.classes.items()}
        object.__setattr__(self, "classes", facts)

    @classmethod
    def of(cls, found: Fingerprint) -> Structures | None:
        """Those of a fingerprint; None without labels."""
        facts = {c.name: (c.volume, c.components, c.thickness) for c in found.classes if c.cases}
        return cls(found.unit, round(found.anisotropy, 2), facts) if facts else None


@dataclass(frozen=True)
class Plan:
    """How a scan becomes the network's input.

    Attributes:
        spatial_dims: 2 or 3.
        channels: Names of the input channels; color becomes gray.
        classes: Names by label value, background first; () without labels.
        size: The patch that the network sees: pixels (rows, columns), or voxels.
        spacing: 3D: mm per voxel after resampling, axes (right, anterior, superior). None in 2D.
        resize: 2D: ``stretch`` to the grid, or ``fit`` inside and pad.
        intensity: ``percentiles`` of each image, or a fixed ``window``; mapped to [-1, 1] and clipped.
        low, high: Percentiles, or ends of the window (HU for CT).
        postprocess: Steps on predicted masks, see ``config.PlanSettings``; where none is given, by the labels.
        crop: To the box of pixels that are not 0 in all channels (``nonzero``), of the body in CT
            (``body``), or not at all (None).
        grid: 2D: pixels (rows, columns) that a film is brought to; where they are more than ``size``, the network sees
            it patch by patch. None: ``size``, so that films are seen whole. None in 3D.
        mirror: Spatial axes whose two sides no class tells apart, so that images may be mirrored along them.
        training: What is decided about the training; None where everything was given. Prediction does not need it.
        shift: Of the noise schedule in pre-training, see ``config.Diffusion``; None where it was given.
        reasons: Why, by what was decided.
        structures: What the label maps hold; None without labels.
        ceilings: What grids allow, see ``ceiling.Ceiling.row``, up to the coarsest that suffices, or the finest.
        colored: 2D: how many of the films looked at are in color, which becomes gray, and how many were looked at; None
            where none is.
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
    postprocess: tuple[Step, ...] = ()
    crop: Crop | None = None
    grid: tuple[int, ...] | None = None
    mirror: tuple[int, ...] = ()
    training: TrainingPlan | None = None
    shift: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    structures: Structures | None = None
    ceilings: tuple[dict[str, Any], ...] = ()
    colored: tuple[int, int] | None = None
    version: int = PLAN_VERSION

    @property
    def body(self) -> float:
        """Prepared voxels above this count as the body: -500 HU, or without HU ``NOT_DARK``."""
        if self.intensity == "window" and self.low < BODY_HU < self.high:
            return 2 * (BODY_HU - self.low) / (self.high - self.low) - 1
        return NOT_DARK

    @property
    def film(self) -> tuple[int, ...]:
        """2D: pixels (rows, columns) of a prepared film."""
        return self.grid or self.size

    @property
    def whole(self) -> bool:
        """Whether the network sees an image at once, rather than patch by patch."""
        return self.spatial_dims == 2 and self.film == self.size

    @property
    def treatment(self) -> dict[str, Any]:
        """What decides how a scan is prepared and masks are written, as plain values: all but training and reasons."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if name not in OF_TRAINING}

    def with_classes(self, classes: Sequence[str]) -> Plan:
        """The plan with other classes."""
        return dataclasses.replace(self, classes=tuple(classes))

    def settings(self) -> PlanSettings:
        """The plan as settings: another data set gets the same one."""
        ends = (self.low, self.high)
        return PlanSettings(
            size=self.size,
            grid=self.grid,
            spacing=self.spacing,
            resize=self.resize if self.spatial_dims == 2 else None,
            crop=self.crop,
            window=ends if self.intensity == "window" else None,
            percentiles=ends if self.intensity == "percentiles" else None,
            postprocess=self.postprocess or None,
        )

    def to_json(self) -> str:
        """Text of ``plan.json``: of volumes without ``grid`` and ``resize``, of which earlier versions wrote both."""
        left_out = OF_FILMS if self.spatial_dims == 3 else ()
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}
        return json.dumps(values, indent=2) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of all values that plans of every version have, by which records of masks know the plan."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k != "colored"}
        if values["training"] is not None:
            del values["training"]["slowed"]
        text = json.dumps(values, indent=2) + "\n"
        return hashlib.sha256(text.encode()).hexdigest()


def class_of_step(step: Step) -> int:
    """The class that a step after segmentation is for; 0 where it is for each."""
    value, _, _ = step.rpartition("=")
    return int(value) if value else 0


def read_plan(path: Path) -> Plan:
    """Read ``plan.json``, which a person may have edited.

    Raises:
        InputError: It is missing, not JSON, of another version, or has a value that is not legal.
    """
    try:
        values = read_json(path, dict[str, Any])
        if values.get("spatial_dims") == 3:
            if "resize" in values and "grid" not in values:
                problem = (
                    f"resize {values['resize']} is for films: volumes are brought to the spacing"
                )
                raise InputError(path, problem, "Remove the line")
            values.setdefault("resize", "fit")  # as ``make_plan`` and earlier files have it
        if isinstance(step := values.get("postprocess"), str):  # of plans with one step
            values["postprocess"] = [step]
        color = values.get("reasons", {}).get("channels", "")  # where earlier files have it
        if counts := re.match(r"(\d+) of the (\d+) ", color):
            values.setdefault("colored", [*map(int, counts.groups())])
        plan: Plan = from_dict(Plan, values, strict=True)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = f"is not a plan ({error})"
        raise InputError(path, problem, "Restore the file or train again") from None
    if plan.version != PLAN_VERSION:
        problem = f"has version {plan.version}, this radiffuse reads {PLAN_VERSION}"
        raise InputError(path, problem, "Use the radiffuse that wrote it, or train again")
    _verify(plan, str(path))
    return plan


def make_plan(
    dataset: Dataset,
    settings: PlanSettings,
    *,
    labelled: bool,
    skip_bad: bool = False,
    found: Fingerprint | None = None,
) -> Plan:
    """Derive a plan from the data; explicit settings win. What depends on the machine is for ``train.planning``.

    Args:
        dataset: The cases.
        settings: What is given.
        labelled: Also find the classes, which reads all label maps unless the data set declares them.
        skip_bad: Of a mixture of 2D and 3D, plan for the more frequent kind.
        found: The fingerprint of the data set; None: take it.

    Raises:
        InputError: No case can be read, 2D and 3D are mixed, or a setting is not legal.
    """
    found = found or take_fingerprint(dataset, labelled=labelled, skip_bad=skip_bad)
    if settings.crop == "body" and not found.ct:
        problem = "finds the body in CT, by its HU, and these images are not all CT"
        raise InputError("--plan.crop body", problem, "Leave it out, or give the CT scans alone")
    kind, foreign = ("films", "spacing") if found.spatial_dims == 2 else ("volumes", "resize")
    refuse_given(settings, PlanSettings(), foreign, f"these are {kind}", "plan.")
    intensity, low, high, scaled = _intensity(settings, found)
    spacing = (settings.spacing or target_spacing(found)) if found.spatial_dims == 3 else None
    classes = find_classes(dataset) if labelled else ()
    mirror, why = sides(classes, found)
    steps, agreed = _kept_pieces(settings.postprocess, classes, found)
    said = {"mirror": why, "postprocess": agreed} if classes else {}
    said |= {"spacing": found.taken, "window": scaled}
    plan = Plan(
        spatial_dims=found.spatial_dims,
        channels=dataset.channels,
        classes=classes,
        size=_size(settings.size, found, spacing, settings.grid),
        grid=_grid(settings.grid, found),
        spacing=spacing,
        resize=settings.resize or "fit",
        intensity=intensity,
        low=low,
        high=high,
        postprocess=steps,
        crop=settings.crop,
        mirror=mirror,
        reasons={k: v for k, v in said.items() if v},
        structures=Structures.of(found),
        colored=(found.colored, len(found.shapes)) if found.colored else None,
    )
    _verify(plan, "--plan")
    return plan


ANISOTROPIC = 3.0
"""An axis this many times coarser than the others is anisotropic [nnU-Net]."""


def target_spacing(found: Fingerprint) -> tuple[float, ...]:
    """Median spacing; of an anisotropic axis its 10th percentile, but no finer than the others (nnU-Net's rule).

    Isensee et al. 2021, supplementary note 2. Without it the coarsest scans would decide how thick slices are.
    """
    spacing, shape = np.asarray(found.spacing), np.median(found.shapes, axis=0)
    worst = int(spacing.argmax())
    others = [axis for axis in range(len(spacing)) if axis != worst]
    coarse = spacing[worst] > ANISOTROPIC * spacing[others].max()
    few = shape[worst] * ANISOTROPIC < shape[others].min()
    if coarse and few:
        finer = float(np.percentile([mm[worst] for mm in found.spacings], 10))
        spacing[worst] = max(finer, float(spacing[others].max()))
    return tuple(round(float(mm), 4) for mm in spacing)


# ------------------------------------------------------------------------------------------------ internal


def _kept_pieces(
    given: tuple[Step, ...] | None, classes: Sequence[str], found: Fingerprint
) -> tuple[tuple[Step, ...], str]:
    """The steps on predicted masks, and why [ours].

    As many pieces are kept as a class has in every label map; where these are too few to say, islands are dropped.
    """
    if given is not None:
        return given, "given"
    steps, why = [], defaultdict[str, list[str]](list)
    for value, fact in zip(range(1, len(classes)), found.classes, strict=False):
        if fact.pieces:
            steps.append(f"{value}=keep:{fact.pieces}")
            why["every label map to learn from has as many pieces of"].append(classes[value])
        elif fact.island:
            # Pixels of unknown size say nothing about films of another size, a share of the film does.
            name, size = [*zip(("drop", "islands"), fact.island, strict=True)][found.unit == "px"]
            text = np.format_float_positional(size, 3, fractional=False, trim="-")
            steps.append(f"{value}={name}:{text}")
            why["in the few label maps nothing is nearly as small that belongs to"].append(
                classes[value]
            )
    return tuple(steps), "; ".join(f"{said} {', '.join(names)}" for said, names in why.items())


def _size(
    given: tuple[int, ...] | None,
    found: Fingerprint,
    spacing: tuple[float, ...] | None,
    grid: tuple[int, ...] | None,
) -> tuple[int, ...]:
    if given is not None:
        return given * found.spatial_dims if len(given) == 1 else given
    if spacing is None:
        return tuple(min(64, n) for n in ((grid or (64,)) * 2)[:2])
    pairs = zip(found.shapes, found.spacings, strict=True)
    shape = np.median([resampled(n, mm, spacing) for n, mm in pairs], axis=0)
    # The largest multiple of 16 that half of the scans fill and a CPU can train with.
    return tuple(int(min(48, max(16, n // 16 * 16))) for n in shape)


def _intensity(given: PlanSettings, found: Fingerprint) -> tuple[Intensity, float, float, str]:
    """How intensities are scaled, between which percentiles or values, and why."""
    beside = "one beside the CT is not in HU"
    if given.window is not None:
        low, high = given.window
        why = f"given, for every channel, though {beside}" if found.mixed else "given"
        return "window", float(low), float(high), why
    if given.percentiles is not None or not found.ct or found.mixed:
        low, high = given.percentiles or (0.5, 99.5)
        alone = f"of each channel by itself: {beside}" if found.mixed else ""
        return "percentiles", float(low), float(high), "given" if given.percentiles else alone
    values = (found.foreground or found.body)[0]  # [related: nnU-Net]
    floor = math.floor(values.low)
    why = f"percentiles of the {'classes' if found.foreground else 'body'}"
    return "window", float(floor), float(max(math.ceil(values.high), floor + 1)), why


def _grid(given: tuple[int, ...] | None, found: Fingerprint) -> tuple[int, ...] | None:
    if given is not None and found.spatial_dims == 3:
        where = f"--plan.grid {','.join(map(str, given))}"
        raise InputError(where, "is for films, and these are volumes", "Use --plan.spacing")
    return given * 2 if given is not None and len(given) == 1 else given


def _verify(plan: Plan, where: str) -> None:
    if fault := next(_faults(plan), None):
        raise InputError(where, *fault)


def _faults(plan: Plan) -> Iterator[tuple[str, str]]:
    """Problems with remedies; each check assumes that those before it have passed."""
    dims, size = plan.spatial_dims, plan.size
    if fault := misfit(plain(plan), Plan):
        yield fault, "Correct it"
    if dims not in (2, 3) or len(size) != dims:
        yield f"size {size} does not fit {dims} spatial axes", "Give one number per axis"
    if min(size) < 8:
        yield f"size {size} is too small", "Use at least 8 along each axis"
    if math.prod(size) > MAX_PIXELS:
        yield f"size {size} is too large", f"Use at most {MAX_PIXELS} pixels"
    if plan.grid is not None:
        if dims == 3 or len(plan.grid) != 2:
            problem = f"grid {plan.grid} is not legal"
            yield problem, "Give rows and columns of a film, or null"
        if any(g < n for g, n in zip(plan.grid, size, strict=True)):
            problem = f"grid {plan.grid} is smaller than the size {size} of a patch"
            yield problem, "Make the patch smaller or the grid larger"
        if math.prod(plan.grid) > MAX_PIXELS:
            yield f"grid {plan.grid} is too large", f"Use at most {MAX_PIXELS} pixels"
    if not plan.low < plan.high:
        yield f"intensity {plan.low} to {plan.high} is empty", "Put the lower value first"
    if dims == 3 and [mm > 0 for mm in plan.spacing or ()] != [True] * 3:
        yield f"spacing {plan.spacing} is not legal", "Give three positive mm"
    if dims == 2 and plan.spacing is not None:
        yield f"spacing {plan.spacing} is for volumes", "Give null for films"
    if plan.intensity == "percentiles" and not 0 <= plan.low <= plan.high <= 100:
        yield f"percentiles {plan.low} to {plan.high} are not legal", "Give two from 0 to 100"
    for step in plan.postprocess if plan.classes else ():
        if (value := class_of_step(step)) >= len(plan.classes):
            problem = (
                f"postprocess {step} is for class {value}, the last one is {len(plan.classes) - 1}"
            )
            yield problem, "Correct it"
    if not plan.channels:
        yield "it has no channels", "Give a list of names"
    if not set(plan.mirror) <= set(range(dims)):
        yield f"mirror {plan.mirror} is not legal", f"Give axes from 0 to {dims - 1}, or none"
