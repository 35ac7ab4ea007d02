"""Fidelity: how near a set of synthetic images comes to a set of real ones, in the features of a named network.

A number holds for its network and its sample sizes; those of different networks cannot be compared. The Fréchet
distance (Heusel et al. 2017) compares means and covariances, and is biased upwards in small samples; the kernel
distance (Bińkowski et al. 2018) is unbiased. Precision and recall (Kynkäänniemi et al. 2019), density and coverage
(Naeem et al. 2020) ask whether images lie in the manifold of the other set: in the union of balls around its images.

Intervals are over images, or over patients where they are known: of the two distances by the bootstrap, of the others
Student's (``evaluation.statistics``). That of the Fréchet distance lies
around its value corrected for the bias (``without_bias``), by *basic* reflection of the bootstrap distribution (Davison
and Hinkley 1997, section 5.2); the plain value is biased upwards and often lies above it. In the measures of manifolds
the balls are kept and only what falls into them is resampled, because copies of an image would shrink its ball to
nothing.

Here ``real``, ``fake``, ``a`` and ``b`` are features, one row per image, float64 ``(images, d)``; ``groups`` are the
patients of the rows, None where each image is its own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.streams import Stream
from ..evaluation.statistics import (
    LEVELS,
    Interval,
    clustered_mean,
    clustered_share,
    group_weights,
)

Floats = NDArray[np.float64]

MEASURES = ("frechet", "kernel", "precision", "recall", "density", "coverage")
MANIFOLD_NEIGHBORS = 3
"""k of precision and recall [paper: Kynkäänniemi et al. 2019]."""
COVERAGE_NEIGHBORS = 5
"""k of density and coverage [paper: Naeem et al. 2020]."""
IMAGES_PER_FEATURE = 5
"""Fewer images per feature are called few: the usual 10,000 images for 2048 features [related: Heusel et al. 2017]."""
PART_SHARES, PARTS_EACH = (0.5, 0.65, 0.8), 20
"""Parts of the images between which the Fréchet distance is extrapolated, and how many of each [ours]."""
BLOCK = 2048
"""Rows of a matrix of distances that are in memory at a time."""


def frechet_distance(a: Floats, b: Floats) -> float:
    """Squared Fréchet distance of two Gaussians with the samples' means and covariances.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (Heusel et al. 2017, eq. 6). The trace of the root is the sum
    of the singular values of ``R_a R_b^T`` for any roots ``C = R^T R``, which is exact for singular covariances too.
    Both need two rows.
    """
    mean = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    first, second = _root(a), _root(b)
    cross = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    traces = float((first**2).sum() + (second**2).sum())
    return max(0.0, mean + float(traces - 2 * cross))


def without_bias(
    real: Floats,
    fake: Floats,
    real_groups: Sequence[Hashable] | None = None,
    fake_groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> float:
    """The Fréchet distance of samples without end, by extrapolation (Chong and Forsyth 2020, FID infinity).

    The bias falls as 1 / n, so the distances of parts of both sets lie on a line over n / (size of the part), of which
    0 is the end. Parts are of patients where they are known. It may be slightly below 0 for sets of one distribution.
    With few images per feature the bias is no longer a line, and what the bootstrap corrects even less of it.
    """
    codes = [
        np.unique(_words(groups), return_inverse=True)[1]
        if groups is not None
        else np.arange(len(rows))
        for rows, groups in ((real, real_groups), (fake, fake_groups))
    ]
    whole = frechet_distance(real, fake)
    rng, inverse, distances = Stream.MEASURES.rng(seed, 1), [1.0] * PARTS_EACH, [whole] * PARTS_EACH
    for share in np.repeat(PART_SHARES, PARTS_EACH):
        parts, ratios = [], []
        for rows, code in zip((real, fake), codes, strict=True):
            total = int(code.max()) + 1
            chosen = rng.permutation(total)[: max(1, round(share * total))]
            parts.append(rows[np.isin(code, chosen)])
            ratios.append(total / len(chosen))
        if min(map(len, parts)) > 1:
            inverse.append(float(np.mean(ratios)))
            distances.append(frechet_distance(*parts))
    if np.ptp(inverse) == 0:  # a single patient: nothing to extrapolate
        return whole
    return float(np.polyfit(inverse, distances, 1)[1])


def _words(groups: Sequence[Hashable]) -> NDArray[np.str_]:
    return np.array([repr(group) for group in groups])


def _root(features: Floats) -> Floats:
    """``R`` with ``R^T R`` the covariance; as few rows as there are features, or images."""
    centered = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    if len(centered) > centered.shape[1]:
        centered = np.linalg.qr(centered).R
    return np.asarray(centered, np.float64)


def kernel_distance(a: Floats, b: Floats) -> float:
    """Squared maximum mean discrepancy with the kernel ``(x y / d + 1)^3``, unbiased (Bińkowski et al. 2018).

    About 0 for samples of one distribution, and then as often below it as above. Both need two rows.
    """
    parts = _kernels(a, b)
    return float(_discrepancy(*parts, np.ones((1, len(a))), np.ones((1, len(b))))[0])


def _kernels(a: Floats, b: Floats) -> tuple[Floats, Floats, Floats]:
    def kernel(x: Floats, y: Floats) -> Floats:
        values: Floats = (x @ y.T / x.shape[1] + 1) ** 3
        return values

    own, other = kernel(a, a), kernel(b, b)
    np.fill_diagonal(own, 0)
    np.fill_diagonal(other, 0)
    return own, other, kernel(a, b)


def _discrepancy(
    own: Floats, other: Floats, cross: Floats, weights_a: Floats, weights_b: Floats
) -> Floats:
    """Unbiased discrepancies ``(draws,)`` for weights ``(draws, n)`` and ``(draws, m)``.

    Pairs of an image with itself, or with its copy in a resample, are left out.
    """

    def within(matrix: Floats, weights: Floats) -> Floats:
        pairs = weights.sum(1) ** 2 - (weights**2).sum(1)
        total: Floats = ((weights @ matrix) * weights).sum(1) / pairs
        return total

    between = ((weights_a @ cross) * weights_b).sum(1) / (weights_a.sum(1) * weights_b.sum(1))
    result: Floats = within(own, weights_a) + within(other, weights_b) - 2 * between
    return result


def pairwise_distances(a: Floats, b: Floats) -> Iterator[tuple[int, Floats]]:
    """Euclidean distances of rows of ``a`` to all rows of ``b``, in blocks: first row, and ``(rows, m)``."""
    from scipy.spatial.distance import cdist

    for start in range(0, len(a), BLOCK):
        yield start, cdist(a[start : start + BLOCK], b)


def neighbor_radii(features: Floats, k: int) -> Floats:
    """Distance of every row to its k-th nearest other row, ``(n,)``.

    Raises:
        ValueError: There are not more than k rows.
    """
    if len(features) <= k:
        raise ValueError(f"{k} neighbors need more than {k} images, there are {len(features)}")
    radii = np.empty(len(features))
    for start, distances in pairwise_distances(features, features):
        rows = np.arange(len(distances))
        distances[rows, start + rows] = -1.0  # the image itself comes first
        radii[start : start + len(distances)] = np.partition(distances, k, axis=1)[:, k]
    return radii


def inside_manifold(features: Floats, reference: Floats, k: int) -> NDArray[np.bool_]:
    """Whether each row lies in the ball of any reference row, ``(n,)``; a ball reaches to the k-th neighbor."""
    radii = neighbor_radii(reference, k)
    return np.concatenate([(d <= radii).any(1) for _, d in pairwise_distances(features, reference)])


def density_of(fake: Floats, real: Floats, k: int) -> Floats:
    """Number of real balls around each fake row, in units of k, ``(n,)``; its mean is the density."""
    radii = neighbor_radii(real, k)
    counts = [(d <= radii).sum(1) for _, d in pairwise_distances(fake, real)]
    return np.concatenate(counts).astype(np.float64) / k


def covered(fake: Floats, real: Floats, k: int) -> NDArray[np.bool_]:
    """Whether a fake row lies in the ball of each real row, ``(m,)``; the mean is the coverage."""
    radii = neighbor_radii(real, k)
    nearest = [d.min(1) for _, d in pairwise_distances(real, fake)]
    inside: NDArray[np.bool_] = np.concatenate(nearest) <= radii
    return inside


def measure(real: Floats, fake: Floats) -> dict[str, float]:
    """All measures of two samples, by name (``MEASURES``)."""
    distances = {"frechet": frechet_distance(real, fake), "kernel": kernel_distance(real, fake)}
    return distances | {name: float(v.mean()) for name, v in in_manifolds(real, fake).items()}


def in_manifolds(real: Floats, fake: Floats) -> dict[str, Floats]:
    """The contribution of each image to the measures of manifolds, each of which is the mean of its contributions.

    Returns:
        ``precision`` and ``density`` ``(m,)``, of fake images; ``recall`` and ``coverage`` ``(n,)``, of real ones.
    """
    return {
        "precision": inside_manifold(fake, real, MANIFOLD_NEIGHBORS).astype(np.float64),
        "recall": inside_manifold(real, fake, MANIFOLD_NEIGHBORS).astype(np.float64),
        "density": density_of(fake, real, COVERAGE_NEIGHBORS),
        "coverage": covered(fake, real, COVERAGE_NEIGHBORS).astype(np.float64),
    }


def measure_with_intervals(
    real: Floats,
    fake: Floats,
    *,
    real_groups: Sequence[Hashable] | None = None,
    fake_groups: Sequence[Hashable] | None = None,
    draws: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """All measures with bootstrap intervals of 95 %, see the module; synthetic images have their parents' patients.

    The Fréchet distance is the one corrected for its bias.
    """
    rng = Stream.MEASURES.rng(seed)
    weights_real = group_weights(real_groups, len(real), draws, rng)
    weights_fake = group_weights(fake_groups, len(fake), draws, rng)
    number = min(len(real), len(fake))

    resampled = [
        frechet_distance(np.repeat(real, w.astype(int), 0), np.repeat(fake, v.astype(int), 0))
        for w, v in zip(weights_real, weights_fake, strict=True)
        if (w > 0).sum() > 1 and (v > 0).sum() > 1
    ]
    distance = without_bias(real, fake, real_groups, fake_groups, seed=seed)
    low, high = np.maximum(0, distance + np.mean(resampled) - np.quantile(resampled, LEVELS[::-1]))
    intervals = {"frechet": Interval(max(0.0, distance), float(low), float(high), number)}

    kernels = _kernels(real, fake)
    with np.errstate(invalid="ignore", divide="ignore"):
        discrepancies = _discrepancy(*kernels, weights_real, weights_fake)
    low, high = np.nanquantile(discrepancies, LEVELS)
    intervals["kernel"] = Interval(kernel_distance(real, fake), float(low), float(high), number)

    for name, values in in_manifolds(real, fake).items():
        groups = fake_groups if name in ("precision", "density") else real_groups
        if name == "density":  # no share, but a mean of counts
            intervals[name] = clustered_mean(values, group=groups, bounds=(0, math.inf))
        else:
            own = range(len(values)) if groups is None else groups
            intervals[name] = clustered_share(values, own)
    return intervals


def split_halves(
    groups: Sequence[Hashable], number: int, seed: int = 0
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows of ``number`` random pairs of halves of equal size that share no patient.

    Raises:
        ValueError: There are fewer than two patients.
    """
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise ValueError("two halves need two patients")
    codes = {name: i for i, name in enumerate(names)}
    rows = np.array([codes[g] for g in groups])
    halves = []
    for i in range(number):
        rng = Stream.HALVES.rng(seed, i)
        order = rng.permutation(len(names))
        counts = np.cumsum(np.bincount(rows, minlength=len(names))[order])
        # No half is empty, even if one patient has most of the images.
        cut = 1 + int(np.abs(counts[:-1] - len(rows) / 2).argmin())
        chosen = np.isin(rows, order[:cut])
        first, second = (rng.permutation(np.flatnonzero(x)) for x in (chosen, ~chosen))
        size = min(len(first), len(second))
        halves.append((np.sort(first[:size]), np.sort(second[:size])))
    return halves


