"""Samplers at any number of steps against closed forms.

Data are N(0, 0.3^2) for each element, so the exact denoiser is linear and every step maps a
Gaussian to a Gaussian. The response of our own step functions to a unit of signal and to a unit of
noise gives the standard deviation of the final sample without sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radiffuse.config import Diffusion
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.sampling import (
    Denoiser,
    Sampler,
    Spacing,
    ddim_step,
    ddpm_step,
    inference_timesteps,
    sample,
)

STD = 0.3
SPACINGS: tuple[Spacing, ...] = ("leading", "linspace", "trailing")
ORACLE: dict[int, dict[str, tuple[float, float, float]]] = {
    1000: {"ddpm": (0.296253, 0.296253, 0.296253), "ddim": (0.298541, 0.298541, 0.298541)},
    250: {"ddpm": (0.286983, 0.286978, 0.286923), "ddim": (0.294686, 0.294680, 0.294355)},
    50: {"ddpm": (0.252961, 0.252169, 0.252921), "ddim": (0.274957, 0.274500, 0.273287)},
    10: {"ddpm": (0.171885, 0.163610, 0.172175), "ddim": (0.190523, 0.180687, 0.184551)},
    5: {"ddpm": (0.108718, 0.086752, 0.108739), "ddim": (0.119661, 0.096525, 0.111321)},
}


def exact_network(diffusion: GaussianDiffusion) -> Denoiser:
    """The best possible network for data N(0, STD^2), in the diffusion's parameterization."""
    config = diffusion.config

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (x_t.shape[0],)
        assert t.dtype == torch.int64
        a = diffusion.alphas_cumprod[t].reshape(-1, *[1] * (x_t.ndim - 1))
        x_start = a.sqrt() * STD**2 / (a * STD**2 + 1 - a) * x_t
        epsilon = (x_t - a.sqrt() * x_start) / (1 - a).sqrt()
        v = a.sqrt() * epsilon - (1 - a).sqrt() * x_start
        answer = {"epsilon": epsilon, "x_start": x_start, "v": v}[config.prediction_type]
        if config.variance == "learned":
            return torch.cat([answer, -torch.ones_like(answer)], dim=1)
        return answer

    return network


def propagated_std(
    diffusion: GaussianDiffusion,
    timesteps: Sequence[int],
    sampler: Sampler,
    *,
    spatial_dims: int = 2,
    eta: float = 0.0,
) -> float:
    """Standard deviation of the final sample, from the responses of our step functions."""
    network = exact_network(diffusion)
    shape = (2, 1, *[2] * spatial_dims)
    x, noise = torch.zeros(2, *shape, dtype=torch.float64)
    x[0], noise[1] = 1, 1
    variance = torch.ones(shape[1:], dtype=torch.float64)
    for t, t_previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
        output = network(x, torch.full((2,), t))
        if sampler == "ddpm":
            step = ddpm_step(diffusion, output, x, t, t_previous, noise=noise)
        else:
            step = ddim_step(diffusion, output, x, t, t_previous, eta=eta, noise=noise)
        of_signal, of_noise = step.sample
        variance = of_signal**2 * variance + of_noise**2
    assert float(variance.max() - variance.min()) == 0
    return math.sqrt(float(variance.max()))


def derived_std(
    signal: np.ndarray, timesteps: Sequence[int], sampler: Sampler, *, eta: float = 0.0
) -> float:
    """The same from the algebra alone, with the posterior by Bayes' rule in precisions."""
    variance = 1.0
    for t, t_previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
        a, b = signal[t], 1.0 if t_previous < 0 else signal[t_previous]
        k = math.sqrt(a) * STD**2 / (a * STD**2 + 1 - a)
        if t_previous < 0:
            variance *= k**2
            continue
        step = a / b
        # x_previous ~ N(sqrt(b) x_start, 1 - b), seen through x_t = sqrt(step) x_previous + noise.
        precision = step / (1 - step) + 1 / (1 - b)
        posterior_variance = 1 / precision
        if sampler == "ddpm":
            slope = (math.sqrt(b) * k / (1 - b) + math.sqrt(step) / (1 - step)) * posterior_variance
            fresh = posterior_variance
        else:
            fresh = eta**2 * posterior_variance
            rest = math.sqrt(max(1 - b - fresh, 0))
            slope = math.sqrt(b) * k + rest * (1 - math.sqrt(a) * k) / math.sqrt(1 - a)
        variance = slope**2 * variance + fresh
    return math.sqrt(variance)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("prediction_type", ["epsilon", "x_start", "v"])
@pytest.mark.parametrize("steps", sorted(ORACLE))
def test_oracle_table(steps: int, prediction_type: str, spatial_dims: int) -> None:
    config = Diffusion(schedule="linear", prediction_type=prediction_type)  # type: ignore[arg-type]
    diffusion = GaussianDiffusion(config, dtype=torch.float64)
    samplers: tuple[Sampler, ...] = ("ddpm", "ddim")
    for index, spacing in enumerate(SPACINGS):
        timesteps = inference_timesteps(steps, 1000, spacing)
        if steps == 1000:
            assert timesteps == tuple(range(999, -1, -1))
            if spacing != "trailing":
                continue
        for sampler in samplers:
            std = propagated_std(diffusion, timesteps, sampler, spatial_dims=spatial_dims)
            assert std == pytest.approx(ORACLE[steps][sampler][index], abs=6e-7)


