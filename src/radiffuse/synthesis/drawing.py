"""Decide what each synthetic image is drawn from, draw it and write it, with its provenance.

The sampling strategies carry the names of Jimenez-Perez et al. 2024; their formulas are in ``core.embeddings``. What an
image is drawn from follows from (seed, strategy, number) and the references alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Generate
from ..data.names import safe_name
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..data.readers import write_marked_film
from ..data.scan import Array
from ..errors import InputError
from .densities import fit_density, interpolate, perturb
from .latent import draw_films
from .pipeline import Synthesizer

STRATEGIES = ("variation", "interpolate", "perturb", "from-image", "manifold")
MARK = "This image is synthetic. It was drawn by a model and shows no patient."


@dataclass(frozen=True)
class Provenance:
    """Where an image comes from: a row of ``provenance.csv``, and the metadata of its file.

    Attributes:
        image: Path below the folder.
        class_: Class of its parents, or ''.
        patient: Patients of its parents, joined by ``+``; the image's own name where it has none. So a split by
            patient keeps images of the same parents together.
        strategy: How its embedding was made.
        parents: Names of the real cases it comes from, joined by ``+``.
        strength: Of perturb and from-image; of interpolate the share of the second parent; else empty.
        seed: Of its noise.
        guidance: Of classifier-free guidance.
        sampler: Solver.
        steps: Inference steps.
        model: Start of the hash of the denoiser's weights.
        synthetic: Always ``yes``.
    """

    image: str
    class_: str
    patient: str
    strategy: str
    parents: str
    strength: str
    seed: int
    guidance: float
    sampler: str
    steps: int
    model: str
    synthetic: str = "yes"

    def row(self) -> dict[str, Any]:
        """By the names of the columns."""
        return {name.rstrip("_"): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class References:
    """Real images, as a synthesizer sees them.

    Attributes:
        prepared: The films.
        embeddings: ``(N, W)``.
        latents: ``(N, 2 c, h, w)``; None where no strategy starts from them.
        classes: Indices by class.
    """

    prepared: Prepared
    embeddings: Tensor
    latents: Array | None
    classes: Mapping[str, list[int]]


class Drawing:
    """Decides what each image is drawn from, draws and writes it."""

    def __init__(
        self,
        settings: Generate,
        synthesizer: Synthesizer,
        references: References | None,
        model: str,
        plan: Plan,
        out: Path,
    ) -> None:
        self.settings = settings
        self.synthesizer = synthesizer
        self.references = references
        self.model = model
        self.plan = plan
        self.out = out
        self.densities, self.counts = dict(synthesizer.densities), dict(synthesizer.counts)
        if "manifold" in settings.strategy and settings.references is not None and references:
            self.counts = {name: len(rows) for name, rows in references.classes.items()}
            self.densities = {
                name: fit_density(references.embeddings[rows])
                for name, rows in references.classes.items()
                if len(rows) > 1
            }
        if "manifold" in settings.strategy and not self.densities:
            raise InputError(
                settings.references or settings.run,
                "has no class of two images or more, to which manifold could fit a density",
                "Give more references, or choose another strategy",
            )

    def write(self, strategy: str, numbers: range) -> list[Provenance]:
        """Draw these images of a strategy, unless all are there, and write those that are missing."""
        draws = [self._decide(strategy, number) for number in numbers]
        paths = [self.out / draw.provenance.image for draw in draws]
        missing = [not path.is_file() for path in paths]
        if any(missing):
            films = self._films(strategy, draws)
            for draw, path, film, absent in zip(draws, paths, films, missing, strict=True):
                if absent:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    text = json.dumps(draw.provenance.row())
                    write_marked_film(path, film, {"Synthetic": MARK, "radiffuse": text})
        return [draw.provenance for draw in draws]

    def _decide(self, strategy: str, number: int) -> _Draw:
        settings, references = self.settings, self.references
        rng = np.random.default_rng((settings.seed, 12, STRATEGIES.index(strategy), number))
        seed = int(rng.integers(2**53))  # a number that every reader of the table can hold
        generator = torch.Generator().manual_seed(seed)
        parents: list[int] = []
        strength = ""
        if strategy == "manifold":
            names = list(self.densities)
            share = np.array([self.counts[n] for n in names], float)
            name = names[int(rng.choice(len(names), p=share / share.sum()))]
            embedding = self.densities[name].draw(generator)
        else:
            assert references is not None
            rows = references.embeddings
            order = np.random.default_rng((settings.seed, 13)).permutation(len(rows))
            first = int(order[number % len(order)])  # each reference as often as the others
            name = references.prepared.cases[first].target or ""
            peers = references.classes[name]
            parents, embedding = [first], rows[first]
            if strategy == "interpolate":
                parents.append(int(rng.choice([i for i in peers if i != first])))
                strength = f"{rng.random():.4f}"
                pair = rows[parents]
                embedding = interpolate(pair[:1], pair[1:], torch.tensor([float(strength)]))[0]
            elif strategy == "perturb":
                strength = f"{settings.strength:g}"
                embedding = perturb(rows[first][None], rows[peers], settings.strength, generator)[0]
            elif strategy == "from-image":
                strength = f"{settings.strength:g}"
        cases = [references.prepared.cases[i] for i in parents] if references else []
        file = f"{strategy}-{number:06d}.png"
        provenance = Provenance(
            image=f"{safe_name(name)}/{file}" if name else file,
            class_=name,
            patient="+".join(sorted({case.group for case in cases})) or file.removesuffix(".png"),
            strategy=strategy,
            parents="+".join(case.name for case in cases),
            strength=strength,
            seed=seed,
            guidance=settings.guidance,
            sampler=settings.sampler,
            steps=settings.steps,
            model=self.model,
        )
        return _Draw(provenance, embedding, parents[0] if parents else -1, generator)

    def _films(self, strategy: str, draws: Sequence[_Draw]) -> Array:
        """The images, uint8 ``(B, rows, columns)``."""
        autoencoder = self.synthesizer.autoencoder
        start = None
        if strategy == "from-image":
            assert self.references is not None
            assert self.references.latents is not None
            channels = autoencoder.latent_channels
            rows = self.references.latents[[d.first for d in draws]][:, :channels]
            device = next(autoencoder.parameters()).device
            start = torch.from_numpy(np.asarray(rows, np.float32)).to(device)
        return draw_films(
            self.synthesizer,
            self.plan.size,
            torch.stack([d.embedding for d in draws]),
            [d.generator for d in draws],
            sampler=self.settings.sampler,
            steps=self.settings.steps,
            guidance=self.settings.guidance,
            start=start,
            strength=self.settings.strength,
        )


# ------------------------------------------------------------------------------------------------ internal


@dataclass(frozen=True)
class _Draw:
    """What one image is drawn from.

    Attributes:
        provenance: For table and file.
        embedding: ``(W,)``.
        first: Row of the first parent, or -1.
        generator: Of its noise.
    """

    provenance: Provenance
    embedding: Tensor
    first: int
    generator: torch.Generator
