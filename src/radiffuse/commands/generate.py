"""``radiffuse generate``: synthetic images of a synthesizer or a denoiser, into a folder that is a data set."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Generate
from ..config.values import to_dict
from ..data.provenance import SETTINGS, TABLE
from ..errors import InputError
from ..synthesis.denoiser_generation import SYNTHESIZER_ONLY, DenoiserGeneration
from ..synthesis.generation import Provenance, SynthesizerGeneration
from ..synthesis.synthesizer import is_synthesizer
from ..system.files import locked, read_json, write_atomic, write_json
from ..train.start import find_pretrained

FREE = ("out", "batch", "machine", "reader")
"""Settings that may differ when a generation is resumed: they change rounding at most, or the references, whose
embeddings are compared themselves."""


def generate(settings: Generate) -> Path:
    """Generate images and write them as a data set: the files, and ``provenance.csv`` that names them all.

    Returns:
        The folder.

    Raises:
        InputError: The run is neither a synthesizer nor a denoiser, or cannot obey a setting; the references cannot be
            used, the folder holds something else, or the disk is too small.
    """
    run = find_pretrained(settings.run)
    synthesizer = is_synthesizer(run.model)
    default = "ddim" if synthesizer else "ddpm"
    settings = replace(settings, sampler=settings.sampler or default)  # type: ignore[arg-type]
    source = (SynthesizerGeneration if synthesizer else DenoiserGeneration)(settings, run)
    if settings.steps > source.timesteps:
        problem = f"are more than the {source.timesteps} that were trained"
        raise InputError(f"--steps {settings.steps}", problem, f"Use 1 to {source.timesteps}")
    left_out = FREE if synthesizer else (*FREE, *SYNTHESIZER_ONLY)
    wanted = {k: v for k, v in to_dict(settings).items() if k not in left_out}
    wanted["model"] = source.model
    out = Path(settings.out)
    _begin(out, wanted)
    _verify_space(out, source.count, int(np.prod(run.plan.size)) * source.value_size, source.suffix)
    with locked(out):
        wanted |= source.prepare()
        _agree(out, wanted)
        write_json(out / SETTINGS, wanted)
        _write_table(out / TABLE, source.write(out))
    return out


def _begin(out: Path, wanted: Mapping[str, Any]) -> None:
    """Make the folder, or refuse one with anything but the same generation in it."""
    held = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if held and not (out / SETTINGS).is_file():
        raise InputError(out, "is not empty and no generation", "Choose another --out")
    _agree(out, wanted)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise InputError(out, problem, "Choose another --out") from None


def _verify_space(out: Path, images: int, size: int, suffix: str) -> None:
    """Refuse to generate more than the disk can hold: images of ``size`` bytes, less the existing ones."""
    needed = images * (size + 4096)
    needed -= sum(file.stat().st_size for file in out.rglob(f"*{suffix}"))
    free = shutil.disk_usage(out).free
    if needed > free:
        problem = f"would take {needed / 1e9:.3g} GB, and the disk has {free / 1e9:.3g} GB left"
        raise InputError(out, problem, "Lower --count, or choose another disk")


def _agree(out: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to resume a generation with other settings or references."""
    before = read_json(out / SETTINGS) if (out / SETTINGS).is_file() else wanted
    for key, value in wanted.items():
        if before.get(key) != value:
            problem = f"holds a generation with {key} = {before.get(key)}, not {value}"
            remedy = "Choose another --out, or give the same settings and references to go on"
            raise InputError(out, problem, remedy)


def _write_table(path: Path, rows: Sequence[Provenance]) -> None:
    buffer = io.StringIO()
    names = [f.name.rstrip("_") for f in fields(Provenance)]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.row() for row in rows)
    write_atomic(path, buffer.getvalue())
