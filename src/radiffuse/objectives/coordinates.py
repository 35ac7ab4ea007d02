"""The body-part regressor: three body coordinates for every voxel, learned without labels.

Two crops of a scan, each changed in intensity on its own, go through the network apart. Differences of coordinates must
equal distances in the scan along each axis, in units of the spread of voxels (z-scored), and the same voxel must have
the same coordinates in both. [related] Anatomical Positional Embeddings, arXiv 2409.10291, compare Euclidean distances;
[ours] axis by axis, which also gives each coordinate a direction. The regressor of arXiv 2501.19265 is not described.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import UNetConfig, resolve_network
from ..data.batches import Batch
from ..data.crops import CropPairBatches, CropPairs, choose_voxels, crop_size, same_voxels, unravel
from ..data.dataset import Dataset
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..errors import InputError
from ..inference.coordinates import carried_landmarks, coordinate_map, write_coordinate_maps
from ..nets.coordinates import CoordinateRegressor
from ..system.distributed import mean_over_ranks, world_size
from ..system.files import write_atomic
from ..train.cases import read_dataset
from ..train.pretraining import Objective, Pool
from ..train.random import StepRandom
from ..train.run import Run
from ..train.task import Loss, Task

VALIDATION_PAIRS = 512
SHOWN_SCANS = 3


class Coordinates(Objective):
    """Pre-training of a body-part regressor, which then guides denoising."""

    def given_plan(self, dataset: Dataset) -> Plan | None:
        """None; refuses ``--from`` too."""
        if self.settings.from_run is not None:
            problem, remedy = "is of no use to --objective coordinates", "Leave --from out"
            raise InputError(f"--from {self.settings.from_run}", problem, remedy)
        return super().given_plan(dataset)

    def unet(self, dims: int, channels: int) -> UNetConfig:
        """The trunk of the regressor."""
        return resolve_network(
            self.settings.network, spatial_dims=dims, in_channels=channels, out_channels=dims
        )

    def batches(self, pool: Pool) -> CropPairBatches:
        """Pairs of crops, anywhere in a scan."""
        training = self.settings.training
        return self._pairs(pool, pool.training, training.batch_size, training.seed)

    def task(self, pool: Pool) -> Task:
        """The regressor, with the spread of the training scans' voxels as its unit."""
        seed, spacing = self.settings.training.seed, _spacing(pool.plan)
        network = CoordinateRegressor(
            self.config(pool), extent_deviation(pool.prepared, pool.training, spacing)
        )
        network.initialize(torch.Generator().manual_seed(seed))
        held = pool.held_out
        return CoordinateLearning(
            network,
            spacing,
            voxels=self.settings.regressor.voxels,
            agreement=self.settings.regressor.agreement,
            held_out=self._pairs(pool, held, len(held), seed + 1)(0) if held else None,
        )

    def write(self, run: Run, network: nn.Module, pool: Pool) -> None:
        """``coordinates.npz``, maps of a few scans for the report; with ``landmarks`` also ``landmarks.csv``."""
        import pandas as pd

        assert isinstance(network, CoordinateRegressor)
        prepared = pool.prepared
        shown = pool.held_out[:SHOWN_SCANS] or pool.training[:SHOWN_SCANS]
        images = [np.asarray(prepared.image(i), np.float32) for i in shown]
        maps = [
            coordinate_map(network, torch.from_numpy(i), pool.plan.size).numpy() for i in images
        ]
        names = [prepared.cases[i].name for i in shown]
        write_coordinate_maps(run.folder / "coordinates.npz", names, images, maps)
        landmarks = self.settings.regressor.landmarks
        if landmarks is None:
            return
        dataset = read_dataset(landmarks, self.settings.reader).labelled
        if len(dataset) < 2:
            raise InputError(landmarks, "holds fewer than two labelled scans", "Give more")
        rows = pd.DataFrame(carried_landmarks(network, pool.plan, dataset))
        write_atomic(run.folder / "landmarks.csv", rows.to_csv(index=False, float_format="%.6g"))

    def _pairs(
        self, pool: Pool, indices: Sequence[int], batch_size: int, seed: int
    ) -> CropPairBatches:
        multiple = 2 ** (len(self.config(pool).multipliers) - 1)
        return CropPairBatches(
            pool.prepared,
            crop_size(pool.plan, self.settings.regressor.crop, multiple),
            batch_size=batch_size,
            seed=seed,
            augmentation=self.settings.augmentation,
            indices=indices,
        )


