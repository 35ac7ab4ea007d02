"""The variational bound against closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from radiffuse.config import Diffusion
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.gaussian import discretized_log_likelihood, interpolate_log_variance, normal_kl
from radiffuse.core.sampling import Denoiser

STD = 0.3
GRAYS = torch.linspace(-1, 1, 256, dtype=torch.float64)
numbers = st.floats(-3, 3)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def prior_term(diffusion: GaussianDiffusion, x_start: Tensor) -> Tensor:
    """The constant term of the bound: KL of q(x_T | x_start) from the standard normal, (B,), bits per dimension."""
    a = diffusion.signal(diffusion.num_train_timesteps - 1)
    zero = torch.zeros_like(x_start)
    kl = normal_kl(math.sqrt(a) * x_start, zero + math.log1p(-a), zero, zero)
    return kl.flatten(1).mean(1) / math.log(2)


@dataclass(frozen=True)
class VariationalBound:
    """Negative log likelihood bound, bits per dimension (Ho et al. 2020, eq. 5)."""

    total: Tensor
    """(B,), prior and all terms together."""
    prior: Tensor
    """(B,), the part that does not depend on the network."""
    terms: Tensor
    """(B, T), the term of each timestep; column 0 is the decoder's."""


@torch.no_grad()
def variational_bound(
    diffusion: GaussianDiffusion,
    network: Denoiser,
    x_start: Tensor,
    generator: torch.Generator,
) -> VariationalBound:
    """The bound with one noise sample per timestep; calls the network T times.

    Args:
        diffusion: The process.
        network: Called as ``network(x_t, t)``.
        x_start: (B, C, *spatial), 8-bit gray values in [-1, 1].
        generator: Source of the noise.
    """
    terms = []
    for timestep in range(diffusion.num_train_timesteps):
        t = torch.full((x_start.shape[0],), timestep, dtype=torch.int64, device=x_start.device)
        noise = torch.randn(
            x_start.shape, generator=generator, device=generator.device, dtype=x_start.dtype
        ).to(x_start.device)
        x_t = diffusion.add_noise(x_start, noise, t)
        output = network(x_t, t)
        terms.append(diffusion.variational_term(output, x_start, x_t, t))
    stacked = torch.stack(terms, dim=1)
    prior = prior_term(diffusion, x_start)
    return VariationalBound(total=prior + stacked.sum(dim=1), prior=prior, terms=stacked)


