"""Synthetic films of a synthesizer, each with its provenance.

The strategies carry the names of Jimenez-Perez et al. 2024; their formulas are in ``strategies.py``. What an image is
sampled from depends on (seed, strategy, number) and the references alone, so an interrupted generation resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Data, Generate
from ..core.sampling import verify_sampler
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.names import safe_name
from ..data.prepare import cache_folder
from ..data.prepared import Prepared
from ..data.provenance import ANCESTORS, Ancestors, name_of_ancestors
from ..data.readers import write_marked_film
from ..data.scan import Array
from ..data.streams import Stream
from ..errors import InputError
from ..system.files import write_json
from ..train.cases import prepare_dataset
from ..train.device import local_device
from ..train.known import learned_cases, patients_seen
from ..train.progress import ProgressLine
from ..train.run import Run
from ..train.start import verify_kind
from .embedding import by_class, embed, encode, fingerprint
from .sampling import latent_noise, sample_latents, to_films
from .strategies import fit_densities, interpolate, perturb
from .synthesizer import synthesizer_of

STRATEGIES = ("variation", "interpolate", "perturb", "from-image", "manifold", "reconstruction")
FROM_LATENTS = ("from-image", "reconstruction")
"""Strategies that need the latents of a real image."""
STEPS = 50
"""Inference steps where none are given. [related]"""
MARK = "This image is synthetic. It was drawn by a model and shows no patient."
COPY_MARK = "This image was made by a model of a real one: it shows a patient."


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an image comes from: a row of ``provenance.csv``, and the metadata of its file.

    Attributes:
        image: Path below the folder.
        class_: Class of its parents.
        patient: Patients of its parents, joined by ``+``; of manifold the name of those that the densities were
            fitted on, see ``ANCESTORS``; else the image's own name. So a split by patient keeps images of the same
            parents together.
        strategy: How its embedding was made; empty for an image of a denoiser, which has none.
        parents: Names of the real cases it comes from, joined by ``+``.
        strength: Of perturb and from-image; of interpolate the weight of the second parent.
        seed: Of its noise.
        guidance: Of classifier-free guidance; None without.
        sampler: Solver.
        steps: Inference steps.
        model: Start of the hash of the denoiser's weights.
        synthetic: Always ``yes``.
    """

    image: str
    class_: str = ""
    patient: str
    strategy: str = ""
    parents: str = ""
    strength: str = ""
    seed: int
    guidance: float | None = None
    sampler: str
    steps: int
    model: str
    synthetic: str = "yes"

    def row(self) -> dict[str, Any]:
        """By the names of the columns."""
        return {name.rstrip("_"): value for name, value in asdict(self).items()}


