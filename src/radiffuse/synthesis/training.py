"""The stages of a synthesizer: a DINO encoder, an autoencoder, then the denoiser of latents with embeddings.

The first two are runs of their own inside the run folder, resumed like any other, and skipped if a network is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Synthesize
from ..data.arrays import write_arrays
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..data.scan import Array
from ..errors import InputError
from ..nets.encoder import Encoder, encoder_folder, load_encoder, save_encoder
from ..nets.hub import forget_paths
from ..system.distributed import wait_for_main
from ..system.files import whole_folder
from ..train.act import Act
from ..train.cases import (
    VALIDATION_IMAGES,
    describe_data,
    hold_out,
    limited,
    plan_of,
    prepare_dataset,
)
from ..train.device import local_device
from ..train.loop import Trained, train
from ..train.open_settings import decided
from ..train.pretraining import Unlabelled
from ..train.run import Run
from ..train.start import verify_whole
from ..train.unchanged import (
    require_same_held_out,
    require_same_names,
    require_same_prepared,
)
from .alignment import AlignedDenoiser, without_projector
from .autoencoder import SCALE_IMAGES, Autoencoder, Autoencoding, estimate_scale, load_autoencoder
from .denoiser import (
    LatentBatch,
    LatentBatches,
    LatentDenoising,
    build_denoiser,
    center_context,
    start_denoiser,
)
from .dino import DinoLearning, DinoNetwork, trained_encoder
from .embedding import by_class, embed, encode, patch_tokens
from .sampling import sample_latents, to_films
from .strategies import fit_densities
from .synthesizer import LATENTS, Synthesizer, save_synthesizer
from .views import ViewBatches

SAMPLES = 32
SAMPLE_STEPS = 50
SAMPLE_GUIDANCE = 1.5

Reporter = Callable[[Path], Any]


def prepare_stages(settings: Synthesize, report: Reporter, run: Run) -> Act:
    """Read the films, train encoder and autoencoder, and say how the denoiser is trained."""
    films = read_films(settings, run)
    settings = replace(
        settings,
        dino=replace(settings.dino, augmentation=decided(settings.dino.augmentation, films.plan)),
        vae=replace(settings.vae, augmentation=decided(settings.vae.augmentation, films.plan)),
    )
    encoder = train_encoder(settings, run, films, report)
    autoencoder = train_autoencoder(settings, run, films, encoder, report)
    multiple = max(LATENTS, autoencoder.factor)
    why = "latents are cut to it, and pipelines of diffusers sample multiples of 8"
    _verify_multiple(films.plan, multiple, why, "Set --size accordingly")
    cache, prepared = cache_folder(settings.reader.cache), films.prepared
    embeddings = embed(prepared, encoder, settings.machine, cache)
    latents = encode(prepared, autoencoder, settings.machine, cache)
    names, held_out = [case.name for case in prepared.cases], None
    if rows := films.held_out:
        held_names = tuple(names[i] for i in rows)
        held_out = LatentBatch(_rows(latents, rows), None, held_names, _rows(embeddings, rows))
    tokens = (
        patch_tokens(prepared, encoder, settings.machine, cache) if settings.alignment else None
    )
    task = LatentDenoising(
        partial(_start_of_denoiser, settings, films, autoencoder, embeddings, tokens),
        settings.diffusion,
        null=settings.null,
        alignment=settings.alignment,
        held_out=held_out,
    )
    batches = LatentBatches(
        latents,
        embeddings,
        names,
        tokens=tokens,
        batch_size=settings.training.batch,
        seed=settings.training.seed,
        indices=films.training,
    )

    def finish(trained: Trained) -> None:
        denoiser = without_projector(trained.average)
        classes = by_class(prepared, films.training)
        synthesizer = Synthesizer(
            denoiser,
            autoencoder,
            encoder,
            settings.diffusion,
            fit_densities(torch.from_numpy(np.array(embeddings, np.float32)), classes),
            {name: len(rows) for name, rows in classes.items()},
        )
        shown = _rows(embeddings, (films.held_out or films.training)[:SAMPLES])
        _write_samples(settings, synthesizer, films.plan, shown, run.folder / "samples.npy")
        save_synthesizer(synthesizer, run.model)

    return Act(task, batches, finish, settings)


def read_films(settings: Synthesize, run: Run) -> Unlabelled:
    """Read and prepare the films, and hold some patients out.

    Raises:
        InputError: They are volumes, or of several channels.
    """
    if settings.encoder is not None:
        encoder_folder(settings.encoder)  # refused before anything is prepared
    dataset, plan = plan_films(settings, run)
    prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
    require_same_prepared(run, dataset, prepared)
    training, held = hold_out(prepared, settings.training.seed)
    require_same_held_out(run, held)
    seen = sorted({prepared.cases[i].group for i in training})
    described = describe_data(dataset, prepared, {"validation": held})
    run.write_data(described | {"unlabelled_patients": seen})
    wanted = set(held[:VALIDATION_IMAGES])
    validation = [i for i, case in enumerate(prepared.cases) if case.name in wanted]
    return Unlabelled(prepared, training, validation)


def plan_films(settings: Synthesize, run: Run | None = None) -> tuple[Dataset, Plan]:
    """The films and their plan; ``run`` None: nothing is written.

    Raises:
        InputError: As ``read_films``.
    """
    dataset = open_dataset(settings.data, settings.reader)
    dataset = limited(dataset, settings.limit, settings.training.seed)
    if run is not None:
        require_same_names(run.folder, (case.name for case in dataset), trained=run.trained)
    plan = plan_of(run, dataset, settings.plan, settings.reader, labelled=False)
    if plan.spatial_dims != 2:
        raise InputError(dataset.root, "holds volumes", "Synthesis works on films")
    if len(plan.channels) != 1:
        problem = f"has {len(plan.channels)} channels"
        remedy = "Synthesis works on films of one channel; colors in one file are turned to gray"
        raise InputError(dataset.root, problem, remedy)
    verify_whole(plan)
    return dataset, plan


def train_encoder(settings: Synthesize, run: Run, films: Unlabelled, report: Reporter) -> Encoder:
    """The given encoder, or a small DINO trained on the films."""
    if settings.encoder is not None:
        return load_encoder(settings.encoder)
    stage, dino = Run(run.folder / "encoder"), settings.dino
    if not stage.finished:
        batch_size, size = dino.training.batch, max(films.plan.size)
        if len(films.training) < batch_size:
            few = f"leaves {len(films.training)} images to train on"
            problem = f"{few}, fewer than the encoder's batch of {batch_size}"
            remedy = "Give more images, or lower --dino.training.batch-size"
            raise InputError(settings.data, problem, remedy)
        views = partial(ViewBatches, films.prepared, size, dino)
        seed, shown, held_out = dino.training.seed, films.held_out, None
        if shown:
            held_out = views(indices=shown, batch_size=len(shown), seed=seed + 1)(0)
        task = DinoLearning(dino, size, len(films.plan.channels), held_out)
        batches = views(indices=films.training, batch_size=batch_size, seed=seed)

        def save(trained: Trained) -> None:
            assert isinstance(trained.raw, DinoNetwork)
            save_encoder(trained_encoder(trained.raw), stage.model)

        _train_stage(stage, Act(task, batches, save), "dino", settings, report)
    elif stage.main and not stage.ended:
        report(stage.folder)
    return load_encoder(str(stage.model))


def train_autoencoder(
    settings: Synthesize, run: Run, films: Unlabelled, encoder: Encoder, report: Reporter
) -> Autoencoder:
    """The given autoencoder, that of ``--from``, or a small one trained on the films.

    The ``encoder`` is that of the perceptual term.
    """
    channels = len(films.plan.channels)
    if settings.autoencoder is not None:
        return load_autoencoder(settings.autoencoder, channels)
    if settings.from_run is not None:
        return load_autoencoder(settings.from_run, channels, "--from")
    stage, vae = Run(run.folder / "autoencoder"), settings.vae
    if not stage.finished:
        factor = 2 ** (len(vae.channels) - 1)
        remedy = "Set --size accordingly, or fewer --vae.channels"
        _verify_multiple(films.plan, factor, "the autoencoder halves it as often", remedy)
        held_out = films.validation_images()
        task = Autoencoding(vae, max(films.plan.size), channels, held_out, encoder)
        batches = Batches(
            films.prepared,
            batch_size=vae.training.batch,
            seed=vae.training.seed,
            augmentation=vae.augmentation,
            indices=films.training,
        )

        def save(trained: Trained) -> None:
            network, rows = trained.average, films.training[:SCALE_IMAGES]
            assert isinstance(network, Autoencoder)
            images = np.stack([np.asarray(films.prepared.image(i), np.float32) for i in rows])
            scale = estimate_scale(network, torch.from_numpy(images))
            network.vae.register_to_config(scaling_factor=scale)
            with whole_folder(stage.model) as folder:
                network.vae.save_pretrained(folder)
                forget_paths(folder)

        _train_stage(stage, Act(task, batches, save), "vae", settings, report)
    elif stage.main and not stage.ended:
        report(stage.folder)
    return load_autoencoder(str(stage.model), channels)


# ------------------------------------------------------------------------------------------------ internal


def _train_stage(
    stage: Run, act: Act, group: Literal["dino", "vae"], settings: Synthesize, report: Reporter
) -> None:
    """Train a stage, with its group of settings, inside the run folder, save its network and write its report."""
    training = settings.dino.training if group == "dino" else settings.vae.training
    trained = train(act.task, act.batches, stage, training, settings.machine, f"{group}.")
    if stage.main:
        act.finish(trained)
        report(stage.folder)
    wait_for_main()


def _start_of_denoiser(
    settings: Synthesize,
    films: Unlabelled,
    autoencoder: Autoencoder,
    embeddings: Array,
    tokens: Array | None,
) -> nn.Module:
    channels, width = autoencoder.latent_channels, embeddings.shape[1]
    if settings.from_run is not None:
        denoiser = start_denoiser(
            settings.from_run, settings.diffusion, latent_channels=channels, width=width
        )
    else:
        size = max(films.plan.size) // autoencoder.factor
        denoiser = build_denoiser(
            settings.denoiser,
            settings.diffusion,
            latent_channels=channels,
            size=size,
            width=width,
        )
    center_context(denoiser, _rows(embeddings, films.training))
    if settings.machine.checkpoint_activations:
        denoiser.unet.enable_gradient_checkpointing()
    if tokens is None:
        return denoiser
    return AlignedDenoiser(denoiser, max(films.plan.size) // autoencoder.factor, tokens.shape[1:])


def _write_samples(
    settings: Synthesize, synthesizer: Synthesizer, plan: Plan, embeddings: Tensor, path: Path
) -> None:
    """Films for the report, of embeddings of films that were held out: uint8 ``(N, rows, columns)``."""
    generator = torch.Generator().manual_seed(0)
    autoencoder = synthesizer.to(local_device(settings.machine).device).autoencoder
    shape = (autoencoder.latent_channels, *(n // autoencoder.factor for n in plan.size))
    latents = sample_latents(
        synthesizer,
        embeddings,
        torch.randn((len(embeddings), *shape), generator=generator),
        steps=min(SAMPLE_STEPS, settings.diffusion.num_train_timesteps),
        guidance=SAMPLE_GUIDANCE,
    )
    films = to_films(autoencoder, latents)
    synthesizer.to(torch.device("cpu"))
    write_arrays(path, films)


def _verify_multiple(plan: Plan, multiple: int, why: str, remedy: str) -> None:
    if any(n % multiple for n in plan.size):
        size = "x".join(map(str, plan.size))
        raise InputError(f"size {size}", f"is no multiple of {multiple}: {why}", remedy)


def _rows(array: Array, rows: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(array[list(rows)], np.float32))
