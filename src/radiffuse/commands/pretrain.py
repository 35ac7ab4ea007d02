"""Pre-training by denoising (Ho et al. 2020, algorithm 1; Rousseau et al. 2023 use it for radiographs), and its rivals.

Each step: noise a clean image to a random timestep, let the network say what the noise was. The rivals train the same
network on other tasks: one noise level (DDeP), restoring corrupted images, telling voxels apart.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Diffusion, Pretrain, Sample, UNetConfig, resolve_network
from ..config.values import to_dict
from ..data.batches import Batches, center_cut
from ..data.crops import CropPairBatches, CropPairs, crop_size
from ..data.dataset import Dataset
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..errors import InputError
from ..inference.draw import draw_images
from ..nets.coordinates import CoordinateRegressor
from ..nets.embedder import VoxelEmbedder
from ..nets.guided import GuidedUNet
from ..nets.registry import load_network, save_network, save_weights
from ..nets.unet import UNet
from ..objectives.contrastive import VoxelContrast
from ..objectives.denoising import DecoderDenoising, Denoising
from ..objectives.restorative import Restoring
from ..reports.run import write_run_report
from ..system.files import sweep, write_atomic
from ..train.cases import (
    VALIDATION_IMAGES,
    describe_data,
    described_more,
    hold_out,
    limited,
    plan_of,
    prepare_dataset,
    read_dataset,
    with_more,
)
from ..train.device import local_fabric
from ..train.loop import train
from ..train.run import Run, start_run
from ..train.start import find_pretrained, verify_size
from ..train.task import Task


def pretrain(settings: Pretrain) -> Run:
    """Pre-train a denoising network on unlabelled images.

    Args:
        settings: See ``radiffuse.config.Pretrain``.

    Returns:
        The run: its model is the denoiser with averaged weights, ``model/raw.safetensors`` the last step's.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    with start_run(
        settings.out, "pretrain", to_dict(settings), settings.machine, to_dict(type(settings)())
    ) as run:
        dataset = read_dataset(settings.data, settings.reader)
        dataset = limited(dataset, settings.limit, settings.training.seed)
        own = {case.name for case in dataset}
        dataset = with_more(dataset, settings.with_run, settings.reader)
        where = _regressor(settings, dataset)
        if where and not (run.folder / "plan.json").exists():
            write_atomic(run.folder / "plan.json", where[1].to_json())
        plan = plan_of(run, dataset, settings.plan, labelled=False)
        verify_size(plan, denoiser_config(settings, plan))
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        training_cases, held_out = hold_out(prepared, settings.training.seed, own)
        described = describe_data(dataset, prepared, {"validation": held_out})
        run.write_data(described | described_more(settings.with_run, prepared, own))
        validation = _validation_images(prepared, held_out, plan)
        batches, pairs = _batches(settings, prepared, plan, training_cases, held_out)
        task = make_task(settings, plan, validation, where[0] if where else None, pairs)
        trained = train(task, batches, run, settings.training, settings.machine)
        if not run.main:
            return run
        average, raw = _trunk(trained.average), _trunk(trained.raw)
        if settings.objective in ("ddpm", "ddep"):
            path = run.folder / "samples.npy"
            write_samples(average, settings.diffusion, plan, path, references=validation)
        save_weights(raw, run.model / "raw.safetensors")
        save_network(average, run.model)  # last: it marks the run as finished
        write_run_report(run.folder)
    return run


def make_task(
    settings: Pretrain,
    plan: Plan,
    held_out: Tensor | None,
    regressor: CoordinateRegressor | None = None,
    pairs: CropPairs | None = None,
) -> Task:
    """The objective that the settings name.

    Args:
        settings: The settings.
        plan: How images are treated.
        held_out: Images for validation.
        regressor: What guides denoising.
        pairs: Crop pairs for the validation of the contrastive objective.
    """
    unet = denoiser_config(settings, plan)
    source = find_pretrained(settings.from_run) if settings.from_run else None
    start = load_network(source.model) if source else None
    if start is not None and (not isinstance(start, UNet) or start.config != unet):
        raise InputError(
            str(settings.from_run),
            "holds another network than the settings ask for",
            "Give a pre-trained run of the same --network settings",
        )
    if settings.objective == "ddep":
        return DecoderDenoising(
            unet,
            settings.diffusion,
            sigma=settings.sigma,
            encoder=start,
            seed=settings.training.seed,
            held_out=held_out,
        )
    if settings.objective == "contrastive":
        return VoxelContrast(
            unet, settings.contrast, seed=settings.training.seed, held_out=pairs, start=start
        )
    if settings.objective == "restorative":
        return Restoring(
            unet,
            seed=settings.training.seed,
            held_out=held_out,
            start=start,
            checkpoint_activations=settings.machine.checkpoint_activations,
        )
    return Denoising(
        unet,
        settings.diffusion,
        seed=settings.training.seed,
        held_out=held_out,
        start=start,
        checkpoint_activations=settings.machine.checkpoint_activations,
        regressor=regressor,
    )


def denoiser_config(settings: Pretrain, plan: Plan) -> UNetConfig:
    """The denoiser for these settings.

    It has twice the output channels where the variance is learned, and an input channel for each coordinate where it is
    guided.
    """
    channels = len(plan.channels)
    coordinates = plan.spatial_dims if settings.coordinates else 0
    learned = settings.diffusion.variance == "learned" and settings.objective in ("ddpm", "ddep")
    outputs = 2 * channels if learned else channels
    return resolve_network(
        settings.network,
        spatial_dims=plan.spatial_dims,
        in_channels=channels + coordinates,
        out_channels=outputs,
    )


