"""Draw synthetic images from a synthesizer, each with its provenance.

The sampling strategies carry the names of Jimenez-Perez et al. 2024; their formulas are in ``core.embeddings``. What
each image is drawn from follows from (seed, strategy, number) and the references alone, so an interrupted generation
goes on, and any image can be drawn again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Data, Generate
from ..core.embeddings import fit_density, interpolate, perturb
from ..data.dataset import Dataset
from ..data.names import safe_name
from ..data.plan import Plan
from ..data.prepare import Prepared, cache_folder
from ..data.readers import write_marked_film
from ..data.scan import Array
from ..engine.device import local_fabric
from ..engine.progress import ProgressLine
from ..engine.run import Run
from ..errors import InputError
from ..files import locked, read_json, write_atomic, write_json
from ..inference.embedding import by_class, embed, encode, fingerprint
from ..inference.latent import draw_films
from ..nets.pipeline import Synthesizer, load_synthesizer
from ..settings import from_dict, to_dict
from .common import find_pretrained, limited, prepare_dataset, read_dataset

STRATEGIES = ("variation", "interpolate", "perturb", "from-image", "manifold")
TABLE = "provenance.csv"
SETTINGS = "generation.json"
FREE = ("out", "batch", "machine", "reader")
"""Settings that may differ when a generation goes on: what they change is rounding at most, or the references, whose
embeddings are compared themselves."""
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


def generate(settings: Generate) -> Path:
    """Draw images and write them as a data set: PNG files, and ``provenance.csv`` that names them all.

    Args:
        settings: See ``radiffuse.config.Generate``.

    Returns:
        The folder.

    Raises:
        InputError: The run is no synthesizer, the references cannot be used, the folder holds something else, or the
            disk is too small.
    """
    run = find_pretrained(settings.run)
    strategies = tuple(dict.fromkeys(settings.strategy))
    synthesizer = load_synthesizer(run.model, len(run.plan.channels))
    _verify(settings, strategies, synthesizer.diffusion.num_train_timesteps)
    model = fingerprint(synthesizer.denoiser)[:16]
    wanted = {k: v for k, v in to_dict(settings).items() if k not in FREE} | {"model": model}
    out = _begin(settings, wanted, run.plan)
    with locked(out):
        _generate(settings, run, synthesizer, strategies, wanted, out)
    return out


# ------------------------------------------------------------------------------------------------ internal


def _generate(
    settings: Generate,
    run: Run,
    synthesizer: Synthesizer,
    strategies: Sequence[str],
    wanted: dict[str, Any],
    out: Path,
) -> None:
    references = _references(settings, run, synthesizer, strategies)
    digest = hashlib.sha256(references.embeddings.numpy().tobytes()) if references else None
    wanted["embeddings"] = digest.hexdigest()[:16] if digest else None
    _agree(out, wanted)
    write_json(out / SETTINGS, wanted)
    synthesizer.to(local_fabric(settings.machine).device)
    drawing = _Drawing(settings, synthesizer, references, wanted["model"], run.plan, out)
    line, total = ProgressLine("drawing"), settings.count * len(strategies)
    done: list[Provenance] = []
    for strategy in strategies:
        for start in range(0, settings.count, settings.batch):
            numbers = range(start, min(start + settings.batch, settings.count))
            done += drawing.write(strategy, numbers)
            line.update(len(done), total, strategy)
    _write_table(out / TABLE, done)


def _verify(settings: Generate, strategies: Sequence[str], timesteps: int) -> None:
    if not strategies:
        raise InputError("--strategy", "names none", f"Choose of {', '.join(STRATEGIES)}")
    if settings.steps > timesteps:
        raise InputError(
            f"--steps {settings.steps}",
            f"are more than the {timesteps} that were trained",
            f"Use 1 to {timesteps}",
        )
    if "from-image" in strategies and not 0 < settings.strength <= 1:
        raise InputError(
            f"--strength {settings.strength}",
            "is out of range for from-image",
            "Legal is above 0, up to 1",
        )


def _begin(settings: Generate, wanted: Mapping[str, Any], plan: Plan) -> Path:
    """The folder, new or of the same generation.

    Raises:
        InputError: It holds something else, or the disk is too small.
    """
    out = Path(settings.out)
    held = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if held and not (out / SETTINGS).is_file():
        raise InputError(out, "is not empty and no generation", "Choose another --out")
    _agree(out, wanted)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            out, f"cannot be written ({error.strerror})", "Choose another --out"
        ) from None
    needed = settings.count * len(set(settings.strategy)) * (int(np.prod(plan.size)) + 4096)
    needed -= sum(file.stat().st_size for file in out.rglob("*.png"))
    free = shutil.disk_usage(out).free
    if needed > free:
        raise InputError(
            out,
            f"would take {needed / 1e9:.3g} GB, and the disk has {free / 1e9:.3g} GB left",
            "Lower --count, or choose another disk",
        )
    return out


def _agree(out: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a generation of other settings or references."""
    found = read_json(out / SETTINGS) if (out / SETTINGS).is_file() else wanted
    for key, value in wanted.items():
        if found.get(key) != value:
            raise InputError(
                out,
                f"holds a generation with {key} = {found.get(key)}, not {value}",
                "Choose another --out, or give the same settings and references to go on",
            )


def _references(
    settings: Generate, run: Run, synthesizer: Synthesizer, strategies: Sequence[str]
) -> References | None:
    """The given images, else those that the run was trained on; None where no strategy asks for any."""
    if settings.references is None and set(strategies) == {"manifold"}:
        return None
    dataset, reader = _reference_cases(settings, run)
    prepared = prepare_dataset(dataset, run.plan, reader, settings.machine, labelled=False)
    classes = by_class(prepared, range(len(prepared)))
    for name, rows in classes.items():
        paired = [s for s in strategies if s in ("interpolate", "perturb")]
        if len(rows) < 2 and paired:
            where = f"{dataset.root}, class {name}" if name else str(dataset.root)
            raise InputError(
                where,
                f"has {len(rows)} usable image, {paired[0]} needs two of a class",
                "Give more references, or choose variation or from-image",
            )
    cache = cache_folder(settings.reader.cache)
    embeddings = embed(prepared, synthesizer.encoder, settings.machine, cache)
    latents = None
    if "from-image" in strategies:
        latents = encode(prepared, synthesizer.autoencoder, settings.machine, cache)
    return References(prepared, torch.from_numpy(np.array(embeddings)), latents, classes)


def _reference_cases(settings: Generate, run: Run) -> tuple[Dataset, Data]:
    if settings.references is not None:
        dataset = read_dataset(settings.references, settings.reader)
        if len(dataset.channels) != len(run.plan.channels):
            raise InputError(
                dataset.root,
                f"has {len(dataset.channels)} channels, the run {len(run.plan.channels)}",
                "Give images of the kind that the run was trained on",
            )
        return dataset, settings.reader
    trained = run.config["settings"]
    reader = replace(from_dict(Data, trained["reader"]), cache=settings.reader.cache)
    dataset = limited(
        read_dataset(trained["data"], reader), trained["limit"], trained["training"]["seed"]
    )
    held = set(run.data["split"]["validation"])
    return dataset.filter(lambda case: case.name not in held), reader


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


class _Drawing:
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


def _write_table(path: Path, rows: Sequence[Provenance]) -> None:
    buffer = io.StringIO()
    names = [f.name.rstrip("_") for f in fields(Provenance)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.row() for row in rows)
    write_atomic(path, buffer.getvalue())