class CoordinateLearning(Task):
    """The task: differences of coordinates are distances.

    Args:
        network: The regressor at its start.
        spacing: Length of a voxel along each axis, in the units of the network's ``scale``.
        voxels: Pairs of voxels per pair of crops and step.
        agreement: Weight of the same voxel's equality in both crops.
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
        """Smooth L1 of the differences between random voxels, and of the same voxel's two answers."""
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
        terms = {
            "loss_distance": float(distance.detach()),
            "loss_agreement": float(agreement.detach()),
        }
        return Loss(distance + self.agreement * agreement, terms)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Predicted against true distances on scans never trained on: correlation, and median error."""
        if self.held_out is None:
            return {}
        predicted, true = self.distances(network, self.held_out.to(device))
        return {
            "correlation": float(np.corrcoef(predicted, true)[0, 1]),
            "median_error": float(np.median(np.abs(predicted - true))),
        }

    @torch.no_grad()
    def distances(self, network: nn.Module, pairs: CropPairs) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and true distances, in the unit of ``spacing``, of voxel pairs at fixed places."""
        generator = torch.Generator().manual_seed(0)
        grid = pairs.images.shape[2:]
        keys = torch.rand((2, len(pairs), math.prod(grid)), generator=generator)
        scale = self.scale[None, :, None]
        found, true = [], []
        for i in range(len(pairs)):
            pair = pairs.part(i, i + 1)
            one = choose_voxels(
                pair.images, keys[0, i : i + 1].to(pair.images.device), VALIDATION_PAIRS, pair.body
            )
            other = choose_voxels(
                pair.others, keys[1, i : i + 1].to(pair.images.device), VALIDATION_PAIRS, pair.body
            )
            difference = _at(network(pair.images), one) - _at(network(pair.others), other)
            exact = self._difference(one, other, pair.places, grid)
            found.append((difference.float().cpu() * scale).norm(dim=1).flatten())
            true.append((exact.cpu() * scale).norm(dim=1).flatten())
        return torch.cat(found).numpy(), torch.cat(true).numpy()

    def _difference(
        self, one: Tensor, other: Tensor, places: Tensor, grid: Sequence[int]
    ) -> Tensor:
        """True place of ``one`` in the first crop minus that of ``other`` in the second, ``(B, dims, P)``."""
        units = (self.spacing.to(one.device) / self.scale.to(one.device))[None, :, None]
        places = places.to(one.device)
        first = unravel(one, grid) + places[:, 0, :, None]
        second = unravel(other, grid) + places[:, 1, :, None]
        return (first - second) * units


def extent_deviation(
    prepared: Prepared, indices: Sequence[int], spacing: Sequence[float]
) -> tuple[float, ...]:
    """Standard deviation of voxel places along each axis, median over scans: the unit of a coordinate."""
    shapes = np.array([prepared.image(i).shape[1:] for i in indices], float)
    extent = np.median(shapes, axis=0) * np.asarray(spacing)
    return tuple(float(v) for v in extent / math.sqrt(12))


def _spacing(plan: Plan) -> tuple[float, ...]:
    return plan.spacing or (1.0,) * plan.spatial_dims


def _at(coordinates: Tensor, indices: Tensor) -> Tensor:
    """``(B, dims, P)`` of maps ``(B, dims, *S)`` at flat indices ``(B, P)``."""
    flat = coordinates.flatten(2)
    return flat.gather(2, indices[:, None].expand(-1, flat.shape[1], -1))
