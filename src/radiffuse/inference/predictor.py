"""Trained segmentation runs, ready to segment scans: to the plan's grid, votes, back to the scan's own grid."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..config import Machine, Predict
from ..config.given import refuse_given
from ..data.names import unique_names
from ..data.plan import PREPARED, Plan
from ..data.scan import Array, Scan, in_color
from ..data.streams import torch_seed
from ..data.transform import (
    Undo,
    image_to_plan,
    map_to_scan,
    not_in_hu,
    scores_of_scan,
    scores_to_scan,
)
from ..errors import InputError
from ..evaluation.quality import expected_dice
from ..train.device import local_device
from ..train.run import Run
from .finite import verify_finite
from .members import Member, Overrides, common_steps, open_members, verify_agreement
from .postprocess import postprocess
from .records import GRAYED, NO_HU, UNSIZED
from .views import views
from .windows import slide, starts, zeros


@dataclass(frozen=True)
class Segmented:
    """A segmented scan on the scan's own grid.

    Attributes:
        mask: uint8 ``(*spatial)``, values by ``Plan.classes``.
        confidence: float32 ``(*spatial)``, probability of the class in ``mask``, 0 to 1, also where postprocessing
            changed it.
        maps: float32 ``(*spatial)`` maps of uncertainty by name, if requested: ``mean-CLASS``, the mean probability of
            each foreground class, its name made fit for a file; ``entropy`` of the mean, as a fraction of the largest
            possible, 0 to 1; ``variance`` of the probability over samples, views and runs, mean over classes, if there
            are at least two.
        mean: Mean probability of every class ``(K, *S)``, on the grid of the votes; None of a step on the way.
    """

    mask: Array
    confidence: Array
    maps: Mapping[str, Array] = field(default_factory=dict)
    mean: Array | None = field(default=None, repr=False, compare=False)

    @cached_property
    def expected(self) -> tuple[float, ...]:
        """Dice that the probabilities expect, of each foreground class, see ``quality.expected_dice``."""
        return () if self.mean is None else tuple(map(float, expected_dice(self.mean)))


class Predictor:
    """Segments scans with one run, or with several that vote.

    Args:
        members: The runs; they must agree, see ``verify_agreement``.
        device: Where to compute.
        autocast: Context manager for the arithmetic.
        overlap: Fraction by which windows overlap, where a view is larger than what the network sees at once.
        samples: Masks sampled per scan from each member that draws.
        ensemble: ``probability``: mean probability; ``vote``: majority. Every run has the same weight.
        tta: Views that are averaged: ``mirror``, ``scale``; see ``views.views``. None: those of each run.
        uncertainty: Make the maps of ``Segmented``.
        seed: Seed of the noise, together with the name of the scan.

    Raises:
        InputError: The members do not agree, or the plan of one permits no mirroring.
    """

    def __init__(
        self,
        members: Sequence[Member],
        device: torch.device,
        autocast: Callable[[], Any],
        *,
        overlap: float = 0.5,
        samples: int = 1,
        ensemble: Literal["probability", "vote"] = "probability",
        tta: Sequence[str] | None = None,
        uncertainty: bool = False,
        seed: int = 0,
    ) -> None:
        verify_agreement(list(members))
        self.members, self.after = tuple(members), common_steps(members)
        self.device, self.autocast, self.overlap = device, autocast, overlap
        self.samples, self.ensemble = samples, ensemble
        self.views = [views(m.tta if tta is None else tta, m.plan, m.name) for m in self.members]
        self.uncertainty, self.seed = uncertainty, seed

    @classmethod
    def open(
        cls,
        runs: Sequence[Run],
        machine: Machine,
        overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
        **options: Any,
    ) -> Predictor:
        """The predictor of finished runs; ``options`` are those of the class.

        Raises:
            RunError: A run is not finished, damaged, or without classes.
            InputError: The runs do not agree, or none of them obeys a setting.
        """
        local = local_device(machine)
        members = [
            member for run in runs for member in open_members(run, machine, local.device, overrides)
        ]
        predictor = cls(members, local.device, local.autocast, **options)
        given, usual = replace(Predict(), **vars(overrides), **options), Predict()
        draws, heads = any(m.draws for m in members), any(m.heads for m in members)
        for unused, names, why in (
            (not heads, "head", "no run has several heads"),
            (not draws, "sampler steps legacy_timesteps samples seed", "no run draws its masks"),
            (predictor._windows_stay(usual.overlap), "overlap", predictor._whole_in_words()),
            (predictor.alone, "ensemble", "a single mask votes"),
        ):
            if unused:
                refuse_given(given, usual, names, why)
        return predictor

    @property
    def plan(self) -> Plan:
        """The classes, and how the first member prepares scans."""
        return self.members[0].plan

    @torch.no_grad()
    def __call__(self, scan: Scan, name: str = "") -> Segmented:
        """Segment one scan ``(C, *spatial)``, whose name and the seed determine the noise, whatever else is segmented.

        Raises:
            InputError: The scan does not have the axes and channels of the plan, or a logit is not finite.
        """
        votes, undo = self._vote(scan, name)
        return replace(votes.result(undo, self.plan, self.after, scan.spacing), mean=votes.mean)

    @torch.no_grad()
    def probabilities(self, scan: Scan, name: str = "") -> Array:
        """Mean probability of every class on the scan's own grid, before any postprocessing.

        Returns:
            float32 ``(K, *spatial)``; over K they sum to 1. With ``ensemble="vote"``, fractions of the votes.

        Raises:
            InputError: The scan does not have the axes and channels of the plan.
        """
        votes, undo = self._vote(scan, name)
        return scores_of_scan(torch.from_numpy(votes.mean), undo)

    @torch.no_grad()
    def on_plan(self, scan: Scan, name: str = "") -> Array:
        """Mean probability of every class on the plan's grid, ``(K, *S)``; of a volume it lies on disk.

        Raises:
            InputError: The scan does not have the axes and channels of the plan.
        """
        return self._vote(scan, name)[0].mean

    def _windows_stay(self, overlap: float) -> bool:
        """Whether windows that overlap by so much are those that there are, as where every image is seen whole."""
        return all(member.plan.whole for member in self.members) and all(
            starts(seen, size, overlap) == starts(seen, size, self.overlap)
            for member, seen_as in zip(self.members, self.views, strict=True)
            for view, size in itertools.product(seen_as, member.plan.size)
            if (seen := round(size * view.scale)) > size
        )

    def _whole_in_words(self) -> str:
        """Why an overlap of windows takes no effect."""
        if any(view.scale > 1 for seen_as in self.views for view in seen_as):
            return (
                "the network sees images whole, and windows of one that scale enlarges overlap by .75 or so "
                "in any case"
            )
        return "the network sees every image whole"

    def _vote(self, scan: Scan, name: str) -> tuple[_Votes, Undo]:
        """Votes on the members' grid, or on the scan's own where they see it on different ones."""
        image, undo = self.to_plan(scan)
        prepared = [_prepared(member.plan) for member in self.members]
        alike = all(plan == prepared[0] for plan in prepared)
        whole = tuple(image.shape[1:]) if alike else scan.spatial_shape
        votes = _Votes(len(self.plan.classes), whole, self.uncertainty, self.ensemble)
        total = sum(member.weight for member in self.members)
        for number, member in enumerate(self.members):
            draws = self.samples if member.draws else 1
            weight = member.weight / (draws * len(self.views[number]) * total)
            if number and prepared[number] != prepared[number - 1]:
                image, undo = self.to_plan(scan, member.plan)
            for sample in range(draws):
                generator = self._generator(name, number, sample)
                for view in self.views[number]:
                    slabs = self._slabs(member, view.of(image), generator, name)
                    probable = ((first, logits[-1].softmax(0)) for first, logits in slabs)
                    own = votes if alike else _Votes(len(self.plan.classes), image.shape[1:])
                    for first, probability in view.undo(probable, image.shape[1:]):
                        own.add(first, probability, weight if alike else 1.0)
                    if not alike:
                        votes.add_mapped(own, undo, weight)
                    votes.draws += 1
        return votes, undo if alike else Undo(whole, whole, (0,) * len(whole))

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps of the steps of ``every_step``; () if several masks vote, or the run takes no steps."""
        return self.members[0].timesteps if self.alone else ()

    @property
    def alone(self) -> bool:
        """Whether a single mask votes."""
        return len(self.members) == 1 and self.samples == 1 and len(self.views[0]) == 1

    @torch.no_grad()
    def every_step(self, scan: Scan, name: str = "") -> list[Segmented]:
        """The scan as segmented after each step of the run's sampling; the last is what a call returns."""
        image, undo = self.to_plan(scan)
        steps: list[_Votes] = []
        generator = self._generator(name, 0, 0)
        for first, logits in self._slabs(self.members[0], image, generator, name, every_step=True):
            steps = steps or [_Votes(logits.shape[1], image.shape[1:]) for _ in logits]
            for votes, step in zip(steps, logits, strict=True):
                votes.add(first, step.softmax(0), 1.0)
        return [votes.result(undo, self.plan, self.after, scan.spacing) for votes in steps]

    def to_plan(self, scan: Scan, plan: Plan | None = None) -> tuple[Tensor, Undo]:
        """The image ``(C, *S)`` that a network sees by a plan, that of the first by default, and how to undo it.

        Raises:
            InputError: The scan does not have the axes and channels of the plan.
        """
        plan = plan or self.plan
        if scan.spatial_dims != plan.spatial_dims:
            problem = f"has {scan.spatial_dims} spatial axes, the run has {plan.spatial_dims}"
            raise InputError("scan", problem, "Give films to a 2D run and volumes to a 3D run")
        image, undo = image_to_plan(scan, plan)
        if image.shape[0] != len(plan.channels):
            problem = f"has {image.shape[0]} channels, the run has {len(plan.channels)}"
            raise InputError("scan", problem, "Give the channels that the run was trained on")
        return torch.from_numpy(image), undo

    def doubts(self, scan: Scan) -> list[str]:
        """In what a scan is not as those that the runs learned from, by the names of ``records.DOUBTS``."""
        plans = [member.plan for member in self.members]
        gray = any(
            in_color(len(scan.array), scan.spatial_dims, len(plan.channels))
            and plan.colored is None
            for plan in plans
        )
        sized = any(plan.structures is None or plan.structures.unit == "mm" for plan in plans)
        found = {
            GRAYED: gray,
            NO_HU: any(not_in_hu(scan, plan) for plan in plans),
            UNSIZED: scan.spatial_dims == 3 and scan.spacing is None and sized,
        }
        return [doubt for doubt, holds in found.items() if holds]

    def _generator(self, name: str, member: int, sample: int) -> torch.Generator:
        seed = torch_seed(self.seed, zlib.crc32(name.encode()), member, sample)
        return torch.Generator().manual_seed(seed)

    def _slabs(
        self,
        member: Member,
        image: Tensor,
        generator: torch.Generator,
        name: str,
        every_step: bool = False,
    ) -> Iterator[tuple[int, Tensor]]:
        """First plane and logits ``(steps, K, planes, ...)`` of the image's parts, blended over windows.

        Raises:
            InputError: A logit is not finite.
        """

        def window(images: Tensor) -> Tensor:
            with self.autocast():
                logits = member.segment(images.to(self.device), generator, every_step)
                return (
                    verify_finite(logits, name or "scan", member.name).transpose(0, 1).flatten(1, 2)
                )

        classes = len(self.plan.classes)
        if member.plan.whole and image.shape[1:] == member.plan.size:
            yield 0, window(image[None])[0].float().cpu().unflatten(0, (-1, classes))
            return
        for first, slab in slide(image, member.plan.size, window, overlap=self.overlap):
            yield first, slab.unflatten(0, (-1, classes))


