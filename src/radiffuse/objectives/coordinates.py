"""The body-part regressor: three body coordinates for every voxel, learned without labels.

Two crops of a scan, each changed in intensity on its own, go through the network apart. Differences of coordinates must
equal distances in the scan along each axis, in units of the spread of voxels (z-scored), and the same voxel must have
the same coordinates in both. [related] Anatomical Positional Embeddings, arXiv 2409.10291, compare Euclidean distances;
[ours] axis by axis, which also gives each coordinate a direction. The regressor of arXiv 2501.19265 is not described.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Coordinates, resolve_network
from ..config.values import to_dict
from ..data.batches import Batch
from ..data.crops import CropPairBatches, CropPairs, choose_voxels, crop_size, same_voxels, unravel
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..errors import InputError
from ..inference.coordinates import coordinate_map
from ..inference.landmarks import carried_landmarks
from ..nets.coordinates import CoordinateRegressor
from ..nets.registry import save_network
from ..reports.coordinates import write_coordinate_maps
from ..reports.run import write_run_report
from ..system.distributed import mean_over_ranks, world_size
from ..system.files import write_atomic
from ..train.cases import describe_data, hold_out, limited, plan_of, prepare_dataset, read_dataset
from ..train.loop import train
from ..train.random import StepRandom
from ..train.run import Run, start_run
from ..train.start import verify_size
from ..train.task import Loss

VALIDATION_PAIRS = 512
SHOWN_SCANS = 3


class CoordinateLearning:
    """The task: differences of coordinates are distances.

    Args:
        network: The regressor at its start.
        spacing: Length of a voxel along each axis, in the units of the network's ``scale``.
        voxels: Pairs of voxels per pair of crops and step.
        agreement: Weight of the same voxel's equality in both crops.
        held_out: Crop pairs for validation.
    """

    name = "coordinates"
    whole_batch = True
    """The agreement is a mean over the voxels of all pairs together."""

    def __init__(
        self,
        network: CoordinateRegressor,
        spacing: Sequence[float],
        *,
        voxels: int,
        agreement: float,
        held_out: CropPairs | None = None,
    ) -> None:
        self.network = network
        self.spacing = torch.tensor(list(spacing), dtype=torch.float32)
        self.voxels = voxels
        self.agreement = agreement
        self.held_out = held_out

    def build(self) -> nn.Module:
        """The regressor at its start."""
        return self.network

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
        scale = self.network.scale.cpu()[None, :, None]
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

    def state_dict(self) -> dict[str, Tensor]:
        """The task learns nothing beside its network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""

    def _difference(
        self, one: Tensor, other: Tensor, places: Tensor, grid: Sequence[int]
    ) -> Tensor:
        """True place of ``one`` in the first crop minus that of ``other`` in the second, ``(B, dims, P)``."""
        units = (self.spacing.to(one.device) / self.network.scale.to(one.device))[None, :, None]
        places = places.to(one.device)
        first = unravel(one, grid) + places[:, 0, :, None]
        second = unravel(other, grid) + places[:, 1, :, None]
        return (first - second) * units


def coordinates(settings: Coordinates) -> Run:
    """Train a body-part regressor on unlabelled scans.

    Args:
        settings: See ``radiffuse.config.Coordinates``.

    Returns:
        The run: its model is the regressor with averaged weights.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    with start_run(
        settings.out, "coordinates", to_dict(settings), settings.machine, to_dict(type(settings)())
    ) as run:
        seed = settings.training.seed
        dataset = limited(read_dataset(settings.data, settings.reader), settings.limit, seed)
        plan = plan_of(run, dataset, settings.plan, labelled=False)
        unet = resolve_network(
            settings.network,
            spatial_dims=plan.spatial_dims,
            in_channels=len(plan.channels),
            out_channels=plan.spatial_dims,
        )
        verify_size(plan, unet)
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        training, held = hold_out(prepared, seed)
        run.write_data(describe_data(dataset, prepared, {"validation": held}))
        spacing = plan.spacing or (1.0,) * plan.spatial_dims
        network = CoordinateRegressor(unet, spread(prepared, training, spacing))
        network.initialize(torch.Generator().manual_seed(seed))
        size = crop_size(plan, settings.crop, 2 ** (len(unet.multipliers) - 1))
        batches = CropPairBatches(
            prepared,
            size,
            batch_size=settings.training.batch_size,
            seed=seed,
            augmentation=settings.augmentation,
            indices=training,
        )
        places = [i for i, case in enumerate(prepared.cases) if case.name in set(held)]
        task = CoordinateLearning(
            network,
            spacing,
            voxels=settings.voxels,
            agreement=settings.agreement,
            held_out=_validation(prepared, size, places, settings),
        )
        trained = train(task, batches, run, settings.training, settings.machine)
        if not run.main:
            return run
        average = trained.average
        assert isinstance(average, CoordinateRegressor)
        shown = places[:SHOWN_SCANS] or training[:SHOWN_SCANS]
        images = [np.asarray(prepared.image(i), np.float32) for i in shown]
        maps = [coordinate_map(average, torch.from_numpy(i), plan.size).numpy() for i in images]
        names = [prepared.cases[i].name for i in shown]
        write_coordinate_maps(run.folder / "coordinates.npz", names, images, maps)
        if settings.landmarks:
            _write_landmarks(run, average, plan, settings)
        save_network(average, run.model)
        write_run_report(run.folder)
    return run


def spread(
    prepared: Prepared, indices: Sequence[int], spacing: Sequence[float]
) -> tuple[float, ...]:
    """Standard deviation of voxel places along each axis, median over scans: the unit of a coordinate."""
    shapes = np.array([prepared.image(i).shape[1:] for i in indices], float)
    extent = np.median(shapes, axis=0) * np.asarray(spacing)
    return tuple(float(v) for v in extent / math.sqrt(12))


# ------------------------------------------------------------------------------------------------ internal


def _write_landmarks(
    run: Run, regressor: CoordinateRegressor, plan: Plan, settings: Coordinates
) -> None:
    import pandas as pd

    assert settings.landmarks is not None
    dataset = read_dataset(settings.landmarks, settings.reader).labelled
    if len(dataset) < 2:
        raise InputError(settings.landmarks, "holds fewer than two labelled scans", "Give more")
    rows = pd.DataFrame(carried_landmarks(regressor, plan, dataset))
    write_atomic(run.folder / "landmarks.csv", rows.to_csv(index=False, float_format="%.6g"))


def _validation(
    prepared: Prepared, size: tuple[int, ...], places: list[int], settings: Coordinates
) -> CropPairs | None:
    if not places:
        return None
    pairs = CropPairBatches(
        prepared,
        size,
        batch_size=len(places),
        seed=settings.training.seed + 1,
        augmentation=settings.augmentation,
        indices=places,
    )
    return pairs(0)


def _at(coordinates: Tensor, indices: Tensor) -> Tensor:
    """``(B, dims, P)`` of maps ``(B, dims, *S)`` at flat indices ``(B, P)``."""
    flat = coordinates.flatten(2)
    return flat.gather(2, indices[:, None].expand(-1, flat.shape[1], -1))