@settings(deadline=None)
@given(numbers, numbers, numbers, numbers)
def test_kl_is_that_of_torch(m1: float, l1: float, m2: float, l2: float) -> None:
    ours = normal_kl(scalar(m1), scalar(l1), scalar(m2), scalar(l2))
    theirs = kl_divergence(
        Normal(scalar(m1), scalar(l1 / 2).exp()), Normal(scalar(m2), scalar(l2 / 2).exp())
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(mean=st.floats(-1.5, 1.5), log_std=st.floats(-6, 1))
def test_the_probabilities_of_all_gray_values_sum_to_one(mean: float, log_std: float) -> None:
    log_p = discretized_log_likelihood(GRAYS, scalar(mean), scalar(log_std))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_gray_values_have_the_probability_of_their_bin() -> None:
    def cdf(x: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-(x - 0.1) / (0.2 * math.sqrt(2)))

    log_p = discretized_log_likelihood(GRAYS, scalar(0.1), scalar(0.2).log())
    inner = cdf(GRAYS + 1 / 255) - cdf(GRAYS - 1 / 255)
    torch.testing.assert_close(log_p[1:-1].exp(), inner[1:-1], rtol=1e-6, atol=1e-14)
    assert log_p[0].exp().item() == pytest.approx(cdf(scalar(-1 + 1 / 255)).item())
    assert log_p[-1].exp().item() == pytest.approx(1 - cdf(scalar(1 - 1 / 255)).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_improbable_values_keep_a_finite_likelihood_and_gradient(dtype: torch.dtype) -> None:
    mean = torch.tensor([-1.0, -0.2, 1.0, 3.0], dtype=dtype)[:, None].repeat(1, 256)
    mean.requires_grad_()
    log_std = torch.full_like(mean, -5).detach().requires_grad_()
    log_p = discretized_log_likelihood(GRAYS.to(dtype), mean, log_std)
    of_mean, of_std = torch.autograd.grad(log_p.sum(), [mean, log_std])
    assert bool(log_p.isfinite().all())
    assert bool((log_p <= 0).all())
    assert bool(of_mean.isfinite().all())
    assert bool(of_std.isfinite().all())
    # Far out, the gradient still points from the mean to the value.
    assert bool((of_mean[0, 100:] > 0).all())


def test_learned_variance_runs_geometrically_between_its_bounds() -> None:
    raw = torch.tensor([-1.0, 0.0, 1.0])
    log_variance = interpolate_log_variance(raw, math.log(0.01), math.log(0.04))
    torch.testing.assert_close(log_variance.exp(), torch.tensor([0.01, 0.02, 0.04]))


@pytest.mark.parametrize("prediction_type", ["epsilon", "x_start", "v"])
def test_term_is_the_kl_of_the_two_reverse_steps(prediction_type: str) -> None:
    """With equal variances it is the squared error of x_start times a known factor."""
    config = Diffusion(prediction_type=prediction_type)  # type: ignore[arg-type]
    diffusion = GaussianDiffusion(config, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x_start, noise, error = torch.randn(3, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([1, 500, 998])
    x_t = diffusion.add_noise(x_start, noise, t)
    belief = GaussianDiffusion(Diffusion(prediction_type="x_start"), dtype=torch.float64).predict(
        x_start + 0.1 * error, x_t, t
    )
    term = diffusion.variational_term(getattr(belief, prediction_type), x_start, x_t, t)
    for index, timestep in enumerate(t.tolist()):
        # 1/2 (SNR of the step before - SNR) times the squared error (Kingma et al. 2021, eq. 14).
        a, b = diffusion.signal(timestep), diffusion.signal(timestep - 1)
        factor = (b / (1 - b) - a / (1 - a)) / 2 / math.log(2)
        expected = factor * (0.1 * error[index]).square().mean().item()
        assert term[index].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_first_term_is_the_decoder_with_the_spread_of_the_step_before(variance: str) -> None:
    config = Diffusion(prediction_type="x_start", variance=variance)  # type: ignore[arg-type]
    diffusion = GaussianDiffusion(config, dtype=torch.float64)
    x_start = GRAYS.reshape(1, 1, 16, 16)
    belief = x_start + 0.01
    term = diffusion.variational_term(belief, x_start, 0.9 * x_start, torch.tensor([0]))
    log_std = scalar(diffusion.posterior(1, 0).variance).log() / 2
    expected = -discretized_log_likelihood(x_start, belief, log_std).mean() / math.log(2)
    assert term.item() == pytest.approx(expected.item(), rel=1e-9)


def test_prior_term_is_the_kl_from_the_standard_normal() -> None:
    diffusion = GaussianDiffusion(
        Diffusion(schedule="linear", num_train_timesteps=50), dtype=torch.float64
    )
    x_start = GRAYS.reshape(1, 1, 16, 16)
    a = diffusion.signal(49)
    q = Normal(math.sqrt(a) * x_start, math.sqrt(1 - a))
    expected = kl_divergence(q, Normal(torch.zeros_like(x_start), 1.0)).mean() / math.log(2)
    assert prior_term(diffusion, x_start).item() == pytest.approx(expected.item(), rel=1e-9)


def best_bound(variance: str) -> Tensor:
    """The bound of 8-bit images of N(0, STD^2) under the best network there is; (2,)."""
    config = Diffusion(num_train_timesteps=300, variance=variance)  # type: ignore[arg-type]
    diffusion = GaussianDiffusion(config)
    generator = torch.Generator().manual_seed(0)
    images = STD * torch.randn(2, 1, 64, 64, generator=generator)
    images = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        def at(table: Tensor) -> Tensor:
            return table[t].reshape(-1, 1, 1, 1)

        a = at(diffusion.alphas_cumprod)
        x_start = a.sqrt() * STD**2 / (a * STD**2 + 1 - a) * x_t
        epsilon = (x_t - a.sqrt() * x_start) / (1 - a).sqrt()
        if variance != "learned":
            return epsilon
        # The true reverse variance: the posterior's, and what x_t leaves unknown of x_start.
        small, large = at(diffusion.posterior_log_variance), at(diffusion.log_beta)
        unknown = STD**2 * (1 - a) / (a * STD**2 + 1 - a)
        true = (small.exp() + at(diffusion.posterior_x_start) ** 2 * unknown).log()
        raw = 2 * (true - small) / (large - small) - 1
        return torch.cat([epsilon, raw.expand_as(epsilon)], dim=1)

    bound = variational_bound(diffusion, network, images, generator)
    assert bound.terms.shape == (2, 300)
    torch.testing.assert_close(bound.total, bound.prior + bound.terms.sum(dim=1))
    return bound.total


def test_the_bound_of_the_best_network_is_just_above_the_entropy_of_the_data() -> None:
    """Data N(0, 0.3^2) in 8 bits cost log2(0.3 sqrt(2 pi e) 127.5) = 7.30 bits.

    No code is shorter on average; the true reverse variance comes near, and the fixed ones cost
    more (Nichol and Dhariwal 2021, section 3.1).
    """
    entropy = math.log2(STD * math.sqrt(2 * math.pi * math.e) * 127.5)
    learned, large, small = (
        best_bound(variance).mean().item() for variance in ("learned", "fixed_large", "fixed_small")
    )
    # 8,192 draws: the standard error of their own cost is 0.011 bits.
    assert entropy - 0.03 < learned < entropy + 0.12
    assert learned < large < small


def test_bound_of_equal_generators_is_equal() -> None:
    diffusion = GaussianDiffusion(Diffusion(num_train_timesteps=10))
    x_start = GRAYS.float().reshape(1, 1, 16, 16)
    totals = [
        variational_bound(
            diffusion, lambda x, t: x, x_start, torch.Generator().manual_seed(seed)
        ).total
        for seed in (0, 0, 1)
    ]
    assert torch.equal(totals[0], totals[1])
    assert not torch.equal(totals[0], totals[2])


def test_a_learned_variance_may_leave_its_bounds() -> None:
    """Nichol and Dhariwal 2021, after eq. 15: v is not held between 0 and 1; here v = (raw + 1) / 2."""
    raw = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0])
    small, large = torch.tensor(0.01).log(), torch.tensor(0.04).log()
    found = interpolate_log_variance(raw, small, large).exp()
    torch.testing.assert_close(found, torch.tensor([0.0025, 0.01, 0.02, 0.04, 0.16]))
