"""How near synthetic images come to real ones, beside how near real ones come to each other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Fidelity
from ..data.provenance import Origin
from ..reports.fidelity import write_fidelity_report
from ..system.files import sweep, write_atomic, write_json
from ..train.cases import read_dataset
from .judging import Embedded, embedded, open_network, origins_of, shared_images, trained_on
from .measures import (
    COVERAGE_NEIGHBORS,
    MEASURES,
    Floor,
    few_images,
    measure_with_intervals,
    real_floor,
)

ALL = "all"


def fidelity(settings: Fidelity) -> list[dict[str, Any]]:
    """Measure a set of synthetic images against a set of real ones.

    Args:
        settings: See ``radiffuse.config.Fidelity``.

    Returns:
        The rows of ``fidelity.csv``: one per measure, and per strategy where the images tell theirs.

    Raises:
        InputError: Images or a network that cannot be used, or too few images.
    """
    real_set, fake_set = (
        read_dataset(path, settings.reader) for path in (settings.real, settings.fake)
    )
    network = open_network(settings.encoder, real_set)
    least = COVERAGE_NEIGHBORS + 1
    real, fake = (
        embedded(network, dataset, settings.reader, settings.machine, least)
        for dataset in (real_set, fake_set)
    )
    origins = origins_of(fake)
    warnings = _warnings(real, fake, origins)
    try:
        floor = real_floor(real.features, fake.features, real.groups, seed=settings.seed)
    except ValueError as error:
        warnings.append(f"there is no real-to-real floor: {error}")
        floor = None
    rows = [
        row | {"network": network.name}
        for part, chosen in _parts(origins)
        for row in _rows(settings, real, fake, part, chosen, floor if part == ALL else None)
    ]
    _show(rows, warnings)
    if settings.out is not None:
        import pandas as pd

        out = Path(settings.out)
        sweep(out)
        write_json(out / "warnings.json", warnings)
        write_atomic(out / "fidelity.csv", pd.DataFrame(rows).to_csv(index=False))
        print(f"report: {write_fidelity_report(out)}")
    return rows


# ------------------------------------------------------------------------------------------------ internal


def _parts(origins: Sequence[Origin]) -> list[tuple[str, list[int]]]:
    """All images, and those of each strategy where there are several."""
    parts = [(ALL, list(range(len(origins))))]
    names = sorted({origin.strategy for origin in origins})
    for name in names if len(names) > 1 else ():
        chosen = [i for i, origin in enumerate(origins) if origin.strategy == name]
        if len(chosen) > COVERAGE_NEIGHBORS:
            parts.append((name or "not told", chosen))
    return parts


def _rows(
    settings: Fidelity,
    real: Embedded,
    fake: Embedded,
    part: str,
    chosen: Sequence[int],
    floor: Floor | None,
) -> list[dict[str, Any]]:
    groups = fake.groups
    found = measure_with_intervals(
        real.features,
        fake.features[list(chosen)],
        real_groups=real.groups,
        fake_groups=[groups[i] for i in chosen],
        draws=settings.draws,
        seed=settings.seed,
    )
    rows = []
    for name in MEASURES:
        interval = found[name]
        row: dict[str, Any] = {
            "part": part,
            "measure": name,
            "value": interval.mean,
            "low": interval.low,
            "high": interval.high,
            "real": len(real.features),
            "synthetic": len(chosen),
            "patients": len(set(real.groups)),
        }
        if floor is not None:
            own = floor.real[name]
            row |= {
                "floor": float(own.mean()),
                "floor_low": float(own.min()),
                "floor_high": float(own.max()),
                "at_floor_size": float(np.mean(floor.fake[name])),
                "floor_size": floor.size,
            }
        rows.append(row)
    return rows


def _warnings(real: Embedded, fake: Embedded, origins: Sequence[Origin]) -> list[str]:
    warnings = []
    number, total = shared_images(real, fake), len(fake.features)
    if number:
        problem = f"{number} of {total} images of {fake.dataset.root} are images of the real set"
        warnings.append(f"{problem}: a set that is measured against itself proves nothing")
    names = set(real.names)
    children = sum(bool(names & set(origin.parents)) for origin in origins)
    if children:
        warnings.append(
            f"{children} of {total} synthetic images were drawn from images of the real set (their parents): "
            "measure against real images that were no references"
        )
    seen = trained_on(real, fake.dataset)
    if seen:
        warnings.append(
            f"the generator learned from {seen} of the {len(real.features)} real images: "
            "a generator that copies them would score best"
        )
    small = min(len(real.features), len(fake.features))
    if warning := few_images(small, real.features.shape[1]):
        warnings.append(warning)
    return warnings


def _show(rows: Sequence[dict[str, Any]], warnings: Sequence[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    first = rows[0]
    console.print(escape(f"features: {first['network']}"))
    console.print(
        f"{first['real']} real images of {first['patients']} patients, {first['synthetic']} synthetic"
    )
    for row in rows:
        line = f"{row['part']:<12} {row['measure']:<9} {row['value']:9.4f}"
        line += f"  ({row['low']:.4f} to {row['high']:.4f})"
        if "floor" in row:
            line += f"  at {row['floor_size']} images: {row['at_floor_size']:.4f}"
            line += f", real to real {row['floor']:.4f}"
        console.print(escape(line), soft_wrap=True)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
