"""New embeddings from real ones: interpolation on the sphere, moves with a covariance, densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from radiffuse.synthesis import strategies as embeddings
from radiffuse.synthesis.strategies import Density, fit_density, interpolate, perturb


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_interpolation_walks_the_great_circle() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    third = interpolate(a, b, torch.tensor([1 / 3]))[0]
    length = 2 + 2 / 3
    expected = length * torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)])
    assert torch.allclose(third, expected, atol=1e-5)
    x, y = random(5, 8), random(5, 8, seed=1)
    for share, end in ((0.0, x), (1.0, y)):
        assert torch.allclose(interpolate(x, y, torch.full((5,), share)), end)
    same = interpolate(x, x, torch.full((5,), 0.4))
    assert torch.allclose(same, x)
    near = interpolate(x, x + 1e-7, torch.full((5,), 0.5))
    assert torch.allclose(near, x + 5e-8, atol=1e-9)


def test_a_move_has_the_population_s_covariance_and_keeps_lengths() -> None:
    population = random(40, 3) @ torch.tensor([[1.0, 0, 0], [0.5, 0.2, 0], [0, 0, 0]]).double()
    rows = normalize(random(1, 3, seed=2), dim=1).expand(20000, 3)
    generator = torch.Generator().manual_seed(3)
    # So small that bringing a row back to its length only takes away what points along it.
    moved = perturb(rows.float(), population.float(), 1e-3, generator).double()
    assert torch.allclose(moved.norm(dim=1), torch.ones(20000).double(), atol=1e-5)
    sideways = torch.eye(3).double() - rows[0].outer(rows[0])
    expected = sideways @ torch.cov(population.T) @ sideways * 1e-6
    assert torch.allclose(torch.cov((moved - rows).T), expected, atol=3e-8)
    still = perturb(rows[:4], population, 0.0, generator)
    assert torch.allclose(still, rows[:4])


def test_a_density_gives_back_what_it_was_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    centers = normalize(random(2, 16), dim=1)
    member = torch.arange(600) % 3 == 0
    rows = normalize(centers[member.long()] + 0.05 * random(600, 16, seed=1), dim=1).float()
    density = Density.of(fit_density(rows).tensors())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([density.draw(generator) for _ in range(1500)])
    assert torch.allclose(drawn.norm(dim=1), torch.ones(1500))
    assert torch.allclose(drawn.mean(0), rows.mean(0), atol=0.04)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(rows.T), atol=0.02)
    nearer = (drawn @ centers.float().T).argmax(1).float().mean()
    assert float(nearer) == pytest.approx(1 / 3, abs=0.05)
    # A single Gaussian puts more of the draws between the two clusters.
    monkeypatch.setattr(embeddings, "MOST_COMPONENTS", 1)
    single = fit_density(rows)
    between = torch.stack([single.draw(generator) for _ in range(1500)])
    low = [float((x @ centers.float().T).amax(1).quantile(0.05)) for x in (drawn, between)]
    assert low[0] > low[1] + 0.02


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_density_of_few_rows_is_finite(count: int) -> None:
    rows = normalize(random(count, 32), dim=1).float()
    point = fit_density(rows).draw(torch.Generator().manual_seed(0))
    assert torch.isfinite(point).all()
    assert float(point.norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_component_keeps_a_tenth_of_the_whole_s_covariance(seed: int) -> None:
    """Two clusters along one axis: the variance of each is nine tenths its own and a tenth that of all."""
    rows = 0.1 * random(200, 2)
    rows[:, 0] += torch.where(torch.arange(200) < 100, 10.0, -10.0).double()
    rows -= rows.mean(0)
    density = fit_density(rows, seed=seed)
    order = density.means.flatten().argsort()
    along = (rows @ density.basis).flatten()
    whole = along.square().mean()
    assert density.weights.tolist() == pytest.approx([0.5, 0.5])
    for k, cluster in zip(order.tolist(), (along[along < 0], along[along > 0]), strict=True):
        assert float(density.means[k]) == pytest.approx(float(cluster.mean()))
        expected = 0.9 * float(cluster.var(unbiased=False)) + 0.1 * float(whole)
        assert float(density.factors[k].square()) == pytest.approx(expected, rel=1e-6)


def test_a_density_keeps_the_directions_that_hold_95_percent() -> None:
    """Variances in shares of .6, .3, .06, .04 and 0: three directions are kept, the fourth becomes noise."""
    signs = torch.tensor([[(-1.0) ** (i >> bit) for bit in range(4)] for i in range(64)]).double()
    shares = torch.tensor([0.6, 0.3, 0.06, 0.04]).double()
    rows = torch.cat([signs * shares.sqrt(), torch.zeros(64, 1)], dim=1)
    density = fit_density(rows)
    variance = shares * 64 / 63
    axes = density.basis.abs()
    assert torch.allclose(axes, torch.eye(5, 3).double(), atol=1e-9)
    assert float(density.rest.square()) == pytest.approx(float(variance[3]) / 2)
    inner = density.factors[0] @ density.factors[0].T
    assert torch.allclose(inner, shares[:3].diag(), atol=1e-7)


def test_the_noise_of_a_density_stays_outside_its_main_directions() -> None:
    zero, one = torch.zeros(1, 1).double(), torch.ones(1).double()
    basis = torch.tensor([[1.0], [0.0], [0.0]]).double()
    center = torch.tensor([0.0, 0.0, 1000.0]).double()  # so far away that directions are places
    density = Density(center, basis, one, zero, zero[None], torch.tensor(5.0).double())
    generator = torch.Generator().manual_seed(0)
    drawn = 1000 * torch.stack([density.draw(generator) for _ in range(2000)])
    assert float(drawn[:, 0].abs().max()) < 1e-6
    assert float(drawn[:, 1].std()) == pytest.approx(5, rel=0.06)


@pytest.mark.parametrize("seed", range(20))
def test_each_of_four_clusters_gets_a_component_of_its_own(seed: int) -> None:
    """Whatever the seed: of 40 starts from any four rows, 37 left two components in one cluster."""
    places = 10 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]).double()
    x = 0.1 * random(400, 2) + places.repeat(100, 1)
    weights, means, _ = embeddings._mixture(x - x.mean(0), 4, seed)
    assert weights.tolist() == pytest.approx([0.25] * 4, abs=0.01)
    assert torch.cdist(means, places).amin(0).amax() < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_each_component_keeps_a_tenth_of_the_whole_s_covariance(seed: int) -> None:
    """Two clusters far apart, each found by a component of its own: the mixture is known in closed form."""
    x = 0.1 * random(300, 2) + torch.tensor([[8.0, 0.0], [0.0, 0.0]]).repeat(150, 1).double()
    x = x - x.mean(0)
    weights, means, covariances = embeddings._mixture(x, 2, seed)
    for k in range(2):
        own = x[int(means[k, 0] < 0) :: 2]
        assert float(weights[k]) == pytest.approx(0.5, abs=1e-6)
        assert torch.allclose(means[k], own.mean(0), atol=1e-5)
        expected = 0.9 * torch.cov(own.T, correction=0) + 0.1 * torch.cov(x.T, correction=0)
        assert torch.allclose(covariances[k], expected, atol=1e-5)