def write_film(path: Path, film: Array, provenance: Provenance) -> None:
    """Write a PNG whose metadata say that it is synthetic, and where it comes from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(provenance.row())
    mark = COPY_MARK if provenance.strategy == "reconstruction" else MARK
    write_marked_film(path, film, {"Synthetic": mark, "radiffuse": text})


@dataclass(frozen=True)
class References:
    """Real images: embeddings ``(N, W)``, latents ``(N, 2 c, h, w)`` if a strategy needs them, and rows by class."""

    prepared: Prepared
    embeddings: Tensor
    latents: Array | None
    classes: Mapping[str, list[int]]


@dataclass(frozen=True)
class _Start:
    """What one image is sampled from; ``parent`` is the row of the first parent, or -1."""

    provenance: Provenance
    embedding: Tensor
    parent: int
    generator: torch.Generator


class SynthesizerGeneration:
    """Generation from a run of radiffuse synthesize.

    Raises:
        InputError: Settings that cannot be followed.
    """

    suffix = ".png"
    value_size = 1

    def __init__(self, settings: Generate, run: Run) -> None:
        self.settings, self.run = settings, run
        self.strategies = tuple(dict.fromkeys(settings.strategy))
        self.count = settings.count * len(self.strategies)
        self.synthesizer = synthesizer_of(run)
        self.timesteps = self.synthesizer.diffusion.num_train_timesteps
        self.steps = settings.steps or min(STEPS, self.timesteps)
        self.model = fingerprint(self.synthesizer.denoiser)[:16]
        self.references: References | None = None
        if settings.sampler == "ddpm":
            raise InputError("--sampler ddpm", "is for a denoiser", "Use ddim, dpm++ or heun")
        self.sampler: Any = settings.sampler or "ddim"
        verify_sampler(self.sampler, self.synthesizer.diffusion.schedule)
        if not self.strategies:
            raise InputError("--strategy", "names none", f"Choose of {', '.join(STRATEGIES)}")
        if "from-image" in self.strategies and not 0 < settings.strength <= 1:
            where = f"--strength {settings.strength}"
            raise InputError(where, "is out of range for from-image", "Use above 0, up to 1")

    def verify(self) -> None:
        """Refuse references that cannot be used, before any is embedded."""
        _ = self._reference_cases, self.ancestors

    def prepare(self) -> dict[str, Any]:
        """Embed the references; returns their hash, since the images depend on them."""
        self.references = references = self._references()
        synthesizer, settings = self.synthesizer, self.settings
        self.densities, self.counts = dict(synthesizer.densities), dict(synthesizer.counts)
        if "manifold" in self.strategies and settings.references is not None and references:
            self.counts = {name: len(rows) for name, rows in references.classes.items()}
            self.densities = fit_densities(references.embeddings, references.classes)
        if references is None:
            return {"embeddings": None}
        digest = hashlib.sha256(references.embeddings.numpy().tobytes())
        return {"embeddings": digest.hexdigest()[:16]}

    @cached_property
    def ancestors(self) -> Ancestors:
        """The patients whose images the densities of manifold were fitted on; {} where it draws none."""
        if "manifold" not in self.strategies:
            return {}
        if self.settings.references is None and (seen := patients_seen(self.run)):
            return {"patients": sorted(seen), "cases": []}
        try:
            dataset, _ = self._reference_cases or learned_cases(self.run)
        except InputError:
            if self.settings.references is not None:
                raise
            problem = "is of an earlier version, which did not note whom the density of manifold was fitted on"
            remedy = "Give its images with --references, or train again"
            raise InputError(self.run.folder, problem, remedy) from None
        return {
            "patients": sorted({case.group for case in dataset}),
            "cases": sorted(case.name for case in dataset),
        }

    @cached_property
    def shared(self) -> str:
        """The name that stands for the ancestors."""
        return name_of_ancestors(self.ancestors["patients"], self.ancestors["cases"])

    def write(self, out: Path) -> list[Provenance]:
        """Write the images that are missing, and the ancestors of manifold; returns the provenance of all."""
        if "manifold" in self.strategies and not self.densities:
            problem = "has no class of two images or more, to which manifold could fit a density"
            remedy = "Give more references, or choose another strategy"
            raise InputError(self.settings.references or self.settings.run, problem, remedy)
        if self.ancestors:
            write_json(out / ANCESTORS, {self.shared: self.ancestors})
        self.synthesizer.to(local_device(self.settings.machine).device)
        line, count, batch = ProgressLine("sampling"), self.settings.count, self.settings.batch
        done: list[Provenance] = []
        for strategy in self.strategies:
            for first in range(0, count, batch):
                numbers = range(first, min(first + batch, count))
                done += self._write_batch(out, strategy, numbers)
                line.update(len(done), self.count, strategy)
        return done

    def _write_batch(self, out: Path, strategy: str, numbers: range) -> list[Provenance]:
        """If one image of a batch is missing, all are sampled, so that each is rounded as it was."""
        starts = [self._start(strategy, number) for number in numbers]
        missing = [not (out / start.provenance.image).is_file() for start in starts]
        if any(missing):
            films = self._films(strategy, starts)
            for start, film, absent in zip(starts, films, missing, strict=True):
                if absent:
                    write_film(out / start.provenance.image, film, start.provenance)
        return [start.provenance for start in starts]

    def _start(self, strategy: str, number: int) -> _Start:
        settings, references = self.settings, self.references
        rng = Stream.IMAGE.rng(settings.seed, STRATEGIES.index(strategy), number)
        seed = int(rng.integers(2**53))  # a number that every reader of the table can hold
        generator = torch.Generator().manual_seed(seed)
        parents: list[int] = []
        strength = f"{settings.strength:g}" if strategy in ("perturb", "from-image") else ""
        if strategy == "manifold":
            names = list(self.densities)
            weights = np.array([self.counts[n] for n in names], float)
            name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
            embedding = self.densities[name].draw(generator)
        else:
            assert references is not None
            rows = references.embeddings
            order = Stream.REFERENCE.rng(settings.seed).permutation(len(rows))
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
                embedding = perturb(rows[first][None], rows[peers], settings.strength, generator)[0]
        cases = [references.prepared.cases[i] for i in parents] if references else []
        file, sampled = f"{strategy}-{number:06d}.png", strategy != "reconstruction"
        patients = "+".join(sorted({case.group for case in cases}))
        provenance = Provenance(
            image=f"{safe_name(name)}/{file}" if name else file,
            class_=name,
            patient=self.shared if strategy == "manifold" else patients,
            strategy=strategy,
            parents="+".join(case.name for case in cases),
            strength=strength,
            seed=seed,
            guidance=settings.guidance if sampled else None,
            sampler=self.sampler if sampled else "",
            steps=self.steps if sampled else 0,
            model=self.model,
        )
        return _Start(provenance, embedding, parents[0] if parents else -1, generator)

    def _films(self, strategy: str, starts: Sequence[_Start]) -> Array:
        """The images, uint8 ``(B, rows, columns)``."""
        parents = None
        if strategy in FROM_LATENTS:
            assert self.references is not None
            assert self.references.latents is not None
            channels = self.synthesizer.autoencoder.latent_channels
            rows = self.references.latents[[start.parent for start in starts]][:, :channels]
            parents = torch.from_numpy(np.asarray(rows, np.float32))
        autoencoder = self.synthesizer.autoencoder
        if strategy == "reconstruction":
            assert parents is not None
            return to_films(autoencoder, parents.to(local_device(self.settings.machine).device))
        latents = sample_latents(
            self.synthesizer,
            torch.stack([start.embedding for start in starts]),
            latent_noise(autoencoder, self.run.plan.size, [start.generator for start in starts]),
            sampler=self.sampler,
            steps=self.steps,
            guidance=self.settings.guidance,
            start=parents,
            strength=self.settings.strength,
        )
        return to_films(autoencoder, latents)

    def _references(self) -> References | None:
        """The given images, else those that the run was trained on; None where no strategy asks for any."""
        settings = self.settings
        if self._reference_cases is None:
            return None
        dataset, reader = self._reference_cases
        prepared = prepare_dataset(dataset, self.run.plan, reader, settings.machine, labelled=False)
        classes = by_class(prepared, range(len(prepared)))
        paired = [s for s in self.strategies if s in ("interpolate", "perturb")]
        for name, rows in classes.items() if paired else ():
            if len(rows) < 2:
                where = f"{dataset.root}, class {name}" if name else dataset.root
                problem = f"has {len(rows)} usable image, {paired[0]} needs two of a class"
                remedy = "Give more references, or choose variation or from-image"
                raise InputError(where, problem, remedy)
        cache = cache_folder(settings.reader.cache)
        embeddings = embed(prepared, self.synthesizer.encoder, settings.machine, cache)
        latents = None
        if not set(FROM_LATENTS).isdisjoint(self.strategies):
            latents = encode(prepared, self.synthesizer.autoencoder, settings.machine, cache)
        return References(prepared, torch.from_numpy(np.array(embeddings)), latents, classes)

    @cached_property
    def _reference_cases(self) -> tuple[Dataset, Data] | None:
        """The references, and how they are read; None where no strategy asks for any."""
        settings, run = self.settings, self.run
        if settings.references is None and set(self.strategies) == {"manifold"}:
            return None
        if settings.references is not None:
            dataset = open_dataset(settings.references, settings.reader)
            verify_kind(dataset, run, mixed=settings.reader.skip_bad)
            return dataset, settings.reader
        return learned_cases(run, settings.reader.cache)
