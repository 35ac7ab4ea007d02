"""Draw synthetic images from a synthesizer into a folder that is a data set; ``drawing.py`` draws each.

An image follows from its number and the settings alone, so an interrupted generation goes on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Data, Generate
from ..config.values import from_dict, to_dict
from ..data.dataset import Dataset
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..errors import InputError
from ..synthesis.drawing import STRATEGIES, Drawing, Provenance, References
from ..synthesis.embedding import by_class, embed, encode, fingerprint
from ..synthesis.pipeline import Synthesizer, load_synthesizer
from ..system.files import locked, read_json, write_atomic, write_json
from ..train.cases import limited, prepare_dataset, read_dataset
from ..train.device import local_fabric
from ..train.progress import ProgressLine
from ..train.run import Run
from ..train.start import find_pretrained

TABLE = "provenance.csv"
SETTINGS = "generation.json"
FREE = ("out", "batch", "machine", "reader")
"""Settings that may differ when a generation goes on: what they change is rounding at most, or the references, whose
embeddings are compared themselves."""


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
    drawing = Drawing(settings, synthesizer, references, wanted["model"], run.plan, out)
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


def _write_table(path: Path, rows: Sequence[Provenance]) -> None:
    buffer = io.StringIO()
    names = [f.name.rstrip("_") for f in fields(Provenance)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.row() for row in rows)
    write_atomic(path, buffer.getvalue())
