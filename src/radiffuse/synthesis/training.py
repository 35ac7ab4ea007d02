"""The stages of a synthesizer: a DINO encoder, an autoencoder, then the denoiser of latents with embeddings.

The first two are runs inside the run folder that resume on their own, and are left out where a network is given.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Synthesize, Training
from ..data.batches import Batches
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..data.prepared import Prepared
from ..data.scan import Array
from ..errors import InputError
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
from ..train.loop import Trained, train
from ..train.run import Run
from .autoencoder import SCALE_IMAGES, Autoencoder, Autoencoding, estimate_scale, load_autoencoder
from .denoiser import (
    ConditionalDenoiser,
    LatentDenoising,
    build_denoiser,
    center_context,
    start_denoiser,
)
from .dino import DinoLearning, DinoNetwork, trained_encoder
from .embedding import by_class, embed, encode
from .encoder import Encoder, load_encoder, save_encoder
from .features import LatentBatch, LatentBatches
from .hub import forget_paths
from .sampling import sample_latents, to_films
from .strategies import fit_density
from .synthesizer import Synthesizer
from .views import ViewBatches

SAMPLES = 32
SAMPLE_GUIDANCE = 1.5

Reporter = Callable[[Path], Any]


@dataclass(frozen=True)
class Films:
    """What a synthesizer is trained on.

    Attributes:
        prepared: All films.
        training: Those that are trained on.
        validation: Those held out that are looked at.
    """

    prepared: Prepared
    training: list[int]
    validation: list[int]

    @property
    def plan(self) -> Plan:
        """How the films were prepared."""
        return self.prepared.plan

    def images(self, indices: Sequence[int]) -> Tensor | None:
        """float32 ``(N, C, rows, columns)``; None of none."""
        films = [np.asarray(self.prepared.image(i), np.float32) for i in indices]
        return torch.from_numpy(np.stack(films)) if films else None


def read_films(settings: Synthesize, run: Run) -> Films:
    """Read and prepare the films and hold some patients out.

    Raises:
        InputError: They are volumes, or of several channels.
    """
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
    return Films(prepared, training, validation)


def train_encoder(settings: Synthesize, run: Run, films: Films, report: Reporter) -> Encoder:
    """The given encoder, or a small DINO trained on the films."""
    if settings.encoder is not None:
        return load_encoder(settings.encoder)
    stage, dino = Run(run.folder / "encoder"), settings.dino
    if not stage.finished:
        if len(films.training) < dino.training.batch_size:
            raise InputError(
                settings.data,
                f"leaves {len(films.training)} images to train on, fewer than the encoder's batch of "
                f"{dino.training.batch_size}",
                "Give more images, or lower --dino.training.batch_size",
            )
        size = max(films.plan.size)
        views = partial(
            ViewBatches,
            films.prepared,
            size,
            local_crops=dino.local_crops,
            global_scale=dino.global_scale,
            local_scale=dino.local_scale,
            augmentation=dino.augmentation,
        )
        seed, held_out = dino.training.seed, None
        if films.validation:
            shown = films.validation
            held_out = views(indices=shown, batch_size=len(shown), seed=seed + 1)(0)
        task = DinoLearning(dino, size, len(films.plan.channels), held_out)
        batches = views(indices=films.training, batch_size=dino.training.batch_size, seed=seed)

        def save(trained: Trained) -> None:
            assert isinstance(trained.raw, DinoNetwork)
            save_encoder(trained_encoder(trained.raw), stage.model)

        _train_stage(stage, task, batches, dino.training, settings, save, report)
    return load_encoder(str(stage.model))


def train_autoencoder(
    settings: Synthesize, run: Run, films: Films, report: Reporter
) -> Autoencoder:
    """The given autoencoder, that of ``--from``, or a small one trained on the films."""
    channels, size = len(films.plan.channels), films.plan.size
    if settings.autoencoder is not None:
        return load_autoencoder(settings.autoencoder, channels)
    if settings.from_run is not None:
        return load_autoencoder(settings.from_run, channels, "--from")
    stage, vae = Run(run.folder / "autoencoder"), settings.vae
    if not stage.finished:
        factor = 2 ** (len(vae.channels) - 1)
        _verify_multiple(
            size, factor, "the autoencoder halves them", "Set --size, or fewer --vae.channels"
        )
        task = Autoencoding(vae, max(size), channels, films.images(films.validation))
        batches = Batches(
            films.prepared,
            batch_size=vae.training.batch_size,
            seed=vae.training.seed,
            augmentation=vae.augmentation,
            indices=films.training,
        )

        def save(trained: Trained) -> None:
            network, images = trained.average, films.images(films.training[:SCALE_IMAGES])
            assert isinstance(network, Autoencoder)
            assert images is not None
            network.vae.register_to_config(scaling_factor=estimate_scale(network, images))
            with whole_folder(stage.model) as partial_folder:
                network.vae.save_pretrained(partial_folder)
                forget_paths(partial_folder)

        _train_stage(stage, task, batches, vae.training, settings, save, report)
    return load_autoencoder(str(stage.model), channels)


@dataclass(frozen=True)
class LatentStage:
    """The last stage: the films as the frozen networks see them.

    Attributes:
        settings: Of the command.
        films: The films.
        encoder: To embeddings.
        autoencoder: To latents.
        embeddings: ``(N, W)``.
        latents: Mean and standard deviation, ``(N, 2 c, h, w)``.
    """

    settings: Synthesize
    films: Films
    encoder: Encoder
    autoencoder: Autoencoder
    embeddings: Array
    latents: Array

    @classmethod
    def of(
        cls, settings: Synthesize, films: Films, encoder: Encoder, autoencoder: Autoencoder
    ) -> LatentStage:
        """Embed and encode all films.

        Raises:
            InputError: The size is no multiple of what the autoencoder and diffusers need.
        """
        multiple = max(8, autoencoder.factor)
        _verify_multiple(
            films.plan.size,
            multiple,
            "latents are cut to it, and diffusers draws multiples of 8",
            "Set --size accordingly",
        )
        cache = cache_folder(settings.reader.cache)
        embeddings = embed(films.prepared, encoder, settings.machine, cache)
        latents = encode(films.prepared, autoencoder, settings.machine, cache)
        return cls(settings, films, encoder, autoencoder, embeddings, latents)

    def task(self) -> LatentDenoising:
        """What the denoiser learns."""
        held = self.films.validation
        names = tuple(self.films.prepared.cases[i].name for i in held)
        held_out = LatentBatch(_rows(self.latents, held), None, names, _rows(self.embeddings, held))
        settings = self.settings
        return LatentDenoising(
            self._build, settings.diffusion, null=settings.null, held_out=held_out if held else None
        )

    def batches(self) -> LatentBatches:
        """What it learns from."""
        return LatentBatches(
            self.latents,
            self.embeddings,
            [case.name for case in self.films.prepared.cases],
            batch_size=self.settings.training.batch_size,
            seed=self.settings.training.seed,
            indices=self.films.training,
        )

    def synthesizer(self, denoiser: nn.Module) -> Synthesizer:
        """The parts together, with a density of the embeddings of each class of two films or more."""
        assert isinstance(denoiser, ConditionalDenoiser)
        classes = by_class(self.films.prepared, self.films.training)
        return Synthesizer(
            denoiser,
            self.autoencoder,
            self.encoder,
            self.settings.diffusion,
            {
                name: fit_density(_rows(self.embeddings, rows))
                for name, rows in classes.items()
                if len(rows) > 1
            },
            {name: len(rows) for name, rows in classes.items()},
        )

    def write_samples(self, synthesizer: Synthesizer, path: Path) -> None:
        """Films for the report, of embeddings of films that were held out: uint8 ``(N, rows, columns)``."""
        device = local_fabric(self.settings.machine).device
        embeddings = _rows(
            self.embeddings, (self.films.validation or self.films.training)[:SAMPLES]
        )
        grid = [n // self.autoencoder.factor for n in self.films.plan.size]
        noise = torch.randn(
            (len(embeddings), self.autoencoder.latent_channels, *grid),
            generator=torch.Generator().manual_seed(0),
        )
        synthesizer.to(device)
        latents = sample_latents(
            synthesizer,
            embeddings.to(device),
            noise.to(device),
            steps=min(50, self.settings.diffusion.num_train_timesteps),
            guidance=SAMPLE_GUIDANCE,
        )
        films = to_films(synthesizer.autoencoder, latents)
        synthesizer.to(torch.device("cpu"))
        buffer = io.BytesIO()
        np.save(buffer, films, allow_pickle=False)
        write_atomic(path, buffer.getvalue())

    def _build(self) -> nn.Module:
        """The denoiser at its start."""
        settings, channels = self.settings, self.autoencoder.latent_channels
        embeddings = _rows(self.embeddings, self.films.training)
        width = embeddings.shape[1]
        if settings.from_run is not None:
            denoiser = start_denoiser(settings.from_run, latent_channels=channels, width=width)
        else:
            size = max(self.films.plan.size) // self.autoencoder.factor
            denoiser = build_denoiser(
                settings.denoiser, latent_channels=channels, size=size, width=width
            )
        center_context(denoiser, embeddings)
        if settings.machine.checkpoint_activations:
            denoiser.unet.enable_gradient_checkpointing()
        return denoiser


def _train_stage(
    stage: Run,
    task: Any,
    batches: Any,
    training: Training,
    settings: Synthesize,
    save: Callable[[Trained], None],
    report: Reporter,
) -> None:
    """Train one of the stages inside the run folder, save its network and write its report."""
    trained = train(task, batches, stage, training, settings.machine)
    if stage.main:
        save(trained)
        report(stage.folder)
    wait_for_main()


def _verify_multiple(size: Sequence[int], multiple: int, why: str, remedy: str) -> None:
    if any(n % multiple for n in size):
        raise InputError(
            f"size {'x'.join(map(str, size))}", f"is no multiple of {multiple}: {why}", remedy
        )


def _rows(array: Array, rows: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(array[list(rows)], np.float32))
