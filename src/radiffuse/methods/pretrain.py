"""Pre-training by denoising (Ho et al. 2020, algorithm 1; Rousseau et al. 2023 use it for radiographs).

Each step: noise a clean image to a random timestep, let the network say what the noise was.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Diffusion, Pretrain, Sample, UNetConfig, resolve_network
from ..data.batches import Batches, center_cut
from ..data.plan import Plan
from ..data.prepare import Prepared
from ..engine.device import make_fabric
from ..engine.loop import train
from ..engine.run import Run, start_run
from ..errors import InputError
from ..files import write_atomic
from ..inference.draw import draw_images
from ..nets.registry import load_network, save_network, save_weights
from ..nets.unet import UNet
from ..reports.run import write_run_report
from ..settings import to_dict
from .common import (
    VALIDATION_IMAGES,
    describe_data,
    find_pretrained,
    hold_out,
    limited,
    plan_of,
    prepare_dataset,
    read_dataset,
    verify_size,
)
from .denoising import DecoderDenoising, Denoising


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
    with start_run(settings.out, "pretrain", to_dict(settings)) as run:
        dataset = read_dataset(settings.data, settings.reader)
        dataset = limited(dataset, settings.limit, settings.training.seed)
        plan = plan_of(run, dataset, settings.plan, labelled=False)
        verify_size(plan, denoiser_config(settings, plan))
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        training_cases, held_out = hold_out(prepared, settings.training.seed)
        run.write_data(describe_data(dataset, prepared, {"validation": held_out}))
        task = make_task(settings, plan, _validation_images(prepared, held_out, plan))
        batches = Batches(
            prepared,
            batch_size=settings.training.batch_size,
            seed=settings.training.seed,
            augmentation=settings.augmentation,
            indices=training_cases,
        )
        trained = train(task, batches, run, settings.training, settings.machine)
        write_samples(
            trained.average, settings.diffusion, plan, run.folder / "samples.npy", count=16
        )
        save_weights(trained.raw, run.model / "raw.safetensors")
        save_network(trained.average, run.model)  # last: it marks the run as finished
        write_run_report(run.folder)
    return run


def make_task(settings: Pretrain, plan: Plan, held_out: Tensor | None) -> Denoising:
    """The objective that the settings name."""
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
    return Denoising(
        unet,
        settings.diffusion,
        seed=settings.training.seed,
        held_out=held_out,
        start=start,
        checkpoint_activations=settings.machine.checkpoint_activations,
    )


def denoiser_config(settings: Pretrain, plan: Plan) -> UNetConfig:
    """The denoiser for these settings: twice the output channels where the variance is learned."""
    channels = len(plan.channels)
    outputs = 2 * channels if settings.diffusion.variance == "learned" else channels
    return resolve_network(
        settings.network,
        spatial_dims=plan.spatial_dims,
        in_channels=channels,
        out_channels=outputs,
    )


def sample(settings: Sample) -> Path:
    """Draw images from a pre-trained run and write them as PNG (films) or NIfTI (volumes).

    Args:
        settings: See ``radiffuse.config.Sample``.

    Raises:
        InputError: The run is not a denoiser.
    """
    from ..data.readers import write_image
    from ..data.scan import Scan
    from ..settings import from_dict

    run = find_pretrained(settings.run)
    diffusion = from_dict(Diffusion, run.config["settings"]["diffusion"])
    fabric = make_fabric(settings.machine)
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
    network: nn.Module, diffusion: Diffusion, plan: Plan, path: Path, *, count: int
) -> None:
    """Write sample images for the report: uint8 ``(N, rows, columns)``; of volumes the middle slice."""
    import io

    steps = min(50, diffusion.num_train_timesteps)
    images = draw_images(network, diffusion, plan, count=count, steps=steps)[:, 0]
    if plan.spatial_dims == 3:
        images = images[..., images.shape[-1] // 2].transpose(0, 2, 1)[:, ::-1]
    buffer = io.BytesIO()
    np.save(buffer, ((images + 1) * 127.5).round().astype(np.uint8), allow_pickle=False)
    write_atomic(path, buffer.getvalue())


# ------------------------------------------------------------------------------------------------ internal


def _validation_images(prepared: Prepared, names: list[str], plan: Plan) -> Tensor | None:
    wanted = set(names[:VALIDATION_IMAGES])
    images = [
        center_cut(prepared.image(i), plan.size)
        for i, case in enumerate(prepared.cases)
        if case.name in wanted
    ]
    return torch.from_numpy(np.stack(images).astype(np.float32)) if images else None
