"""Judging a set of synthetic images: fidelity to real ones, and whether they are copies of the training images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..config import Judge
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.provenance import Origin, generation_settings
from ..data.scan import Array, gray_values
from ..errors import InputError, RunError
from ..evaluation.statistics import clustered_share
from ..nets.encoder import Encoder, load_encoder
from ..train.cases import open_more
from ..train.known import learned_images
from ..train.run import Run
from .copies import Floats, Nearest, Ruler, correlation, threshold_of
from .embedding import fingerprint
from .feature_network import (
    FeatureNetwork,
    ImageSet,
    open_images,
    open_network,
    verify_films,
    verify_number,
)
from .fidelity import (
    COVERAGE_NEIGHBORS,
    Floor,
    few_images,
    frechet_distance,
    measure_with_intervals,
    real_floor,
)

ALL = "all"
LEAST_FOR_COPIES = 2
SIDE = 192
"""Pixels of a picture in the report, at most."""

Rows = list[dict[str, Any]]


@dataclass
class Judgment:
    """What was found about a set of synthetic images.

    Attributes:
        network: Name of the feature network.
        warnings: Reasons to doubt the numbers.
        tables: Rows by table. ``fidelity``: a measure each, of all images and of each strategy where there are
            several. ``nearest``: a synthetic image each; ``real``: a real one each; ``summary``: a strategy each.
        copies: The threshold of the search for copies, and the numbers of images; empty without the search.
        pairs: Closest pairs as pictures, uint8 ``(n, rows, columns)``, with names and distances; empty likewise.
    """

    network: str
    warnings: list[str] = field(default_factory=list)
    tables: dict[str, Rows] = field(default_factory=dict)
    copies: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, Array] = field(default_factory=dict)


def judge_images(settings: Judge) -> Judgment:
    """Measure and compare the images; every set is read and embedded once.

    Raises:
        InputError: Images or a network that cannot be used, or too few images; or copies are to be found with the
            encoder that the generator was conditioned on.
    """
    judgment, network, datasets, least = open_judged(settings)
    sets = {
        path: open_images(network, datasets[path], settings.reader, settings.machine, number)
        for path, number in least.items()
    }
    if "fidelity" in settings.only:
        _measure(settings, judgment, sets[settings.real], sets[settings.fake])
    if "memorization" in settings.only:
        trained = settings.trained or settings.real
        others = sets[settings.held_out or trained]
        _find_copies(settings, judgment, sets[trained], sets[settings.fake], others)
    return judgment


def open_judged(
    settings: Judge,
) -> tuple[Judgment, FeatureNetwork, dict[str, Dataset], dict[str, int]]:
    """Open the images and the network; nothing is embedded yet.

    Returns:
        The judgment so far, the network, the sets by path, and the least number of images of those to embed.

    Raises:
        InputError: As ``judge_images``.
    """
    with_fidelity, with_copies = "fidelity" in settings.only, "memorization" in settings.only
    if not settings.only:
        raise InputError("--only", "names none", "Choose fidelity, memorization or both")
    least = dict.fromkeys((settings.real, settings.fake), LEAST_FOR_COPIES)
    if with_fidelity:
        least = dict.fromkeys(least, COVERAGE_NEIGHBORS + 1)
    trained = settings.trained or settings.real
    if with_copies:
        least |= {p: LEAST_FOR_COPIES for p in (trained, settings.held_out) if p and p not in least}
    datasets = {
        path: (open_more if path == settings.fake else open_dataset)(path, settings.reader)
        for path in least
    }
    network = open_network(settings.encoder, datasets[settings.real])
    judgment = Judgment(network.name)
    if with_copies:
        judgment.warnings += _verify_encoder(settings, network, datasets[settings.fake])
    if not with_fidelity and trained != settings.real:
        del least[settings.real]
    for path, number in least.items():
        verify_number(datasets[path].root, len(datasets[path]), number)
        verify_films(datasets[path])
    return judgment, network, datasets, least


def parts_of(origins: Sequence[Origin], least: int = 1) -> dict[str, list[int]]:
    """Rows of all images, and of each strategy with at least ``least`` images, if there are several strategies."""
    parts = {ALL: list(range(len(origins)))}
    names = sorted({origin.strategy for origin in origins})
    for name in names if len(names) > 1 else ():
        rows = [i for i, origin in enumerate(origins) if origin.strategy == name]
        if len(rows) >= least:
            parts[name or "unknown"] = rows
    return parts


# ------------------------------------------------------------------------------------------------ fidelity


def _measure(settings: Judge, judgment: Judgment, real: ImageSet, fake: ImageSet) -> None:
    judgment.warnings += _doubts_about_fidelity(real, fake)
    floor = None
    try:
        floor = real_floor(real.features, fake.features, real.groups, seed=settings.seed)
    except ValueError as error:
        judgment.warnings.append(f"there is no real-to-real floor: {error}")
    judgment.tables["fidelity"] = [
        row | {"network": judgment.network}
        for part, rows in parts_of(fake.origins, COVERAGE_NEIGHBORS + 1).items()
        for row in _fidelity_rows(settings, real, fake, part, rows, floor if part == ALL else None)
    ]


def _fidelity_rows(
    settings: Judge,
    real: ImageSet,
    fake: ImageSet,
    part: str,
    chosen: list[int],
    floor: Floor | None,
) -> Rows:
    groups, rows = fake.groups, []
    intervals = measure_with_intervals(
        real.features,
        fake.features[chosen],
        real_groups=real.groups,
        fake_groups=[groups[i] for i in chosen],
        draws=settings.draws,
        seed=settings.seed,
    )
    for name, interval in intervals.items():
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
        if name == "frechet":
            row["uncorrected"] = frechet_distance(real.features, fake.features[chosen])
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


def _doubts_about_fidelity(real: ImageSet, fake: ImageSet) -> list[str]:
    warnings, total = [], len(fake.features)
    known = set(real.hashes())
    if number := sum(film in known for film in fake.hashes()):
        warnings.append(
            f"{number} of {total} images of {fake.dataset.root} are images of the real set: "
            "measuring a set against itself proves nothing"
        )
    names = set(real.names)
    if number := sum(bool(names & set(origin.parents)) for origin in fake.origins):
        warnings.append(
            f"{number} of {total} synthetic images were made from images of the real set (their parents): "
            "measure against real images that were no references"
        )
    if number := _trained_on(real, fake):
        warnings.append(
            f"the generator learned from {number} of the {len(real.features)} real images: "
            "a generator that copies them would score best"
        )
    if warning := few_images(min(len(real.features), total), real.features.shape[1]):
        warnings.append(warning)
    return warnings


# ------------------------------------------------------------------------------------------------ copies


def _find_copies(
    settings: Judge, judgment: Judgment, trained: ImageSet, fake: ImageSet, others: ImageSet
) -> None:
    try:
        ruler = Ruler(trained.features, trained.groups)
    except ValueError as error:
        raise InputError(trained.dataset.root, str(error), "Give images of more patients") from None
    between, _ = ruler.nearest(others.features, others.groups)
    nearest = distances, places = ruler.nearest(fake.features)
    threshold = threshold_of(between, settings.percentile)
    held_out = others if settings.held_out else None
    judgment.warnings += _doubts_about_copies(trained, fake, held_out)
    judgment.tables["nearest"] = [
        {
            "image": fake.names[i],
            "strategy": origin.strategy,
            "nearest": trained.names[near],
            "distance": float(distance),
            "correlation": correlation(fake.prepared.image(i), trained.prepared.image(near)),
            "parent": trained.names[near] in origin.parents,
            "suspected": bool(distance < threshold),
        }
        for i, (origin, near, distance) in enumerate(
            zip(fake.origins, places.tolist(), distances, strict=True)
        )
    ]
    judgment.tables["real"] = [
        {"image": name, "distance": float(distance)}
        for name, distance in zip(others.names, between, strict=True)
    ]
    judgment.tables["summary"] = _summary(fake, distances, threshold)
    judgment.pairs = _closest_pairs(trained, fake, nearest, settings.pairs)
    judgment.copies = {
        "threshold": threshold,
        "percentile": settings.percentile,
        "real": len(trained.features),
        "patients": len(set(trained.groups)),
        "held_out": len(others.features) if held_out else None,
    }


def _summary(fake: ImageSet, distances: Floats, threshold: float) -> Rows:
    rows, groups = [], fake.groups
    for part, chosen in parts_of(fake.origins).items():
        own = distances[chosen]
        near = (own < threshold).astype(np.float64)
        suspected = clustered_share(near, [groups[i] for i in chosen])
        rows.append(
            {
                "strategy": part,
                "images": len(chosen),
                "suspected": suspected.mean,
                "low": suspected.low,
                "high": suspected.high,
                "smallest": float(own.min()),
                "median": float(np.median(own)),
            }
        )
    return rows


def _closest_pairs(
    trained: ImageSet, fake: ImageSet, nearest: Nearest, number: int
) -> dict[str, Array]:
    distances, places = nearest
    order = np.argsort(distances, kind="stable")[:number].tolist()
    near = places[order].tolist()
    return {
        "fake": np.stack([_picture(fake.prepared.image(i)) for i in order]),
        "real": np.stack([_picture(trained.prepared.image(i)) for i in near]),
        "fake_names": np.array([fake.names[i] for i in order]),
        "real_names": np.array([trained.names[i] for i in near]),
        "distance": distances[order],
    }


def _picture(image: Array) -> Array:
    gray = np.asarray(image, np.float32).mean(0)
    step = max(1, -(-max(gray.shape) // SIDE))
    return gray_values(gray[::step, ::step])


def _doubts_about_copies(trained: ImageSet, fake: ImageSet, held_out: ImageSet | None) -> list[str]:
    warnings = []
    run = _generator_of(fake.dataset)
    if run is not None and not _trained_on(trained, fake):
        warnings.append(
            f"the generator learned from {run.data.get('root')}, not from {trained.dataset.root}: "
            "copies can be found only among the images that it learned from"
        )
    if held_out and (common := set(trained.groups) & set(held_out.groups)):
        warnings.append(
            f"{len(common)} of the held-out patients are among the real ones; their own images were left out"
        )
    if all(case.group == case.name for case in trained.prepared.cases):
        warnings.append(
            "no patients are known, so images of one patient may count as copies of each other: "
            "say who they are with --reader.group or patients.csv"
        )
    return warnings


# ------------------------------------------------------------------------------------------------ the generator


def _generator_of(fake: Dataset) -> Run | None:
    """The run that generated the images, if it can be found."""
    run = str(generation_settings(fake).get("run") or "")
    try:
        return Run.open(run) if os.path.isdir(run) else None
    except RunError:
        return None


def _trained_on(real: ImageSet, fake: ImageSet) -> int:
    """How many images of the real set the generator is known to have learned from."""
    run = _generator_of(fake.dataset)
    if run is None:
        return 0
    return len({*learned_images(run, real.dataset)} & {*real.names})


def _verify_encoder(settings: Judge, network: FeatureNetwork, fake: Dataset) -> list[str]:
    """Refuse the generator's own encoder: in its features, an image is near its parents by design."""
    if not isinstance(network.network, Encoder):
        return []
    run = _generator_of(fake)
    if run is None or not (own := run.model / "encoder").is_dir():
        return [
            "it could not be checked whether the generator was conditioned on this encoder: "
            f"the run that made {fake.root} was not found"
        ]
    if fingerprint(load_encoder(str(own))) == fingerprint(network.network):
        problem = "is the encoder that the generator was conditioned on, so every image lies near its parents"
        remedy = "Choose another one, such as the default films-64, or --only fidelity"
        raise InputError(f"--encoder {settings.encoder}", problem, remedy)
    return []
