"""Train a synthesizer: a DINO encoder, a KL autoencoder, and a latent diffusion model conditioned on embeddings.

DiNO-Diffusion (Jimenez-Perez et al. 2024, arXiv 2407.11594). Each of the three stages is a run that resumes; the first
two lie inside the run folder, and are left out where an encoder or autoencoder is given.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Synthesize
from ..config.values import to_dict
from ..data.batches import Batches
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..data.prepared import Prepared
from ..data.scan import Array
from ..errors import InputError
from ..reports.run import write_run_report
from ..synthesis.autoencoding import SCALE_IMAGES, Autoencoding, estimate_scale
from ..synthesis.densities import Density, fit_density
from ..synthesis.dino import DinoLearning
from ..synthesis.embedding import by_class, embed, encode
from ..synthesis.encoder import DinoNetwork, Encoder, load_encoder, save_encoder, trained_encoder
from ..synthesis.features import LatentBatch, LatentBatches
from ..synthesis.hub import forget_paths
from ..synthesis.latent import draw_latents
from ..synthesis.latent_denoising import LatentDenoising
from ..synthesis.networks import (
    Autoencoder,
    ConditionalDenoiser,
    build_denoiser,
    center_context,
    load_autoencoder,
    start_denoiser,
)
from ..synthesis.pipeline import Synthesizer, save_synthesizer
from ..synthesis.views import ViewBatches
from ..system.distributed import wait_for_main
from ..system.files import whole_folder, write_atomic
from ..train.cases import (
    VALIDATION_IMAGES,
    describe_data,
    hold_out,
    limited,
    plan_of,
    prepare_dataset,
    read_dataset,
)
from ..train.device import local_fabric
from ..train.loop import train
from ..train.run import Run, start_run

SAMPLES = 32
SAMPLE_GUIDANCE = 1.5
FEWEST_OF_A_CLASS = 2


def synthesize(settings: Synthesize) -> Run:
    """Train a synthesizer on images without annotations.

    Args:
        settings: See ``radiffuse.config.Synthesize``.

    Returns:
        The run: its model is a pipeline of diffusers with averaged weights, and the encoder.

    Raises:
        InputError: Data, settings or given networks that cannot be used.
        TrainingDiverged: The loss of a stage is not finite.
    """
    if settings.machine.strategy == "fsdp":
        raise InputError(
            "--machine.strategy fsdp",
            "does not fit a synthesizer, whose stages use their networks in more ways than one pass",
            "Use ddp",
        )
    with start_run(
        settings.out, "synthesize", to_dict(settings), settings.machine, to_dict(type(settings)())
    ) as run:
        seed = settings.training.seed
        dataset = limited(read_dataset(settings.data, settings.reader), settings.limit, seed)
        plan = plan_of(run, dataset, settings.plan, labelled=False)
        if plan.spatial_dims != 2:
            raise InputError(dataset.root, "holds volumes", "Synthesis works on films")
        if len(plan.channels) != 1:
            raise InputError(
                dataset.root,
                f"has {len(plan.channels)} channels",
                "Synthesis works on films of one channel; colors in one file are turned to gray",
            )
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        training, held = hold_out(prepared, seed)
        run.write_data(describe_data(dataset, prepared, {"validation": held}))
        wanted = set(held[:VALIDATION_IMAGES])
        validation = [i for i, case in enumerate(prepared.cases) if case.name in wanted]
        encoder = _encoder(settings, run, prepared, training, validation)
        autoencoder = _autoencoder(settings, run, prepared, training, validation)
        _verify_size(plan, autoencoder)
        cache = cache_folder(settings.reader.cache)
        embeddings = embed(prepared, encoder, settings.machine, cache)
        latents = encode(prepared, autoencoder, settings.machine, cache)
        names = [case.name for case in prepared.cases]
        batches = LatentBatches(
            latents,
            embeddings,
            names,
            batch_size=settings.training.batch_size,
            seed=seed,
            indices=training,
        )
        known = torch.from_numpy(np.asarray(embeddings[training], np.float32))

        def build() -> nn.Module:
            return _denoiser(settings, plan, autoencoder, known)

        task = LatentDenoising(
            build,
            settings.diffusion,
            null=settings.null,
            held_out=_held_out(latents, embeddings, names, validation),
        )
        average = train(task, batches, run, settings.training, settings.machine).average
        if not run.main:
            return run
        assert isinstance(average, ConditionalDenoiser)
        rows = by_class(prepared, training)
        synthesizer = Synthesizer(
            average,
            autoencoder,
            encoder,
            settings.diffusion,
            _densities(embeddings, rows),
            {name: len(indices) for name, indices in rows.items()},
        )
        shown = torch.from_numpy(
            np.asarray(embeddings[(validation or training)[:SAMPLES]], np.float32)
        )
        _write_samples(synthesizer, shown, plan, settings, run.folder / "samples.npy")
        save_synthesizer(synthesizer, run.model)
        write_run_report(run.folder)
    return run


# ------------------------------------------------------------------------------------------------ internal


def _encoder(
    settings: Synthesize,
    run: Run,
    prepared: Prepared,
    training: Sequence[int],
    validation: Sequence[int],
) -> Encoder:
    """The given encoder, or a small DINO trained on the images."""
    if settings.encoder is not None:
        return load_encoder(settings.encoder)
    stage = Run(run.folder / "encoder")
    if stage.finished:
        return load_encoder(str(stage.model))
    dino = settings.dino
    if len(training) < dino.training.batch_size:
        raise InputError(
            settings.data,
            f"leaves {len(training)} images to train on, fewer than the encoder's batch of "
            f"{dino.training.batch_size}",
            "Give more images, or lower --dino.training.batch_size",
        )
    size = max(prepared.plan.size)

    def views(indices: Sequence[int], batch_size: int, seed: int) -> ViewBatches:
        return ViewBatches(
            prepared,
            size,
            local_crops=dino.local_crops,
            global_scale=dino.global_scale,
            local_scale=dino.local_scale,
            batch_size=batch_size,
            seed=seed,
            augmentation=dino.augmentation,
            indices=indices,
        )

    held_out = views(validation, len(validation), dino.training.seed + 1)(0) if validation else None
    task = DinoLearning(dino, size, len(prepared.plan.channels), held_out)
    batches = views(training, dino.training.batch_size, dino.training.seed)
    raw = train(task, batches, stage, dino.training, settings.machine).raw
    assert isinstance(raw, DinoNetwork)
    if stage.main:
        save_encoder(trained_encoder(raw), stage.model)
        write_run_report(stage.folder)
    wait_for_main()
    return load_encoder(str(stage.model))


def _autoencoder(
    settings: Synthesize,
    run: Run,
    prepared: Prepared,
    training: Sequence[int],
    validation: Sequence[int],
) -> Autoencoder:
    """The given autoencoder, that of the start, or a small one trained on the images."""
    channels = len(prepared.plan.channels)
    if settings.autoencoder is not None:
        return load_autoencoder(settings.autoencoder, channels)
    if settings.from_run is not None:
        return load_autoencoder(settings.from_run, channels, "--from")
    stage = Run(run.folder / "autoencoder")
    if stage.finished:
        return load_autoencoder(str(stage.model), channels)
    vae = settings.vae
    factor = 2 ** (len(vae.channels) - 1)
    if any(n % factor for n in prepared.plan.size):
        raise InputError(
            f"size {'x'.join(map(str, prepared.plan.size))}",
            f"the autoencoder needs a multiple of {factor} along each axis",
            "Set --size accordingly, or fewer --vae.channels",
        )
    task = Autoencoding(vae, max(prepared.plan.size), channels, _films(prepared, validation))
    batches = Batches(
        prepared,
        batch_size=vae.training.batch_size,
        seed=vae.training.seed,
        augmentation=vae.augmentation,
        indices=training,
    )
    network = train(task, batches, stage, vae.training, settings.machine).average
    assert isinstance(network, Autoencoder)
    if stage.main:
        films = _films(prepared, training[:SCALE_IMAGES])
        assert films is not None
        network.vae.register_to_config(scaling_factor=estimate_scale(network, films))
        with whole_folder(stage.model) as partial:
            network.vae.save_pretrained(partial)
            forget_paths(partial)
        write_run_report(stage.folder)
    wait_for_main()
    return load_autoencoder(str(stage.model), channels)


def _denoiser(
    settings: Synthesize, plan: Plan, autoencoder: Autoencoder, embeddings: Tensor
) -> ConditionalDenoiser:
    """The denoiser at its start."""
    width, channels = embeddings.shape[1], autoencoder.latent_channels
    if settings.from_run is not None:
        denoiser = start_denoiser(settings.from_run, latent_channels=channels, width=width)
    else:
        size = max(plan.size) // autoencoder.factor
        denoiser = build_denoiser(
            settings.denoiser, latent_channels=channels, size=size, width=width
        )
    center_context(denoiser, embeddings)
    if settings.machine.checkpoint_activations:
        denoiser.unet.enable_gradient_checkpointing()
    return denoiser


def _verify_size(plan: Plan, autoencoder: Autoencoder) -> None:
    if any(n % autoencoder.factor or n % 8 for n in plan.size):
        raise InputError(
            f"size {'x'.join(map(str, plan.size))}",
            f"is no multiple of {max(8, autoencoder.factor)}",
            "Set --size accordingly: latents are cut to it, and diffusers draws multiples of 8",
        )


def _films(prepared: Prepared, indices: Sequence[int]) -> Tensor | None:
    if not indices:
        return None
    return torch.from_numpy(np.stack([np.asarray(prepared.image(i), np.float32) for i in indices]))


def _held_out(
    latents: Array, embeddings: Array, names: Sequence[str], indices: Sequence[int]
) -> LatentBatch | None:
    if not indices:
        return None
    rows = list(indices)
    found = (torch.from_numpy(np.asarray(a[rows], np.float32)) for a in (latents, embeddings))
    return LatentBatch(next(found), None, tuple(names[i] for i in rows), next(found))


def _densities(embeddings: Array, rows: Mapping[str, list[int]]) -> dict[str, Density]:
    """A density of the embeddings of each class that has two or more."""
    return {
        name: fit_density(torch.from_numpy(np.asarray(embeddings[indices], np.float32)))
        for name, indices in rows.items()
        if len(indices) >= FEWEST_OF_A_CLASS
    }


def _write_samples(
    synthesizer: Synthesizer, embeddings: Tensor, plan: Plan, settings: Synthesize, path: Path
) -> None:
    """Images for the report, of embeddings of films that were not trained on: uint8 ``(N, rows, columns)``."""
    device = local_fabric(settings.machine).device
    factor = synthesizer.autoencoder.factor
    grid = tuple(n // factor for n in plan.size)
    noise = torch.randn(
        (len(embeddings), synthesizer.autoencoder.latent_channels, *grid),
        generator=torch.Generator().manual_seed(0),
    )
    synthesizer.to(device)
    latents = draw_latents(
        synthesizer,
        embeddings.to(device),
        noise.to(device),
        steps=min(50, settings.diffusion.num_train_timesteps),
        guidance=SAMPLE_GUIDANCE,
    )
    images = synthesizer.autoencoder.decode(latents)[:, 0].cpu().numpy()
    synthesizer.to(torch.device("cpu"))
    buffer = io.BytesIO()
    np.save(buffer, ((images + 1) * 127.5).round().astype(np.uint8), allow_pickle=False)
    write_atomic(path, buffer.getvalue())
