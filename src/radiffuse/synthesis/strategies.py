"""New embeddings from those of real images: the sampling strategies of Jimenez-Perez et al. 2024.

The names are the paper's, the formulas [ours]: only the abstract of arXiv 2407.11594 could be read. Embeddings are rows
of length 1, as the encoders give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

VARIANCE_KEPT = 0.95
MOST_DIMENSIONS = 32
MOST_COMPONENTS = 8
ROWS_PER_COMPONENT = 100
ROWS_PER_DIMENSION = 8
SHRINKAGE = 0.1
"""Weight of the whole's covariance in that of each component."""
ITERATIONS = 50


def interpolate(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Points between rows ``(B, W)``, along the great circle of their directions; lengths are interpolated linearly.

    ``weight`` ``(B,)``, 0 to 1, is that of the second row.
    """
    weight = weight[:, None].to(first)
    lengths = [x.norm(dim=1, keepdim=True) for x in (first, second)]
    a, b = (x / n.clamp(min=1e-12) for x, n in zip((first, second), lengths, strict=True))
    angle = 2 * torch.atan2((a - b).norm(dim=1, keepdim=True), (a + b).norm(dim=1, keepdim=True))
    near = angle < 1e-4  # there the sines are equal to rounding, and a straight line is the circle
    sine = torch.where(near, torch.ones_like(angle), angle.sin())
    left = torch.where(near, 1 - weight, ((1 - weight) * angle).sin() / sine)
    right = torch.where(near, weight, (weight * angle).sin() / sine)
    lengthened: Tensor = (left * a + right * b) * ((1 - weight) * lengths[0] + weight * lengths[1])
    return lengthened


def perturb(
    rows: Tensor, population: Tensor, strength: float, generator: torch.Generator
) -> Tensor:
    """Rows ``(B, W)`` moved by a normal draw with the covariance of a population, then brought back to their lengths.

    Args:
        rows: ``(B, W)``.
        population: ``(N, W)``, N at least 2, such as the embeddings of a class.
        strength: Size of the move, in standard deviations of the population.
        generator: Source of randomness, on the CPU.
    """
    centered = population - population.mean(0)
    weights = torch.randn((len(rows), len(centered)), generator=generator).to(rows)
    # A weighted sum of centered rows has exactly their covariance; no matrix needs to be factored.
    moved = rows + strength * weights @ centered / max(1, len(centered) - 1) ** 0.5
    back: Tensor = moved / moved.norm(dim=1, keepdim=True) * rows.norm(dim=1, keepdim=True)
    return back


@dataclass(frozen=True)
class Density:
    """A mixture of Gaussians in the main directions of a set of embeddings, and noise in the others.

    Attributes:
        center: ``(W,)``.
        basis: ``(W, D)``, orthonormal columns.
        weights: ``(K,)``, sum 1.
        means: ``(K, D)``.
        factors: ``(K, D, D)``, Cholesky factors of the covariances.
        rest: ``()``, standard deviation along each direction outside the basis.
    """

    center: Tensor
    basis: Tensor
    weights: Tensor
    means: Tensor
    factors: Tensor
    rest: Tensor

    def draw(self, generator: torch.Generator) -> Tensor:
        """One embedding ``(W,)`` of length 1."""
        k = int(torch.multinomial(self.weights, 1, generator=generator))
        inner = torch.randn(self.basis.shape[1], generator=generator, dtype=torch.float64)
        inner = self.means[k] + self.factors[k] @ inner
        outer = self.rest * torch.randn(len(self.center), generator=generator, dtype=torch.float64)
        outer = outer - self.basis @ (self.basis.T @ outer)
        point = self.center + self.basis @ inner + outer
        unit: Tensor = (point / point.norm()).float()
        return unit

    def tensors(self) -> dict[str, Tensor]:
        """The parts by name, for a file."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Density:
        """The inverse of ``tensors``."""
        return cls(**{f.name: tensors[f.name].double() for f in fields(cls)})


def fit_densities(rows: Tensor, classes: Mapping[str, list[int]]) -> dict[str, Density]:
    """A density for each class of two rows or more, from embeddings ``(N, W)`` and their rows by class."""
    return {name: fit_density(rows[own]) for name, own in classes.items() if len(own) > 1}


def fit_density(rows: Tensor, seed: int = 0) -> Density:
    """Fit a density to rows ``(N, W)``, N at least 2, by expectation maximization.

    It has as many directions and components as the number of rows allows; ``seed`` chooses their starting clusters.
    """
    x = rows.double()
    n, width = x.shape
    center = x.mean(0)
    _, sigma, v = torch.linalg.svd(x - center, full_matrices=False)
    variance = sigma.square() / (n - 1)
    explained = variance.cumsum(0) / variance.sum().clamp(min=1e-30)
    wanted = int((explained < VARIANCE_KEPT).sum()) + 1
    dims = max(1, min(wanted, MOST_DIMENSIONS, n // ROWS_PER_DIMENSION, len(sigma)))
    basis = v[:dims].T
    inner = (x - center) @ basis
    rest = (variance[dims:].sum() / max(1, width - dims)).sqrt()
    k = max(1, min(MOST_COMPONENTS, n // ROWS_PER_COMPONENT))
    weights, means, covariances = _mixture(inner, k, seed)
    return Density(center, basis, weights, means, torch.linalg.cholesky(covariances), rest)


def _mixture(x: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of k Gaussians, each shrunk towards the whole's covariance.

    They start as the clusters of k-means++ (Arthur and Vassilvitskii 2007). Started at any rows, two that lie in one
    cluster would often stay there.
    """
    from scipy.cluster.vq import kmeans2

    n, dims = x.shape
    whole = x.T @ x / n + 1e-8 * torch.eye(dims, dtype=x.dtype)
    member = torch.ones((1, n), dtype=x.dtype)
    if k > 1:
        labels = kmeans2(x.numpy(), k, minit="++", seed=np.random.default_rng(seed))[1]
        member = one_hot(torch.from_numpy(labels).long(), k).T.to(x.dtype)
    for _ in range(ITERATIONS if k > 1 else 1):
        mass = member.sum(1).clamp(min=1e-6)
        weights = mass / mass.sum()
        means = member @ x / mass[:, None]
        off = x[None] - means[:, None]
        own = torch.einsum("kn,kni,knj->kij", member, off, off) / mass[:, None, None]
        covariances = (1 - SHRINKAGE) * own + SHRINKAGE * whole
        factors = torch.linalg.cholesky(covariances)
        distance = torch.linalg.solve_triangular(factors, off.transpose(1, 2), upper=False)
        log_volume = factors.diagonal(dim1=1, dim2=2).log().sum(1)
        score = weights.log()[:, None] - 0.5 * distance.square().sum(1) - log_volume[:, None]
        member = score.softmax(0)
    return weights, means, covariances
