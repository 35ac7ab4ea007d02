"""``radiffuse generate``: synthetic images of a synthesizer or a denoiser, into a folder that is a data set."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Generate
from ..config.values import to_dict
from ..data.provenance import SETTINGS, TABLE
from ..errors import InputError
from ..synthesis.denoiser_generation import SYNTHESIZER_ONLY, DenoiserGeneration
from ..synthesis.generation import Provenance, SynthesizerGeneration
from ..synthesis.joint_generation import JointGeneration, is_joint
from ..synthesis.synthesizer import is_synthesizer
from ..system.cells import written_cell
from ..system.files import locked, read_json, refuse_foreign, write_atomic, write_json
from ..train.device import local_device
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
    source, wanted = open_source(settings)
    out = Path(settings.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise InputError(out, problem, "Choose another --out") from None
    size = int(np.prod(source.run.plan.size)) * source.value_size
    _verify_space(out, source.count, size, source.suffix)
    with locked(out):
        wanted |= source.prepare()
        _agree(out, wanted, source.suffix)
        write_json(out / SETTINGS, wanted)
        _write_table(out / TABLE, source.write(out))
    return out


def open_source(
    settings: Generate,
) -> tuple[SynthesizerGeneration | DenoiserGeneration, dict[str, Any]]:
    """Open the run and the references; nothing is written.

    Returns:
        What draws the images, and the settings that they depend on.

    Raises:
        InputError: As ``generate``.
    """
    run = find_pretrained(settings.run)
    synthesizer = is_synthesizer(run.model)
    source: SynthesizerGeneration | DenoiserGeneration
    if synthesizer:
        source = SynthesizerGeneration(settings, run)
    else:
        source = (JointGeneration if is_joint(run) else DenoiserGeneration)(settings, run)
    if source.steps > source.timesteps:
        problem = f"are more than the {source.timesteps} that were trained"
        raise InputError(f"--steps {source.steps}", problem, f"Use 1 to {source.timesteps}")
    left_out = FREE if synthesizer else (*FREE, *SYNTHESIZER_ONLY)
    wanted = {k: v for k, v in to_dict(settings).items() if k not in left_out}
    wanted |= {"steps": source.steps, "sampler": source.sampler, "model": source.model}
    refuse_foreign(Path(settings.out), SETTINGS)
    _agree(Path(settings.out), wanted, source.suffix)
    local_device(settings.machine)
    source.verify()
    return source, wanted


def _verify_space(out: Path, images: int, size: int, suffix: str) -> None:
    """Refuse to generate more than the disk can hold: images of ``size`` bytes, less the existing ones."""
    needed = images * (size + 4096)
    needed -= sum(file.stat().st_size for file in out.rglob(f"*{suffix}"))
    free = shutil.disk_usage(out).free
    if needed > free:
        problem = f"would take {needed / 1e9:.3g} GB, and the disk has {free / 1e9:.3g} GB left"
        raise InputError(out, problem, "Lower --count, or choose another disk")


def _agree(out: Path, wanted: Mapping[str, Any], suffix: str) -> None:
    """Refuse to resume a generation with other settings or references, unless it drew nothing: then they take over."""
    begun = (out / SETTINGS).is_file() and any(out.rglob(f"*{suffix}"))
    before = read_json(out / SETTINGS, dict[str, Any]) if begun else wanted
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
    writer.writerows({k: written_cell(v) for k, v in row.row().items()} for row in rows)
    write_atomic(path, buffer.getvalue())
