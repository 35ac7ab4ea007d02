"""Segments without labels: features of all films clustered together, and clusters named once for the whole set.

Since a cluster is the same tissue in every film, the rule that names it sees the average of all films and is wrong
either everywhere or nowhere. The rule is ours, and uses no label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..data.streams import Stream
from ..data.transform import Undo, image_to_plan, map_to_scan
from ..errors import InputError
from ..system.files import read_json
from .dense import Dense

PLACES = 50_000
"""Places of all films together that are clustered, so that memory does not grow with their number."""
STARTS = 5
"""Runs of k-means, of which that with the least scatter counts."""
AT_BORDER = 0.5
"""A cluster at the border covers more than this part of what it would cover there if it lay anywhere. [ours]"""
BALANCE = 0.5
"""The smaller side of what is named has at least this part of the larger one. [ours]"""


class Clusters(TypedDict):
    """What ``clusters.json`` holds: k clusters of places, the lungs among them, and how they were recognized.

    ``centers`` are of features from which ``mean`` was subtracted and that were divided by ``std``; ``darkness`` is in
    standard deviations of a film below its mean; ``border`` is in units of what the cluster's size would give;
    ``left`` and ``right`` are shares of the film.
    """

    centers: list[list[float]]
    mean: list[float]
    std: list[float]
    lung: list[bool]
    darkness: list[float]
    border: list[float]
    left: list[float]
    right: list[float]
    films: int


@dataclass(frozen=True)
class Places:
    """Places of a film.

    Attributes:
        features: ``(n, F)``.
        gray: In standard deviations from the film's mean, ``(n,)``.
        border: Whether a place is at the film's border, ``(n,)``.
        left: Whether it is in its left half, ``(n,)``.
    """

    features: NDArray[np.float32]
    gray: NDArray[np.float32]
    border: NDArray[np.bool_]
    left: NDArray[np.bool_]


def places_of(image: Array, undo: Undo, features: Tensor) -> Places:
    """The places of a film ``(C, rows, columns)`` on the plan's grid, whose padding is left out.

    Args:
        image: As the network sees it.
        undo: Where the film lies in it.
        features: ``(F, h, w)``.
    """
    shape = (int(features.shape[1]), int(features.shape[2]))
    gray = functional.adaptive_avg_pool2d(torch.from_numpy(image).mean(0)[None], shape)[0].numpy()
    inside = []
    for axis, count in enumerate(shape):
        center = (np.arange(count) + 0.5) * image.shape[1 + axis] / count
        first = undo.offset[axis]
        inside.append(np.flatnonzero((center >= first) & (center < first + undo.inner[axis])))
    rows, columns = inside
    window = np.ix_(rows, columns)
    gray = gray[window]
    border = np.ones(gray.shape, bool)
    border[1:-1, 1:-1] = False
    left = np.broadcast_to(np.arange(len(columns)) < len(columns) / 2, gray.shape)
    values = features.cpu().numpy()[:, window[0], window[1]]
    gray = (gray - gray.mean()) / (gray.std() or 1.0)
    flat = values.reshape(len(values), -1).T
    return Places(flat, gray.ravel(), border.ravel(), left.ravel())


def find_clusters(films: Iterable[Places], number: int, count: int, seed: int) -> Clusters:
    """Cluster the places of all films and name the lungs.

    Args:
        films: Their places, ``number`` films at most; they are read once, one at a time.
        number: Of films.
        count: k, the number of clusters.
        seed: Of the choice of places and the starts of k-means.

    Raises:
        ValueError: There are fewer places than clusters.
    """
    kept, read = [], 0
    share = max(1, PLACES // max(1, number))
    for i, film in enumerate(films):
        rng, read = Stream.CLUSTERS.rng(seed, i), read + 1
        rows = np.sort(rng.permutation(len(film.gray))[:share])
        parts = film.features, film.gray, film.border, film.left
        kept.append(tuple(part[rows] for part in parts))
    features, gray, border, left = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    if len(features) < count:
        raise ValueError(f"{len(features)} places cannot form {count} clusters")
    mean, std = scale_of(features)
    centers, labels = k_means((features - mean) / std, count, seed)
    belongs = (labels == np.arange(count)[:, None]).astype(np.float64)
    each = belongs.sum(1).clip(1)
    order = np.argsort((belongs @ gray) / each)  # the darkest first
    belongs, each, centers = belongs[order], each[order], centers[order]
    facts: dict[str, Any] = {
        "darkness": -(belongs @ gray) / each,
        "border": (belongs @ border) / each / border.mean(),
        "left": belongs @ left / len(gray),
        "right": belongs @ ~left / len(gray),
    }
    named = name_clusters(**facts)
    facts |= {"centers": centers, "mean": mean, "std": np.where(np.isinf(std), 0.0, std)}
    lists = {name: value.tolist() for name, value in facts.items()}
    return cast(Clusters, lists | {"lung": named.tolist(), "films": read})


def name_clusters(darkness: Array, border: Array, left: Array, right: Array) -> NDArray[np.bool_]:
    """Which clusters are lungs, ``(k,)``: darker than the film and rarely at its border, and together on both sides.

    None is, if together they lie mostly on one side. Arguments as of ``Clusters``.
    """
    named: NDArray[np.bool_] = (darkness > 0) & (border < AT_BORDER)
    sides = sorted((float(left[named].sum()), float(right[named].sum())))
    return named if sides[1] > 0 and sides[0] >= BALANCE * sides[1] else np.zeros_like(named)


def segment_by_clusters(
    clusters: Clusters, dense: Dense, plan: Plan, scan: Scan, device: torch.device
) -> tuple[Array, Array]:
    """Clusters and lungs of a film on its own grid, each ``(rows, columns)``: 0 to k - 1, and 0 or 1.

    The nearest center is that of the largest score, which is linear in the features. So enlarging scores is enlarging
    features, and borders are finer than the grid.
    """
    image, undo = image_to_plan(scan, plan)
    features = dense(torch.from_numpy(image).to(device)).cpu()
    mean, std, centers = (torch.tensor(clusters[n]) for n in ("mean", "std", "centers"))
    if len(mean) != len(features):
        raise InputError("clusters.json", "is of other features", "Remove the folder of the masks")
    scaled = torch.where(std > 0, 1 / std, 0.0)[:, None, None] * (features - mean[:, None, None])
    scores = (
        2 * torch.einsum("fhw,kf->khw", scaled, centers) - centers.square().sum(1)[:, None, None]
    )
    fine = functional.interpolate(scores[None], plan.size, mode="bilinear", align_corners=False)[0]
    labels: Array = np.stack([map_to_scan(score, undo) for score in fine]).argmax(0)
    return labels, np.isin(labels, np.flatnonzero(clusters["lung"]))


def read_places(
    scans: Iterable[Scan], dense: Dense, plan: Plan, device: torch.device
) -> Iterator[Places]:
    """The places of films, one at a time."""
    for scan in scans:
        image, undo = image_to_plan(scan, plan)
        yield places_of(image, undo, dense(torch.from_numpy(image).to(device)))


Kept = TypeVar("Kept")


def read_clusters(path: Path, kind: type[Kept]) -> Kept | None:
    """The clusters of a folder of masks, of the TypedDict ``kind``; None where it has none yet.

    Raises:
        InputError: The file is damaged, or of the other kind.
    """
    if not path.is_file():
        return None
    known: Kept = read_json(path, kind)
    remedy = "Restore it, or choose another --out"
    if missing := sorted(kind.__required_keys__ - known.keys()):  # type: ignore[attr-defined]
        raise InputError(path, f"lacks {missing[0]}", remedy)
    values = cast(dict[str, Any], known)
    if len({len(row) for row in (*values["centers"], values["mean"], values["std"])}) > 1:
        raise InputError(path, "has centers, a mean and a std of different lengths", remedy)
    return known


def scale_of(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of features ``(n, F)``; infinite for constant ones, which then count as 0."""
    mean, std = features.mean(0), features.std(0)
    rounding = 1e-6 * np.maximum(max(float(std.max()), 1e-12), abs(mean))
    return mean, np.where(std > rounding, std, np.inf)


def k_means(
    points: NDArray[np.float32], count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Centers and labels with the least scatter of several runs of k-means++ (Arthur and Vassilvitskii 2007)."""
    from scipy.cluster.vq import ClusterError, kmeans2

    best: tuple[float, Any, Any] | None = None
    for start in range(STARTS):
        rng = Stream.CLUSTERS.rng(seed, -1 % 2**32, start)
        try:
            with np.errstate(
                invalid="ignore", divide="ignore"
            ):  # fewer distinct places than clusters
                centers, labels = kmeans2(
                    points, count, iter=50, minit="++", missing="raise", seed=rng
                )
        except ClusterError:  # a cluster has become empty
            continue
        scatter = float(((points - centers[labels]) ** 2).sum())
        if best is None or scatter < best[0]:
            best = scatter, centers, labels
    if best is None:
        raise ValueError(f"the places form fewer than {count} clusters")
    return best[1], best[2]
