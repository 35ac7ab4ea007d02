"""Which scans to label: typical and diverse ones before there is a model, uncertain ones once there is.

Both are rules that held against chance where many others did not: clusters of features and the most typical scan of
each (TypiClust, Hacohen et al. 2022, arXiv 2202.02794), and uncertainty balanced over classes with noise that fades as
labels come in (ClaSP PE, Lüth et al. 2026, arXiv 2601.13677). There patches are chosen, here whole scans.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COMPONENTS = 32
"""Most principal components of the features that are clustered [ours]."""
MOST_CLUSTERS = 500
"""Most clusters [paper]."""
TRIES = 10
"""Starts of k-means, of which the tightest clusters are taken."""
NEIGHBORS = 20
"""Nearest neighbors of the same cluster whose mean distance says how typical a scan is [paper]."""
SMALLEST = 5
"""Scans of a cluster below which it counts as a few odd ones, where the pool is large enough for that [paper]."""
STEADIEST = 100.0
"""Largest exponent of the uncertainty [paper: the last of its schedule]."""
ABSENT = 0.1
"""Fraction of a class's median volume that damps the uncertainty of scans that hardly show it [ours]."""


def typical(
    features: Floats,
    groups: Sequence[Hashable],
    count: int,
    *,
    labelled: Collection[int] = (),
    seed: int = 0,
) -> list[tuple[int, int]]:
    """Typical and diverse scans: the most typical one of each of the largest clusters without a label.

    Args:
        features: ``(N, D)``.
        groups: Patient of each scan. One scan of a patient is chosen, and none of those with labels, as long as there
            are others.
        count: Scans to choose, at most N minus those labelled.
        labelled: Places of scans that have labels, or were chosen before.
        seed: Of the clusters.

    Returns:
        Place of each chosen scan and the size of its cluster, in the order of choice.
    """
    points = _components(features)
    clusters = _clusters(points, min(len(labelled) + count, MOST_CLUSTERS), seed)
    sizes, held = (
        np.bincount(clusters),
        np.bincount(clusters[list(labelled)], minlength=len(points)),
    )
    odd = sizes < min(SMALLEST, len(points) // (2 * len(sizes)))
    typicality = _typicality(points, clusters)
    free = _Free(groups)
    for place in labelled:
        free.take(place)
    chosen: list[tuple[int, int]] = []
    for _ in range(count):
        open_ = free.open()
        order = sorted(range(len(sizes)), key=lambda k: (odd[k], held[k], -sizes[k]))
        first = next(k for k in order if (open_ & (clusters == k)).any())
        inside = np.flatnonzero(open_ & (clusters == first))
        best = int(inside[typicality[inside].argmax()])
        free.take(best)
        held[first] += 1
        chosen.append((best, int(sizes[first])))
    return chosen


def uncertain(
    entropy: Floats,
    volume: Floats,
    groups: Sequence[Hashable],
    count: int,
    *,
    labels: int,
    seen: Collection[Hashable] = (),
    seed: int = 0,
) -> list[tuple[int, int, float]]:
    """Scans about which a segmenter is uncertain, the classes in turn, the most uncertain class first.

    The score of a scan in a class is its mean entropy u where the class may be; the scan with the largest
    ``labels * log u`` plus standard Gumbel noise is chosen, that is, scans are drawn in proportion to u^labels: with a
    few labels a model's uncertainty says little [paper: an exponent that grows from 1 to 100 over the rounds; ours: the
    number of labels].

    Args:
        entropy: ``(N, K)``: sum over voxels of the probability of each foreground class times the entropy, see
            ``quality.uncertainty_of``.
        volume: ``(N, K)``: sum of the probability.
        groups: As of ``typical``.
        count: Scans to choose, at most N.
        labels: Labelled scans that the segmenter learned from.
        seen: Patients that have labels.
        seed: Of the noise.

    Returns:
        Place of each chosen scan, the class that it was chosen for (0 is the first of the foreground), and u there:
        the most uncertain scan of a class first, the classes in turn.
    """
    mean = entropy / np.maximum(volume + ABSENT * np.median(volume, axis=0), 1.0)
    noise = np.random.default_rng(seed).gumbel(size=mean.shape)
    keys = min(max(labels, 1), STEADIEST) * np.log(np.maximum(mean, 1e-12)) + noise
    turns = np.argsort(-mean.mean(0), kind="stable")
    free = _Free(groups, seen)
    chosen = []
    for number in range(count):
        k = int(turns[number % len(turns)])
        best = int(np.where(free.open(), keys[:, k], -np.inf).argmax())
        free.take(best)
        chosen.append((best, k, float(mean[best, k])))
    ordered = {
        k: iter(sorted((c for c in chosen if c[1] == k), key=lambda c: -c[2])) for k in turns
    }
    return [next(ordered[k]) for _, k, _ in chosen]


# ------------------------------------------------------------------------------------------------ internal


class _Free:
    """The scans that may still be chosen: of patients without a label, as long as there are any."""

    def __init__(self, groups: Sequence[Hashable], seen: Collection[Hashable] = ()) -> None:
        numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        self.groups = np.array([numbers[group] for group in groups])
        self.scans = np.ones(len(groups), bool)
        self.patients = np.array([group not in seen for group in numbers])

    def take(self, place: int) -> None:
        self.scans[place] = self.patients[self.groups[place]] = False

    def open(self) -> NDArray[np.bool_]:
        fresh: NDArray[np.bool_] = self.scans & self.patients[self.groups]
        return fresh if fresh.any() else self.scans


def _components(features: Floats) -> Floats:
    """Standardized features, reduced to their principal components ``(N, at most COMPONENTS)``."""
    spread = features.std(0)
    varied = spread > 1e-6 * spread.max(initial=0)
    if not varied.any():
        return np.zeros((len(features), 1))
    points = (features - features.mean(0))[:, varied] / spread[varied]
    axes = np.linalg.eigh(points.T @ points)[1]
    reduced: Floats = points @ axes[:, ::-1][:, :COMPONENTS]
    return reduced


def _clusters(points: Floats, number: int, seed: int) -> NDArray[np.intp]:
    """Cluster of each point, at most ``number`` of them, none empty: the best of a few k-means."""
    from scipy.cluster.vq import kmeans2

    number = min(number, len(np.unique(points, axis=0)))
    tries = []
    for i in range(TRIES):
        rng = np.random.default_rng((seed, i))
        with warnings.catch_warnings(action="ignore"):  # an empty cluster is no cluster
            centers, labels = kmeans2(points, number, minit="++", seed=rng)
        tries.append((float(((points - centers[labels]) ** 2).sum()), i, labels))
    return np.unique(min(tries)[2], return_inverse=True)[1]


def _typicality(points: Floats, clusters: NDArray[np.intp]) -> Floats:
    """The negative mean distance to the nearest neighbors of the same cluster; alone, a scan is not typical."""
    from scipy.spatial import KDTree

    result = np.full(len(points), -np.inf)
    for k in np.unique(clusters):
        inside = np.flatnonzero(clusters == k)
        near = min(NEIGHBORS, len(inside) - 1)
        if near:
            away, _ = KDTree(points[inside]).query(points[inside], near + 1)
            result[inside] = -np.asarray(away)[:, 1:].mean(1)
    return result