@dataclass(frozen=True)
class Floor:
    """Values of each measure by halving, with ``size`` images on each side.

    Attributes:
        real: One half of the real set against the other.
        fake: Synthetic images against the same half.
    """

    real: dict[str, Floats]
    fake: dict[str, Floats]
    size: int


def real_floor(
    real: Floats, fake: Floats, groups: Sequence[Hashable], *, halvings: int = 5, seed: int = 0
) -> Floor:
    """The measures between halves of the real images, beside those of synthetic images at the same size.

    Raises:
        ValueError: Fewer than two patients, or halves too small for the neighbors.
    """
    rows: dict[str, list[dict[str, float]]] = {"real": [], "fake": []}
    size = 0
    for i, halves in enumerate(split_halves(groups, halvings, seed)):
        size = min(len(halves[0]), len(fake))
        rng = Stream.FLOOR.rng(seed, i)
        first, second = (rng.permutation(half)[:size] for half in halves)
        chosen = rng.permutation(len(fake))[:size]
        rows["real"].append(measure(real[first], real[second]))
        rows["fake"].append(measure(real[first], fake[chosen]))
    values = {
        side: {name: np.array([row[name] for row in by_halving]) for name in MEASURES}
        for side, by_halving in rows.items()
    }
    return Floor(values["real"], values["fake"], size)


def few_images(images: int, width: int) -> str:
    """A warning where a sample is small for the number of features, else ''."""
    if images > width and images >= IMAGES_PER_FEATURE * width:
        return ""
    problem = "so the covariance is singular and" if images <= width else "and"
    return (
        f"{images} images are few for {width} features ({IMAGES_PER_FEATURE} per feature are usual), {problem} "
        "the Fréchet distance is biased upwards: compare it with the real-to-real floor at the same size, "
        "or use the kernel distance"
    )