def _prepared(plan: Plan) -> dict[str, Any]:
    """What decides which image a network sees."""
    return {name: getattr(plan, name) for name in PREPARED}


def _names_of_means(classes: Sequence[str]) -> list[str]:
    """Names of the maps of foreground classes, fit for files and each of its own, whatever the classes are called."""
    wanted = [f"mean-{'-'.join(name.split())}" for name in classes[1:]]
    return unique_names(wanted, classes[1:])


class _Votes:
    """Mean probability on one grid, and of its square. Those of a volume lie on disk, not in memory."""

    def __init__(
        self,
        classes: int,
        shape: Sequence[int],
        uncertainty: bool = False,
        ensemble: Literal["probability", "vote"] = "probability",
    ) -> None:
        self.mean = zeros((classes, *shape))
        self.square = zeros((classes, *shape)) if uncertainty else None
        self.ensemble = ensemble
        self.draws = 0

    def add(self, first: int, probability: Tensor, weight: float) -> None:
        """Count a slab ``(K, planes, ...)`` that begins at plane ``first``."""
        vote = probability.numpy()
        if self.ensemble == "vote":
            classes = np.arange(len(vote)).reshape(-1, *[1] * (vote.ndim - 1))
            vote = (classes == vote.argmax(0)).astype(np.float32)
        rows = slice(first, first + vote.shape[1])
        self.mean[:, rows] += weight * vote
        if self.square is not None:
            self.square[:, rows] += weight * vote**2

    def add_mapped(self, other: _Votes, undo: Undo, weight: float) -> None:
        """Count the mean of another grid on that of the scan, one class at a time."""
        mean = torch.from_numpy(other.mean)
        mask = scores_to_scan(mean, undo)[0] if self.ensemble == "vote" else None
        for value, total in enumerate(self.mean):
            vote = map_to_scan(mean[value], undo, outside=float(value == 0))
            if mask is not None:
                vote = (mask == value).astype(np.float32)
            total += weight * vote
            if self.square is not None:
                self.square[value] += weight * vote**2

    def result(
        self, undo: Undo, plan: Plan, after: Sequence[str], spacing: Sequence[float] | None
    ) -> Segmented:
        voted, confidence = scores_to_scan(torch.from_numpy(self.mean), undo)
        mask = postprocess(voted, after, spacing)
        for value in np.unique(mask[mask != voted]):
            probable = map_to_scan(torch.from_numpy(self.mean[value]), undo, float(value == 0))
            np.copyto(confidence, probable, where=(mask == value) & (voted != value))
        if self.square is None:
            return Segmented(mask, confidence)
        maps = {
            name: map_to_scan(torch.from_numpy(mean), undo)
            for name, mean in zip(_names_of_means(plan.classes), self.mean[1:], strict=True)
        }
        maps["entropy"] = map_to_scan(torch.from_numpy(self._entropy()), undo)
        if self.draws > 1:
            maps["variance"] = map_to_scan(torch.from_numpy(self._variance()), undo)
        return Segmented(mask, confidence, maps)

    def _entropy(self) -> Array:
        """Of the mean, as a fraction of the largest; one class at a time, so that memory does not grow with them."""
        total = np.zeros(self.mean.shape[1:], np.float32)
        for mean in self.mean:
            total -= mean * np.log(np.maximum(mean, 1e-12))
        return total / np.float32(np.log(len(self.mean)))

    def _variance(self) -> Array:
        assert self.square is not None
        total = np.zeros(self.mean.shape[1:], np.float32)
        for mean, square in zip(self.mean, self.square, strict=True):
            total += np.maximum(square - mean**2, 0)
        return total / np.float32(len(self.mean))
