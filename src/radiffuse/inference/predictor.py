"""Trained segmentation runs, ready to segment scans: to the plan's grid, votes, back to the scan's own grid."""

from __future__ import annotations

import math
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..config import Machine
from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..data.transform import Undo, image_to_plan, map_to_scan, scores_of_scan, scores_to_scan
from ..errors import InputError
from ..system.files import reserve
from ..train.device import local_fabric
from ..train.run import Run
from .members import Member, Overrides, open_member, verify_agreement
from .postprocess import postprocess
from .windows import slide


@dataclass(frozen=True)
class Segmented:
    """A segmented scan on the scan's own grid.

    Attributes:
        mask: uint8 ``(*spatial)``, values by ``Plan.classes``.
        confidence: float32 ``(*spatial)``, probability of the winning class, 0 to 1.
        maps: float32 ``(*spatial)`` maps of uncertainty by name, if requested: ``mean-CLASS``, the mean probability of
            each foreground class; ``entropy`` of the mean, as a fraction of the largest possible, 0 to 1; ``variance``
            of the probability over samples and runs, mean over classes, if there are at least two.
    """

    mask: Array
    confidence: Array
    maps: Mapping[str, Array] = field(default_factory=dict)


class Predictor:
    """Segments scans with one run, or with several that vote.

    Args:
        members: The runs; they must agree, see ``verify_agreement``.
        device: Where to compute.
        autocast: Context manager for the arithmetic.
        overlap: 3D: fraction by which windows overlap.
        samples: Masks sampled per scan from each member that draws.
        ensemble: ``probability``: mean probability; ``vote``: majority. Every member has the same weight.
        uncertainty: Make the maps of ``Segmented``.
        seed: Seed of the noise, together with the name of the scan.

    Raises:
        InputError: The members do not agree.
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
        uncertainty: bool = False,
        seed: int = 0,
    ) -> None:
        verify_agreement(list(members))
        self.members = tuple(members)
        self.device, self.autocast, self.overlap = device, autocast, overlap
        self.samples, self.ensemble = samples, ensemble
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
            InputError: The runs do not agree.
        """
        fabric = local_fabric(machine)
        members = [open_member(run, machine, fabric.device, overrides) for run in runs]
        return cls(members, fabric.device, fabric.autocast, **options)

    @property
    def plan(self) -> Plan:
        """How scans are prepared, and the classes."""
        return self.members[0].plan

    @torch.no_grad()
    def __call__(self, scan: Scan, name: str = "") -> Segmented:
        """Segment one scan ``(C, *spatial)``, whose name and the seed determine the noise, whatever else is segmented.

        Raises:
            InputError: The scan does not have the axes and channels of the plan.
        """
        votes, undo = self._vote(scan, name)
        return votes.result(undo, self.plan)

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

    def _vote(self, scan: Scan, name: str) -> tuple[_Votes, Undo]:
        image, undo = self._image(scan)
        votes = _Votes(len(self.plan.classes), image.shape[1:], self.uncertainty, self.ensemble)
        for number, member in enumerate(self.members):
            draws = self.samples if member.draws else 1
            for sample in range(draws):
                generator = self._generator(name, number, sample)
                for first, logits in self._slabs(member, image, generator):
                    votes.add(first, logits[-1].softmax(0), 1 / (draws * len(self.members)))
                votes.draws += 1
        return votes, undo

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Timesteps of the steps of ``every_step``; () if several masks vote, or the run takes no steps."""
        alone = len(self.members) == 1 and self.samples == 1
        return self.members[0].timesteps if alone else ()

    @torch.no_grad()
    def every_step(self, scan: Scan, name: str = "") -> list[Segmented]:
        """The scan as segmented after each step of the run's sampling; the last is what a call returns."""
        image, undo = self._image(scan)
        steps: list[_Votes] = []
        generator = self._generator(name, 0, 0)
        for first, logits in self._slabs(self.members[0], image, generator, every_step=True):
            steps = steps or [_Votes(logits.shape[1], image.shape[1:]) for _ in logits]
            for votes, step in zip(steps, logits, strict=True):
                votes.add(first, step.softmax(0), 1.0)
        return [votes.result(undo, self.plan) for votes in steps]

    def _image(self, scan: Scan) -> tuple[Tensor, Undo]:
        plan = self.plan
        if scan.spatial_dims != plan.spatial_dims:
            problem = f"has {scan.spatial_dims} spatial axes, the run has {plan.spatial_dims}"
            raise InputError("scan", problem, "Give films to a 2D run and volumes to a 3D run")
        image, undo = image_to_plan(scan, plan)
        if image.shape[0] != len(plan.channels):
            problem = f"has {image.shape[0]} channels, the run has {len(plan.channels)}"
            raise InputError("scan", problem, "Give the channels that the run was trained on")
        return torch.from_numpy(image), undo

    def _generator(self, name: str, member: int, sample: int) -> torch.Generator:
        words = (self.seed, zlib.crc32(name.encode()), member, sample)
        entropy = np.random.SeedSequence(words).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(entropy[0]) << 31 ^ int(entropy[1]))

    def _slabs(
        self, member: Member, image: Tensor, generator: torch.Generator, every_step: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """First plane and logits ``(steps, K, planes, ...)`` of the image's parts, blended over windows."""

        def window(images: Tensor) -> Tensor:
            with self.autocast():
                logits = member.segment(images.to(self.device), generator, every_step)
                return logits.transpose(0, 1).flatten(1, 2)

        classes = len(self.plan.classes)
        if self.plan.spatial_dims == 2:
            yield 0, window(image[None])[0].float().cpu().unflatten(0, (-1, classes))
            return
        for first, slab in slide(image, self.plan.size, window, overlap=self.overlap):
            yield first, slab.unflatten(0, (-1, classes))


class _Votes:
    """Mean probability on the plan's grid, and of its square. Those of a volume lie on disk, not in memory."""

    def __init__(
        self,
        classes: int,
        shape: Sequence[int],
        uncertainty: bool = False,
        ensemble: Literal["probability", "vote"] = "probability",
    ) -> None:
        self.mean = _store((classes, *shape))
        self.square = _store((classes, *shape)) if uncertainty else None
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

    def result(self, undo: Undo, plan: Plan) -> Segmented:
        mask, confidence = scores_to_scan(torch.from_numpy(self.mean), undo)
        mask = postprocess(mask, plan.postprocess)
        if self.square is None:
            return Segmented(mask, confidence)
        maps = {
            f"mean-{'-'.join(name.split())}": map_to_scan(torch.from_numpy(self.mean[i]), undo)
            for i, name in enumerate(plan.classes)
            if i > 0
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


def _store(shape: Sequence[int]) -> Array:
    """Zeros: in memory for a film, in an unnamed file for a volume."""
    if len(shape) == 3:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        reserve(file, Path(tempfile.gettempdir()), 4 * math.prod(shape))
        return np.memmap(file, np.float32, "r+", shape=tuple(shape))