def sample(settings: Sample) -> Path:
    """Draw images from a pre-trained run and write them as PNG (films) or NIfTI (volumes).

    Args:
        settings: See ``radiffuse.config.Sample``.

    Raises:
        InputError: The run is not a denoiser.
    """
    from ..config.values import from_dict
    from ..data.readers import write_image
    from ..data.scan import Scan

    run = find_pretrained(settings.run)
    diffusion = from_dict(Diffusion, run.config["settings"]["diffusion"])
    fabric = local_fabric(settings.machine)
    network = load_network(run.model).to(fabric.device)
    if not isinstance(network, UNet):
        raise InputError(run.folder, "is not a denoiser", "Give a run of radiffuse pretrain")
    images = draw_images(
        network,
        diffusion,
        run.plan,
        count=settings.count,
        steps=settings.steps,
        sampler=settings.sampler,
        seed=settings.seed,
    )
    out = Path(settings.out)
    sweep(out)
    out.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        if run.plan.spatial_dims == 2:
            film = ((image[0] + 1) * 127.5).round().astype(np.uint8)
            write_image(out / f"sample-{i:05d}.png", film, Scan(film[None]))
        else:
            spacing = run.plan.spacing or (1.0, 1.0, 1.0)
            low, high = run.plan.low, run.plan.high
            volume = ((image[0] + 1) / 2 * (high - low) + low).astype(np.float32)
            affine = np.diag([*spacing, 1.0])
            write_image(out / f"sample-{i:05d}.nii.gz", volume, Scan(volume[None], spacing, affine))
    return out


def write_samples(
    network: nn.Module, diffusion: Diffusion, plan: Plan, path: Path, *, references: Tensor | None
) -> None:
    """Write sample images for the report: uint8 ``(N, rows, columns)``; of volumes the middle slice.

    A guided network draws them at the coordinates of the reference images; without any there are no samples.
    """
    import io

    guided = isinstance(network, GuidedUNet)
    if guided and references is None:
        return
    count = 16 if not guided or references is None else min(16, len(references))

    steps = min(50, diffusion.num_train_timesteps)
    images = draw_images(network, diffusion, plan, count=count, steps=steps, references=references)[
        :, 0
    ]
    if plan.spatial_dims == 3:
        images = images[..., images.shape[-1] // 2].transpose(0, 2, 1)[:, ::-1]
    buffer = io.BytesIO()
    np.save(buffer, ((images + 1) * 127.5).round().astype(np.uint8), allow_pickle=False)
    write_atomic(path, buffer.getvalue())


# ------------------------------------------------------------------------------------------------ internal


def _regressor(settings: Pretrain, dataset: Dataset) -> tuple[CoordinateRegressor, Plan] | None:
    """The frozen regressor that guides, and the plan it sees scans by.

    Raises:
        InputError: The run is none of radiffuse coordinates, or does not fit the data.
    """
    if settings.coordinates is None:
        return None
    if settings.objective != "ddpm":
        raise InputError(
            f"--objective {settings.objective}", "is not guided", "Leave --coordinates out"
        )
    run = find_pretrained(settings.coordinates)
    regressor = load_network(run.model)
    if not isinstance(regressor, CoordinateRegressor):
        raise InputError(
            run.folder, "gives no body coordinates", "Give a run of radiffuse coordinates"
        )
    if len(run.plan.channels) != len(dataset.channels):
        raise InputError(
            dataset.root,
            f"has {len(dataset.channels)} channels, {run.folder} was trained on "
            f"{len(run.plan.channels)}",
            "Train the coordinates on images of the same channels",
        )
    return regressor, run.plan


def _batches(
    settings: Pretrain, prepared: Prepared, plan: Plan, training: list[int], held: list[str]
) -> tuple[Batches | CropPairBatches, CropPairs | None]:
    """What is trained on; for the contrastive objective pairs of crops, and such of the held-out scans."""
    seed = settings.training.seed
    if settings.objective != "contrastive":
        images = Batches(
            prepared,
            batch_size=settings.training.batch_size,
            seed=seed,
            augmentation=settings.augmentation,
            indices=training,
        )
        return images, None
    share = settings.contrast.crop if plan.spatial_dims == 2 else 1.0
    levels = len(denoiser_config(settings, plan).multipliers)
    make = functools.partial(
        CropPairBatches,
        prepared,
        crop_size(plan, share, 2 ** (levels - 1)),
        augmentation=settings.contrast.views,
        nearby=True,
    )
    places = [i for i, case in enumerate(prepared.cases) if case.name in set(held)]
    pairs = make(batch_size=len(places), seed=seed + 1, indices=places)(0) if places else None
    return make(batch_size=settings.training.batch_size, seed=seed, indices=training), pairs


def _trunk(network: nn.Module) -> nn.Module:
    """What is kept of a pre-trained network: all but the contrastive projector."""
    return network.unet if isinstance(network, VoxelEmbedder) else network


def _validation_images(prepared: Prepared, names: list[str], plan: Plan) -> Tensor | None:
    wanted = set(names[:VALIDATION_IMAGES])
    images = [
        center_cut(prepared.image(i), plan.size)
        for i, case in enumerate(prepared.cases)
        if case.name in wanted
    ]
    return torch.from_numpy(np.stack(images).astype(np.float32)) if images else None
