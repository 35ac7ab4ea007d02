"""The search for copies among synthetic images."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Memorization
from ..data.provenance import Origin
from ..data.scan import Array
from ..errors import InputError
from ..reports.memorization import write_memorization_report
from ..system.files import sweep, write_atomic, write_json
from ..train.cases import read_dataset
from .copies import Nearest, Ruler, correlation, share_below, threshold_of
from .embedder import FeatureNetwork
from .embedding import fingerprint
from .encoder import Encoder, load_encoder
from .judging import Embedded, embedded, generator_of, open_network, origins_of, trained_on

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
LEAST = 2
SIDE = 192
"""Pixels of a picture in the report, at most."""


def memorization(settings: Memorization) -> Path:
    """Look for synthetic images that are copies of real ones.

    Args:
        settings: See ``radiffuse.config.Memorization``.

    Returns:
        The folder with ``nearest.csv``, ``real.csv``, ``summary.csv``, ``memorization.json``, ``pairs.npz`` and
        ``report.html``.

    Raises:
        InputError: Images or a network that cannot be used, or the network is the one that the generator was
            conditioned on.
    """
    import pandas as pd

    paths = [settings.real, settings.fake, *([settings.held_out] if settings.held_out else [])]
    datasets = [read_dataset(path, settings.reader) for path in paths]
    network = open_network(settings.encoder, datasets[0])
    warnings = _verify_encoder(settings, network, datasets[1])
    sets = [
        embedded(network, dataset, settings.reader, settings.machine, LEAST) for dataset in datasets
    ]
    real, fake, others = sets[0], sets[1], sets[-1] if settings.held_out else sets[0]
    try:
        ruler = Ruler(real.features, real.groups)
    except ValueError as error:
        raise InputError(real.dataset.root, str(error), "Give images of more patients") from None
    between = ruler.nearest(others.features, others.groups)
    found = ruler.nearest(fake.features)
    threshold = threshold_of(between.distance, settings.percentile)
    warnings += _warnings(settings, real, fake, others)

    origins = origins_of(fake)
    table = pd.DataFrame(_rows(real, fake, found, origins, threshold))
    summary = pd.DataFrame(_summary(fake, found, origins, threshold))
    out = Path(settings.out)
    sweep(out)
    write_atomic(out / "nearest.csv", table.to_csv(index=False))
    apart = pd.DataFrame({"image": others.names, "distance": between.distance})
    write_atomic(out / "real.csv", apart.to_csv(index=False))
    write_atomic(out / "summary.csv", summary.to_csv(index=False))
    write_atomic(out / "pairs.npz", _pairs(real, fake, found, settings.pairs))
    write_json(
        out / "memorization.json",
        {
            "network": network.name,
            "threshold": threshold,
            "percentile": settings.percentile,
            "real": len(real.features),
            "patients": len(set(real.groups)),
            "held_out": len(others.features) if settings.held_out else None,
            "warnings": warnings,
        },
    )
    report = write_memorization_report(out)
    _show(network, summary, threshold, settings, warnings)
    print(f"report: {report}")
    return out


# ------------------------------------------------------------------------------------------------ internal


def _verify_encoder(settings: Memorization, network: FeatureNetwork, fake: Any) -> list[str]:
    """Refuse the generator's own encoder: in its features, what it was told to draw is near by design."""
    if not isinstance(network.network, Encoder):
        return []
    _, run = generator_of(fake)
    own = run.model / "encoder" if run is not None else None
    if own is None or not own.is_dir():
        return [
            "it could not be checked that this encoder is another than the generator was conditioned on: "
            f"{fake.root} does not lead to its run"
        ]
    if fingerprint(load_encoder(str(own))) == fingerprint(network.network):
        raise InputError(
            f"--encoder {settings.encoder}",
            "is the encoder that the generator was conditioned on, which calls near what it was told to draw",
            "Choose another one, such as the default films-64",
        )
    return []