def test_the_derivation_used_for_other_cases_reproduces_the_oracle_table() -> None:
    signal = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    samplers: tuple[Sampler, ...] = ("ddpm", "ddim")
    for steps, row in ORACLE.items():
        for sampler in samplers:
            for spacing, expected in zip(SPACINGS, row[sampler], strict=True):
                timesteps = inference_timesteps(steps, 1000, spacing)
                assert derived_std(signal, timesteps, sampler) == pytest.approx(expected, abs=6e-7)


@settings(max_examples=60, deadline=None)
@given(
    schedule=st.sampled_from(["linear", "cosine", "scaled-linear"]),
    prediction_type=st.sampled_from(["epsilon", "x_start", "v"]),
    zero_terminal_snr=st.booleans(),
    total=st.integers(20, 1200),
    steps=st.integers(1, 20),
    spacing=st.sampled_from(SPACINGS),
    sampler=st.sampled_from(["ddpm", "ddim"]),
    eta=st.sampled_from([0.0, 0.5, 1.0]),
    spatial_dims=st.sampled_from([2, 3]),
)
def test_every_schedule_parameterization_and_number_of_steps(
    schedule: str,
    prediction_type: str,
    zero_terminal_snr: bool,
    total: int,
    steps: int,
    spacing: Spacing,
    sampler: Sampler,
    eta: float,
    spatial_dims: int,
) -> None:
    config = Diffusion(
        schedule=schedule,  # type: ignore[arg-type]
        prediction_type=prediction_type,  # type: ignore[arg-type]
        num_train_timesteps=total,
        zero_terminal_snr=zero_terminal_snr and prediction_type != "epsilon",
    )
    diffusion = GaussianDiffusion(config, dtype=torch.float64)
    timesteps = inference_timesteps(steps, total, spacing)
    std = propagated_std(diffusion, timesteps, sampler, spatial_dims=spatial_dims, eta=eta)
    expected = derived_std(diffusion.alphas_cumprod.numpy(), timesteps, sampler, eta=eta)
    assert std == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("sampler", "expected"), [("ddpm", 0.252921), ("ddim", 0.273287)])
@pytest.mark.parametrize("prediction_type", ["epsilon", "x_start", "v"])
def test_the_whole_loop_in_float32_gives_the_exact_spread(
    sampler: Sampler, expected: float, prediction_type: str
) -> None:
    config = Diffusion(schedule="linear", prediction_type=prediction_type)  # type: ignore[arg-type]
    diffusion = GaussianDiffusion(config)
    drawn = sample(
        diffusion,
        exact_network(diffusion),
        (4, 1, 100, 100),
        inference_timesteps(50, 1000, "trailing"),
        sampler=sampler,
        generator=torch.Generator().manual_seed(3),
        clip=False,
    )
    assert drawn.dtype == torch.float32
    # 40,000 draws: the spread's standard error is 0.35 %.
    assert drawn.std().item() == pytest.approx(expected, rel=0.015)
    assert drawn.mean().item() == pytest.approx(0, abs=0.006)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1000, 50, 5, 2, 1])
def test_deterministic_loop_is_the_product_of_its_steps(steps: int, spacing: Spacing) -> None:
    diffusion = GaussianDiffusion(Diffusion(schedule="linear"), dtype=torch.float64)
    timesteps = inference_timesteps(steps, 1000, spacing)
    start = torch.ones(1, 1, 2, 2, 2, dtype=torch.float64)
    network = exact_network(diffusion)
    result = sample(diffusion, network, start, timesteps, sampler="ddim", clip=False)
    expected = derived_std(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), timesteps, "ddim")
    torch.testing.assert_close(result, start * expected, rtol=1e-9, atol=0)


def test_learned_variance_at_its_lower_bound_is_fixed_small_and_at_its_upper_fixed_large() -> None:
    timesteps = inference_timesteps(10, 1000, "trailing")
    spreads = {}
    for variance in ("fixed_small", "fixed_large", "learned"):
        config = Diffusion(schedule="linear", variance=variance)
        diffusion = GaussianDiffusion(config, dtype=torch.float64)
        spreads[variance] = propagated_std(diffusion, timesteps, "ddpm")
    assert spreads["learned"] == pytest.approx(spreads["fixed_small"], rel=1e-9)
    assert spreads["fixed_large"] > spreads["fixed_small"]

    learned = GaussianDiffusion(Diffusion(variance="learned"), dtype=torch.float64)
    large = GaussianDiffusion(Diffusion(variance="fixed_large"), dtype=torch.float64)
    x, noise = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    upper = torch.cat([x, torch.ones_like(x)], dim=1)
    torch.testing.assert_close(
        ddpm_step(learned, upper, x, 600, 300, noise=noise).sample,
        ddpm_step(large, x, x, 600, 300, noise=noise).sample,
    )


def test_learned_variance_drives_ddim_by_its_mean_alone() -> None:
    timesteps = inference_timesteps(10, 1000, "trailing")
    learned = GaussianDiffusion(
        Diffusion(schedule="linear", variance="learned"), dtype=torch.float64
    )
    assert propagated_std(learned, timesteps, "ddim") == pytest.approx(0.184551, abs=6e-7)
