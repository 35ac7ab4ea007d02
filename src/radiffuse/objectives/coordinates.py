"""The body-part regressor: three body coordinates for every voxel, learned without labels.

Two crops of a scan are changed in intensity independently. Differences of coordinates must equal distances in the scan
along each axis, in standard deviations of voxel positions, and the same voxel must have the same coordinates in both.
[related] Anatomical Positional Embeddings, arXiv 2409.10291, compare Euclidean distances; [ours] axis by axis, which
also gives each coordinate a direction. The regressor of arXiv 2501.19265 is not described.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import UNetConfig, resolve_network
from ..data.batches import Batch
from ..data.crops import CropPairs, choose_voxels, same_voxels, unravel
from ..data.layouts import open_dataset
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..errors import InputError
from ..inference.coordinates import (
    Quality,
    RegressorErrors,
    carried_landmarks,
    coordinate_map,
    write_coordinate_maps,
    write_quality,
)
from ..nets.coordinates import CoordinateRegressor
from ..nets.registry import load_network
from ..system.cells import csv_text
from ..system.distributed import mean_over_ranks, world_size
from ..system.files import write_atomic
from ..train.pretraining import CropPairObjective, Unlabelled
from ..train.random import StepRandom
from ..train.run import Run
from ..train.task import Loss, Task

VALIDATION_PAIRS = 512
SHOWN_SCANS = 3


class Coordinates(CropPairObjective):
    """Training of a body-part regressor, which can then guide denoising."""

    def unet(self, dims: int, channels: int) -> UNetConfig:
        """The trunk of the regressor, with an input channel more for each axis of a ramp that it sees."""
        seen = channels + dims * (self.settings.regressor.ramp == "input")
        return resolve_network(
            self.settings.network, spatial_dims=dims, in_channels=seen, out_channels=dims
        )

    def crop(self, plan: Plan) -> float:
        """As the regressor's settings say."""
        return self.settings.regressor.crop

    def task(self, pool: Unlabelled) -> Task:
        """The regressor; its unit is the standard deviation of voxel positions in the training scans."""
        plan, wanted = pool.plan, self.settings.regressor
        spacing = plan.spacing or (1.0,) * plan.spatial_dims
        scale = extent_deviation(pool.prepared, pool.training, spacing)
        network = CoordinateRegressor(self.config(pool), scale, wanted.ramp, spacing)
        network.initialize(self.generator())
        return CoordinateLearning(
            network,
            spacing,
            voxels=wanted.voxels,
            agreement=wanted.agreement,
            held_out=self.validation_pairs(pool),
        )

    def write(self, run: Run, network: nn.Module, pool: Unlabelled) -> None:
        """``coordinates.npz``, ``quality.json``; with the setting ``landmarks`` also ``landmarks.csv``."""
        import pandas as pd

        assert isinstance(network, CoordinateRegressor)
        prepared = pool.prepared
        shown = pool.held_out[:SHOWN_SCANS] or pool.training[:SHOWN_SCANS]
        images = [np.asarray(prepared.image(i), np.float32) for i in shown]
        size = pool.plan.size
        maps = [coordinate_map(network, torch.from_numpy(i), size).numpy() for i in images]
        names = [prepared.cases[i].name for i in shown]
        write_coordinate_maps(run.folder / "coordinates.npz", names, images, maps)
        quality = self.quality(network, pool)
        landmarks = self.settings.regressor.landmarks
        if landmarks is None:
            write_quality(run.folder, quality)
            return
        dataset = open_dataset(landmarks, self.settings.reader).labelled
        if len(dataset) < 2:
            raise InputError(landmarks, "holds fewer than two labelled scans", "Give more")
        rows = pd.DataFrame(carried_landmarks(network, pool.plan, dataset))
        write_atomic(run.folder / "landmarks.csv", csv_text(rows, "%.6g"))
        found = None
        if len(rows):
            error, trivial = (float(rows[name].mean()) for name in ("error", "same_place"))
            found = RegressorErrors(error, trivial, len(dataset))
        write_quality(run.folder, replace(quality, landmarks=found))

    def write_missing(self, run: Run, pool: Unlabelled) -> None:
        """Landmarks, where they were not asked for before."""
        if self.settings.regressor.landmarks and not (run.folder / "landmarks.csv").is_file():
            self.write(run, load_network(run.model), pool)

    def quality(self, network: CoordinateRegressor, pool: Unlabelled) -> Quality:
        """What is known of the regressor without labels."""
        unit = "mm" if pool.plan.spacing else "px"
        if (pairs := self.validation_pairs(pool)) is None:
            return Quality(unit)
        task = CoordinateLearning(
            network, pool.plan.spacing or (1.0,) * pool.plan.spatial_dims, voxels=1, agreement=0.0
        )
        predicted, true, blind = task.differences(network, pairs)
        error, trivial = (float((v - true).norm(dim=1).median()) for v in (predicted, blind))
        return Quality(unit, RegressorErrors(error, trivial, len(pairs)))


