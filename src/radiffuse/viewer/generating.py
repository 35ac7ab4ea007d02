"""Synthetic films from films of the list, as a job: variations of one, or the way from one to another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.plan import Plan
from ..data.streams import Stream
from ..data.transform import image_to_plan
from ..errors import InputError
from ..synthesis.embedding import fingerprint
from ..synthesis.generation import Provenance, write_film
from ..synthesis.sampling import latent_noise, sample_latents, to_films
from ..synthesis.strategies import interpolate
from ..synthesis.synthesizer import Synthesizer, synthesizer_of
from ..train.device import local_device
from ..train.run import Run
from .jobs import Job
from .requests import Generation
from .runs import Entry
from .scans import Item
from .state import State

BATCH = 4
"""Images drawn together."""


def generate(
    state: State, items: list[Item], entry: Entry, asked: Generation, job: Job
) -> list[dict[str, str]]:
    """Draw the images; each is a PNG that names what it was drawn from.

    Returns:
        ``id`` (name of the file among ``State.made``) and ``text`` of each.

    Raises:
        InputError: A film does not fit the run, or it takes fewer steps.
        Cancelled: The user stopped the job.
    """
    job.begin("reading the run")
    run = Run.open(entry.path)
    plan = run.plan
    synthesizer = synthesizer_of(run)
    timesteps = synthesizer.diffusion.num_train_timesteps
    if asked.steps > timesteps:
        problem = f"are more than the {timesteps} that were trained"
        raise InputError(f"{asked.steps} steps", problem, f"Use 1 to {timesteps}")
    device = local_device(state.settings.machine).device
    synthesizer.to(device)
    films = torch.stack([_film(state, item, plan) for item in items]).to(device)
    job.begin("looking at the films")
    with torch.no_grad():
        embeddings = synthesizer.encoder.eval()(films)
    shares = _shares(asked)
    drawn = embeddings[:1].repeat(asked.count, 1)
    if asked.kind == "interpolate":
        other = embeddings[1:].repeat(asked.count, 1)
        drawn = interpolate(drawn, other, torch.tensor(shares, device=device))
    start = _latent(synthesizer, films[:1]) if asked.kind == "from-image" else None
    share = asked.strength if start is not None else 1.0
    batches = -(-asked.count // BATCH)
    job.begin("drawing", max(1, round(batches * asked.steps * share)))
    synthesizer.denoiser.register_forward_pre_hook(lambda *_: job.advance())
    model = fingerprint(synthesizer.denoiser)[:16]
    made = []
    for first in range(0, asked.count, BATCH):
        numbers = range(first, min(first + BATCH, asked.count))
        generators = [torch.Generator().manual_seed(_seed(asked, number)) for number in numbers]
        latents = sample_latents(
            synthesizer,
            drawn[first : numbers.stop],
            latent_noise(synthesizer.autoencoder, plan.size, generators),
            steps=asked.steps,
            guidance=asked.guidance,
            start=None if start is None else start.repeat(len(numbers), 1, 1, 1),
            strength=share,
        )
        pixels = to_films(synthesizer.autoencoder, latents)
        for number, film in zip(numbers, pixels, strict=True):
            made.append(_write(state, film, items, model, asked, number, shares[number]))
    return made


def _film(state: State, item: Item, plan: Plan) -> Tensor:
    scan = state.scans.scan(item)
    if scan.spatial_dims != 2:
        raise InputError(item.name, "is a volume", "Synthesizers draw films; give one")
    image, _ = image_to_plan(scan, plan)
    if len(image) != len(plan.channels):
        raise InputError(item.name, f"has {len(image)} channels", "Give a film like the run's")
    return torch.from_numpy(image)


def _shares(asked: Generation) -> list[float]:
    """The share of the second film in each image; 0 where there is none."""
    if asked.kind != "interpolate":
        return [0.0] * asked.count
    return np.linspace(0, 1, asked.count).tolist() if asked.count > 1 else [0.5]


def _seed(asked: Generation, number: int) -> int:
    """The seed of an image's noise: one for all images between two films, so that the embedding alone changes."""
    number = 0 if asked.kind == "interpolate" else number
    return int(Stream.VIEWER.rng(asked.seed, number).integers(2**53))


@torch.no_grad()
def _latent(synthesizer: Synthesizer, film: Tensor) -> Tensor:
    autoencoder = synthesizer.autoencoder
    return autoencoder.encode(film)[:, : autoencoder.latent_channels]


def _write(
    state: State,
    film: Any,
    items: list[Item],
    model: str,
    asked: Generation,
    number: int,
    share: float,
) -> dict[str, str]:
    path = state.new_path(".png")
    strength = {"interpolate": f"{share:.4f}", "from-image": f"{asked.strength:g}"}
    provenance = Provenance(
        image=path.name,
        class_="",
        patient="+".join(sorted({item.case.group for item in items})),
        strategy=asked.kind,
        parents="+".join(item.name for item in items),
        strength=strength.get(asked.kind, ""),
        seed=_seed(asked, number),
        guidance=asked.guidance,
        sampler="ddim",
        steps=asked.steps,
        model=model,
    )
    write_film(path, film, provenance)
    text = f"seed {asked.seed}, image {number + 1}"
    if asked.kind == "interpolate":
        text = f"{round(100 * share)} % of {items[-1].name}"
    return {"id": path.name, "text": text}
