"""Spacings, single steps and the sampling loop."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radiffuse.config import Diffusion
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.sampling import (
    Spacing,
    ddim_step,
    ddpm_step,
    inference_timesteps,
    sample,
)
from radiffuse.errors import InputError

SPACINGS: tuple[Spacing, ...] = ("leading", "linspace", "trailing")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def double(**settings_: object) -> GaussianDiffusion:
    return GaussianDiffusion(Diffusion(**settings_), dtype=torch.float64)  # type: ignore[arg-type]


# Index, alphas_cumprod, respaced beta, posterior variance, coefficients of x_start and of x_t.
RESPACING = [
    (0, 0.999900000, 0.0001000, 0.0, 1.0, 0.0),
    (250, 0.521750136, 0.4781977, 0.0001000, 0.9998409, 0.0001510),
    (500, 0.077992323, 0.8505179, 0.4411678, 0.6663159, 0.2005464),
    (750, 0.003318914, 0.9574456, 0.8857118, 0.2682772, 0.1908316),
    (1000, 0.000039952, 0.9879623, 0.9847227, 0.0569188, 0.1093566),
]


@pytest.mark.parametrize(("t", "signal", "beta", "variance", "of_x_start", "of_x_t"), RESPACING)
def test_respacing_oracle(
    t: int, signal: float, beta: float, variance: float, of_x_start: float, of_x_t: float
) -> None:
    diffusion = double(schedule="linear", num_train_timesteps=1001)
    assert inference_timesteps(5, 1001, "linspace") == (1000, 750, 500, 250, 0)
    posterior = diffusion.posterior(t, t - 250 if t else -1)
    assert diffusion.signal(t) == pytest.approx(signal, abs=6e-10)
    assert posterior.beta == pytest.approx(beta, abs=6e-8)
    assert posterior.variance == pytest.approx(variance, abs=6e-8)
    assert posterior.x_start_coefficient == pytest.approx(of_x_start, abs=6e-8)
    assert posterior.x_t_coefficient == pytest.approx(of_x_t, abs=6e-8)


@settings(deadline=None)
@given(data=st.data(), schedule=st.sampled_from(["linear", "cosine", "scaled-linear"]))
def test_posterior_is_bayes_rule(data: st.DataObject, schedule: str) -> None:
    """Against conditioning of the joint Gaussian of (x_previous, x_t) given x_start."""
    t = data.draw(st.integers(1, 999))
    t_previous = data.draw(st.integers(0, t - 1))
    diffusion = double(schedule=schedule)
    a, b = diffusion.signal(t), diffusion.signal(t_previous)
    step = math.sqrt(a / b)
    covariance = step * (1 - b)
    gain = covariance / (1 - a)
    posterior = diffusion.posterior(t, t_previous)
    assert posterior.x_t_coefficient == pytest.approx(gain, rel=1e-9)
    of_x_start = math.sqrt(b) - gain * math.sqrt(a)
    assert posterior.x_start_coefficient == pytest.approx(of_x_start, rel=1e-6, abs=1e-12)
    variance = (1 - b) - gain * covariance
    assert posterior.variance == pytest.approx(variance, rel=1e-6, abs=1e-12)


@settings(deadline=None)
@given(data=st.data(), total=st.integers(1, 4000), spacing=st.sampled_from(SPACINGS))
def test_timesteps_are_distinct_descending_and_training_timesteps(
    data: st.DataObject, total: int, spacing: Spacing
) -> None:
    steps = data.draw(st.integers(1, total))
    timesteps = inference_timesteps(steps, total, spacing)
    assert len(timesteps) == steps
    assert all(a > b for a, b in pairwise(timesteps))
    assert timesteps[-1] >= 0
    assert timesteps[0] <= total - 1
    if spacing == "trailing":
        assert timesteps[0] == total - 1
    else:
        assert timesteps[-1] == 0
    if spacing == "linspace" and steps > 1:
        assert timesteps[0] == total - 1


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 16, 30, 50, 250, 999, 1000])
def test_timesteps_are_the_definitions(steps: int) -> None:
    leading = np.arange(steps) * (1000 // steps)
    linspace = np.linspace(0, 999, steps).round().astype(int)
    trailing = np.round(np.arange(1000, 0, -1000 / steps))[:steps].astype(int) - 1
    assert inference_timesteps(steps, 1000, "leading") == tuple(leading[::-1])
    assert inference_timesteps(steps, 1000, "linspace") == tuple(linspace[::-1])
    assert inference_timesteps(steps, 1000, "trailing") == tuple(trailing)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_an_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(InputError, match="use 1 to 1000"):
        inference_timesteps(steps, 1000)


def test_an_unknown_spacing_is_refused() -> None:
    with pytest.raises(InputError, match="leading, linspace or trailing"):
        inference_timesteps(5, 1000, "karras")  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    prediction_type=st.sampled_from(["epsilon", "x_start", "v"]),
    schedule=st.sampled_from(["linear", "cosine", "scaled-linear"]),
    clip=st.booleans(),
    spatial=st.sampled_from([(4, 4), (2, 3, 4)]),
)
def test_ddim_with_eta_1_is_ddpm_with_the_small_variance(
    data: st.DataObject,
    prediction_type: str,
    schedule: str,
    clip: bool,
    spatial: tuple[int, ...],
) -> None:
    t = data.draw(st.integers(0, 990))
    t_previous = data.draw(st.integers(-1, t - 1))
    diffusion = double(schedule=schedule, prediction_type=prediction_type)
    x, output, noise = normal(3, 2, 1, *spatial, seed=t)
    one = ddpm_step(diffusion, output, x, t, t_previous, noise=noise, clip=clip)
    other = ddim_step(diffusion, output, x, t, t_previous, eta=1.0, noise=noise, clip=clip)
    scale = float(one.x_start.abs().max())
    torch.testing.assert_close(one.sample, other.sample, rtol=1e-6, atol=1e-9 * scale)
    torch.testing.assert_close(one.x_start, other.x_start)


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    prediction_type=st.sampled_from(["epsilon", "x_start", "v"]),
    schedule=st.sampled_from(["linear", "cosine", "scaled-linear"]),
)
def test_one_step_lands_on_the_noised_image(
    data: st.DataObject, prediction_type: str, schedule: str
) -> None:
    """Where the network knows image and noise, a step lands on the exact noised image."""
    t = data.draw(st.integers(1, 998))
    t_previous = data.draw(st.integers(0, t - 1))
    diffusion = double(schedule=schedule, prediction_type=prediction_type)
    x_start, noise = normal(2, 2, 1, 4, 4, seed=t)

    def at(step: int) -> tuple[Tensor, Tensor]:
        steps = torch.full((2,), step)
        return diffusion.add_noise(x_start, noise, steps), diffusion.target(x_start, noise, steps)

    x_t, output = at(t)
    down = ddim_step(diffusion, output, x_t, t, t_previous)
    x_previous, _ = at(t_previous)
    torch.testing.assert_close(down.sample, x_previous, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(down.x_start, x_start, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_one_step_returns_the_estimate_itself(sampler: str) -> None:
    diffusion = double(prediction_type="x_start")
    guess = normal(2, 1, 4, 4, seed=1) / 4
    result = sample(
        diffusion,
        lambda x, t: guess,
        normal(2, 1, 4, 4),
        [999],
        sampler=sampler,  # type: ignore[arg-type]
        generator=torch.Generator(),
        clip=False,
    )
    torch.testing.assert_close(result, guess)


def test_two_steps_by_hand() -> None:
    diffusion = double(schedule="linear", prediction_type="x_start")
    start, guess = normal(1, 1, 2, 2), normal(1, 1, 2, 2, seed=1) / 3
    asked: dict[int, Tensor] = {}

    def network(x: Tensor, t: Tensor) -> Tensor:
        asked[int(t)] = x
        return guess if int(t) == 999 else guess + guess

    out = sample(diffusion, network, start, (999, 499), sampler="ddim")
    assert list(asked) == [999, 499]
    first = guess.clamp(-1, 1)
    a, b = diffusion.signal(999), diffusion.signal(499)
    epsilon = (start - math.sqrt(a) * first) / math.sqrt(1 - a)
    middle = math.sqrt(b) * first + math.sqrt(1 - b) * epsilon
    torch.testing.assert_close(out, (2 * guess).clamp(-1, 1))
    torch.testing.assert_close(asked[999], start)
    torch.testing.assert_close(asked[499], middle)


def test_clipping_bounds_the_sample() -> None:
    diffusion = GaussianDiffusion(Diffusion())
    generator = torch.Generator().manual_seed(0)
    timesteps = inference_timesteps(10, 1000)
    out = sample(
        diffusion,
        lambda x, t: -x,
        (1, 1, 8, 8),
        timesteps,
        generator=generator,
    )
    assert float(out.abs().max()) <= 1


@pytest.mark.parametrize("prediction_type", ["x_start", "v"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_sampling_from_a_timestep_without_signal_is_finite(
    prediction_type: str, clip: bool, sampler: str
) -> None:
    diffusion = double(prediction_type=prediction_type, zero_terminal_snr=True)
    out = sample(
        diffusion,
        lambda x, t: 0.5 * x,
        (1, 1, 4, 4),
        inference_timesteps(4, 1000, "trailing"),
        sampler=sampler,  # type: ignore[arg-type]
        eta=1.0,
        generator=torch.Generator().manual_seed(0),
        clip=clip,
    )
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_equal_generators_give_equal_samples_and_others_do_not(sampler: str) -> None:
    diffusion = GaussianDiffusion(Diffusion())
    before = {name: table.clone() for name, table in diffusion.named_buffers()}

    def draw(seed: int) -> Tensor:
        return sample(
            diffusion,
            lambda x, t: 0.1 * x,
            (2, 1, 4, 4, 4),
            inference_timesteps(5, 1000),
            sampler=sampler,  # type: ignore[arg-type]
            generator=torch.Generator().manual_seed(seed),
        )

    torch.manual_seed(0)
    first = draw(7)
    torch.manual_seed(1)
    assert torch.equal(first, draw(7))
    assert not torch.equal(first, draw(8))
    assert not torch.equal(first[0], first[1])
    for name, table in diffusion.named_buffers():
        assert torch.equal(table, before[name])


def test_noise_without_a_generator_is_refused() -> None:
    diffusion = GaussianDiffusion(Diffusion())
    with pytest.raises(ValueError, match="generator"):
        sample(diffusion, lambda x, t: x, (1, 1, 4, 4), [999, 0])
    with pytest.raises(ValueError, match="generator"):
        sample(diffusion, lambda x, t: x, torch.zeros(1, 1, 4, 4), [999, 0])
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="noise"):
        ddpm_step(diffusion, x, x, 10, 5)
    with pytest.raises(ValueError, match="noise"):
        ddim_step(diffusion, x, x, 10, 5, eta=0.5)


def test_timesteps_out_of_order_are_refused() -> None:
    diffusion = GaussianDiffusion(Diffusion())
    x = torch.zeros(1, 1, 4, 4)
    for timesteps in ([0, 999], [5, 5], [1000, 5], [5, -1]):
        with pytest.raises(ValueError, match="is not in"):
            sample(diffusion, lambda x, t: x, x, timesteps, sampler="ddim")
    with pytest.raises(ValueError, match="no timesteps"):
        sample(diffusion, lambda x, t: x, x, [])
    with pytest.raises(InputError, match="ddpm, ddim or heun"):
        sample(diffusion, lambda x, t: x, x, [5], sampler="euler")  # type: ignore[arg-type]


@pytest.mark.parametrize("prediction_type", ["epsilon", "x_start", "v"])
@pytest.mark.parametrize(
    ("variance", "spacing"),
    # Not fixed_large with trailing: there diffusers adds noise even in the step to the clean image.
    [
        *(("fixed_small", spacing) for spacing in SPACINGS),
        *(("fixed_large", spacing) for spacing in SPACINGS if spacing != "trailing"),
    ],
)
def test_ddpm_agrees_with_diffusers(prediction_type: str, spacing: Spacing, variance: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    names = {"epsilon": "epsilon", "x_start": "sample", "v": "v_prediction"}
    theirs = diffusers.DDPMScheduler(
        beta_schedule="linear",
        prediction_type=names[prediction_type],
        timestep_spacing=spacing,
        variance_type=variance,
        clip_sample=True,
    )
    theirs.set_timesteps(20)
    timesteps = inference_timesteps(20, 1000, spacing)
    assert theirs.timesteps.tolist() == list(timesteps)
    config = Diffusion(
        schedule="linear",
        prediction_type=prediction_type,  # type: ignore[arg-type]
        variance=variance,  # type: ignore[arg-type]
    )
    start = normal(2, 1, 6, 6).float()
    ours = sample(
        GaussianDiffusion(config),
        lambda x, t: 0.3 * x,
        start,
        timesteps,
        generator=torch.Generator().manual_seed(5),
    )
    x, generator = start, torch.Generator().manual_seed(5)
    for t in theirs.timesteps:
        x = theirs.step(0.3 * x, t, x, generator=generator).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "x_start", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_trailing_ddim_agrees_with_diffusers(prediction_type: str, eta: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    names = {"epsilon": "epsilon", "x_start": "sample", "v": "v_prediction"}
    theirs = diffusers.DDIMScheduler(
        beta_schedule="linear",
        prediction_type=names[prediction_type],
        timestep_spacing="trailing",
        clip_sample=False,
    )
    theirs.set_timesteps(20)
    config = Diffusion(schedule="linear", prediction_type=prediction_type)  # type: ignore[arg-type]
    start = normal(2, 1, 6, 6).float()
    ours = sample(
        GaussianDiffusion(config),
        lambda x, t: 0.3 * x,
        start,
        inference_timesteps(20, 1000, "trailing"),
        sampler="ddim",
        eta=eta,
        generator=torch.Generator().manual_seed(5),
        clip=False,
    )
    x, generator = start, torch.Generator().manual_seed(5)
    for t in theirs.timesteps:
        x = theirs.step(0.3 * x, t, x, eta=eta, generator=generator).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4 * float(x.abs().max()))