class CoordinateLearning(Task):
    """The task: differences of coordinates are distances.

    Args:
        network: The regressor at its start.
        spacing: Length of a voxel along each axis, in the units of the network's ``scale``.
        voxels: Pairs of voxels per pair of crops and step.
        agreement: Weight of the difference between both predictions for the same voxel.
        held_out: Crop pairs for validation.
    """

    whole_batch = True  # the agreement is a mean over the voxels of all pairs together

    def __init__(
        self,
        network: CoordinateRegressor,
        spacing: Sequence[float],
        *,
        voxels: int,
        agreement: float,
        held_out: CropPairs | None = None,
    ) -> None:
        super().__init__(network)
        self.scale = network.scale.cpu()
        self.spacing = torch.tensor(list(spacing), dtype=torch.float32)
        self.voxels = voxels
        self.agreement = agreement
        self.held_out = held_out

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Smooth L1 error of differences between random voxels, and between both predictions for one voxel."""
        assert isinstance(batch, CropPairs)
        first, second = network(batch.images).float(), network(batch.others).float()
        grid = batch.images.shape[2:]
        keys = [random.uniform((math.prod(grid),)) for _ in range(2)]
        one = choose_voxels(batch.images, keys[0], self.voxels, batch.body)
        other = choose_voxels(batch.others, keys[1], self.voxels, batch.body)
        predicted = _at(first, one) - _at(second, other)
        places = batch.places.to(first.device)
        true = self._difference(one, other, places, grid)
        distance = functional.smooth_l1_loss(predicted, true, beta=0.1)
        shift = (places[:, 0] - places[:, 1]).long()
        same, inside = same_voxels(one, shift, grid)
        gap = functional.smooth_l1_loss(
            _at(first, one), _at(second, same), beta=0.1, reduction="none"
        ).mean(1)
        pairs = mean_over_ranks(inside.sum().float()).clamp(min=1 / world_size())
        agreement = (gap * inside).sum() / pairs
        both = {"loss_distance": distance, "loss_agreement": agreement}
        terms = {name: float(term.detach()) for name, term in both.items()}
        return Loss(distance + self.agreement * agreement, terms)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Correlation and median error of predicted distances on held-out scans."""
        if self.held_out is None:
            return {}
        predicted, true = self.distances(network, self.held_out.to(device))
        return {
            "correlation": float(np.corrcoef(predicted, true)[0, 1]),
            "median_error": float(np.median(np.abs(predicted - true))),
        }

    def distances(self, network: nn.Module, pairs: CropPairs) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true distances of fixed pairs of voxels, in the unit of ``spacing``."""
        predicted, true, _ = self.differences(network, pairs)
        return predicted.norm(dim=1).numpy(), true.norm(dim=1).numpy()

    @torch.no_grad()
    def differences(self, network: nn.Module, pairs: CropPairs) -> tuple[Tensor, Tensor, Tensor]:
        """Where one voxel lies from another, ``(N, dims)`` in the unit of ``spacing``, for fixed pairs of voxels.

        As predicted, as it is, and as it is expected without the image: by the places of the voxels in their crops,
        which may lie anywhere.
        """
        generator = torch.Generator().manual_seed(0)
        grid = pairs.images.shape[2:]
        keys = torch.rand((2, len(pairs), math.prod(grid)), generator=generator)
        found: list[list[Tensor]] = [[], [], []]
        for i in range(len(pairs)):
            pair = pairs.part(i, i + 1)
            one, other = (
                choose_voxels(crops, key[i : i + 1].to(crops.device), VALIDATION_PAIRS, pair.body)
                for crops, key in zip((pair.images, pair.others), keys, strict=True)
            )
            predicted = _at(network(pair.images), one) - _at(network(pair.others), other)
            true = self._difference(one, other, pair.places, grid)
            blind = self._difference(one, other, torch.zeros_like(pair.places), grid)
            for part, difference in zip(found, (predicted, true, blind), strict=True):
                part.append(difference[0].float().cpu().T * self.scale)
        return torch.cat(found[0]), torch.cat(found[1]), torch.cat(found[2])

    def _difference(
        self, one: Tensor, other: Tensor, places: Tensor, grid: Sequence[int]
    ) -> Tensor:
        """True position of ``one`` in the first crop minus that of ``other`` in the second, ``(B, dims, P)``."""
        units = (self.spacing.to(one.device) / self.scale.to(one.device))[None, :, None]
        places = places.to(one.device)
        first = unravel(one, grid) + places[:, 0, :, None]
        second = unravel(other, grid) + places[:, 1, :, None]
        return (first - second) * units


def extent_deviation(
    prepared: Prepared, indices: Sequence[int], spacing: Sequence[float]
) -> tuple[float, ...]:
    """Standard deviation of voxel positions along each axis, for the median shape of the scans."""
    shapes = np.array([prepared.image(i).shape[1:] for i in indices], float)
    extent = np.median(shapes, axis=0) * np.asarray(spacing)
    return tuple(float(v) for v in extent / math.sqrt(12))


def _at(coordinates: Tensor, indices: Tensor) -> Tensor:
    """``(B, dims, P)`` of maps ``(B, dims, *S)`` at flat indices ``(B, P)``."""
    flat = coordinates.flatten(2)
    return flat.gather(2, indices[:, None].expand(-1, flat.shape[1], -1))