def _warnings(
    settings: Memorization, real: Embedded, fake: Embedded, others: Embedded
) -> list[str]:
    warnings = []
    _, run = generator_of(fake.dataset)
    if run is not None and not trained_on(real, fake.dataset):
        warnings.append(
            f"the generator learned from {run.data.get('root')}, not from {real.dataset.root}: "
            "copies can be found only among the images that it learned from"
        )
    common = set(real.groups) & set(others.groups)
    if settings.held_out and common:
        warnings.append(
            f"{len(common)} of the held-out patients are among the real ones; their own images were passed over"
        )
    if all(case.group == case.name for case in real.prepared.cases):
        warnings.append(
            "no patients are known, so images of one patient may count as copies of each other: "
            "say who they are with --reader.group or patients.csv"
        )
    return warnings


def _rows(
    real: Embedded,
    fake: Embedded,
    found: Nearest,
    origins: Sequence[Origin],
    threshold: float,
) -> list[dict[str, Any]]:
    rows = []
    for i, (name, origin) in enumerate(zip(fake.names, origins, strict=True)):
        near = int(found.index[i])
        rows.append(
            {
                "image": name,
                "strategy": origin.strategy,
                "nearest": real.names[near],
                "distance": float(found.distance[i]),
                "correlation": correlation(fake.prepared.image(i), real.prepared.image(near)),
                "parent": real.names[near] in origin.parents,
                "suspected": bool(found.distance[i] < threshold),
            }
        )
    return rows


def _summary(
    fake: Embedded, found: Nearest, origins: Sequence[Origin], threshold: float
) -> list[dict[str, Any]]:
    groups = fake.groups
    names = sorted({origin.strategy for origin in origins})
    parts = {ALL: list(range(len(origins)))}
    for name in names if len(names) > 1 else ():
        chosen = [i for i, origin in enumerate(origins) if origin.strategy == name]
        parts[name or "not told"] = chosen
    rows = []
    for part, chosen in parts.items():
        distances = found.distance[chosen]
        share = share_below(distances, threshold, [groups[i] for i in chosen])
        rows.append(
            {
                "strategy": part,
                "images": len(chosen),
                "suspected": share.mean,
                "low": share.low,
                "high": share.high,
                "smallest": float(distances.min()),
                "median": float(np.median(distances)),
            }
        )
    return rows


def _pairs(real: Embedded, fake: Embedded, found: Nearest, number: int) -> bytes:
    """The closest pairs as uint8 pictures ``(n, rows, columns)``, closest first."""
    order = np.argsort(found.distance, kind="stable")[:number]
    near = [int(found.index[i]) for i in order]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        fake=np.stack([_picture(fake.prepared.image(int(i))) for i in order]),
        real=np.stack([_picture(real.prepared.image(i)) for i in near]),
        fake_names=np.array([fake.names[int(i)] for i in order]),
        real_names=np.array([real.names[i] for i in near]),
        distance=found.distance[order],
    )
    return buffer.getvalue()


def _picture(image: Array) -> Array:
    gray = np.asarray(image, np.float32).mean(0)
    step = max(1, -(-max(gray.shape) // SIDE))
    picture: Array = ((gray[::step, ::step].clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    return picture


def _show(
    network: FeatureNetwork,
    summary: pd.DataFrame,
    threshold: float,
    settings: Memorization,
    warnings: Sequence[str],
) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    console.print(escape(f"features: {network.name}"))
    console.print(
        f"suspected below a distance of {threshold:.3f}, as are {100 - settings.percentile:g} % of real images of "
        "other patients",
        soft_wrap=True,
    )
    for row in summary.to_dict("records"):
        line = f"{row['strategy']:<12} {row['images']:>6} images  suspected {row['suspected']:.1%}"
        line += (
            f"  ({row['low']:.1%} to {row['high']:.1%})  smallest distance {row['smallest']:.3f}"
        )
        console.print(escape(line), soft_wrap=True)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
