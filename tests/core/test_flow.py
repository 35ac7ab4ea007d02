"""Rectified flow in the same core: closed forms of Gaussian data, diffusers' schedulers, steps by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from radiffuse.config import Diffusion
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.sampling import Denoiser, Sampler, inference_timesteps, sample
from radiffuse.core.timesteps import timestep_sampler
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.inference.draw import draw_images

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)


def flow(**settings: object) -> GaussianDiffusion:
    given = {"schedule": "flow", "prediction_type": "v"} | settings
    return GaussianDiffusion(Diffusion(**given), dtype=torch.float64)  # type: ignore[arg-type]


def best_network(process: GaussianDiffusion) -> Denoiser:
    """The mean of noise - x_start given x, for two pixels of N(MEAN, COVARIANCE): linear in x."""
    total = process.num_train_timesteps

    def network(x: Tensor, t: Tensor) -> Tensor:
        s = (float(t[0]) + 1) / total
        of_x = (1 - s) ** 2 * COVARIANCE + s**2 * torch.eye(2).double()
        together = s * torch.eye(2).double() - (1 - s) * COVARIANCE
        centered = x.flatten(1) - (1 - s) * MEAN
        v = -MEAN + centered @ torch.linalg.solve(of_x, together)
        return v.reshape(x.shape)

    return network


def distance(steps: int, sampler: Sampler, total: int = 1024) -> float:
    """How far mean and covariance of the samples are from those of the data: the sampler is affine in the noise."""
    process = flow(num_train_timesteps=total)
    noise = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double().reshape(3, 1, 1, 2)
    timesteps = inference_timesteps(steps, total)
    network = best_network(process)
    drawn = sample(process, network, noise, timesteps, sampler=sampler, clip=False)
    offset, *rows = drawn.reshape(3, 2)
    linear = torch.stack([row - offset for row in rows])
    return float((offset - MEAN).abs().max() + (linear.T @ linear - COVARIANCE).abs().max())


def test_samples_have_the_mean_and_the_covariance_of_the_data() -> None:
    assert distance(1024, "ddim") < 3e-3
    assert distance(1024, "heun") < 1e-5


def test_euler_is_of_first_order_and_heun_of_second() -> None:
    assert distance(64, "ddim") / distance(128, "ddim") == pytest.approx(2, rel=0.1)
    assert distance(64, "heun") / distance(128, "heun") == pytest.approx(4, rel=0.15)
    assert distance(16, "heun") < distance(64, "ddim") / 4


def test_stochastic_samples_have_the_spread_of_the_data() -> None:
    """The ancestral sampler of the same process (Kingma et al. 2021) needs many steps, and arrives."""
    process = flow(num_train_timesteps=400)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4000, 1, 1, 2, generator=generator, dtype=torch.float64)
    steps = inference_timesteps(400, 400)
    network = best_network(process)
    drawn = sample(process, network, start, steps, generator=generator, clip=False)
    found = torch.cov(drawn.reshape(-1, 2).T)
    assert float((found - COVARIANCE).abs().max()) < 0.04
    assert float((drawn.reshape(-1, 2).mean(0) - MEAN).abs().max()) < 0.04


@pytest.mark.parametrize("shift", [None, 3.0])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_euler_agrees_with_diffusers(steps: int, shift: float | None) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift or 1.0)
    timesteps = inference_timesteps(steps, 1000)
    scheduler.set_timesteps(sigmas=[(t + 1) / 1000 for t in timesteps])
    process = GaussianDiffusion(flow(shift=shift).config)
    generator = torch.Generator().manual_seed(1)
    ours = theirs = torch.randn(2, 1, 4, 4, generator=generator)

    def network(x: Tensor, _: Tensor) -> Tensor:
        return torch.sin(3 * x) - 0.2 * x**2

    for time in scheduler.timesteps:
        theirs = scheduler.step(network(theirs, time), time, theirs).prev_sample
    ours = sample(process, network, ours, timesteps, sampler="ddim", clip=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_heun_by_hand() -> None:
    """dx/ds = x from 1 at s = 1: .625 at s = .5, where Euler would have .5; then a step of Euler to the image."""
    process = flow(num_train_timesteps=2)
    start = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    asked = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        asked.append((int(t), float(x)))
        return x

    drawn = sample(process, network, start, (1, 0), sampler="heun", clip=False)
    assert float(drawn) == pytest.approx(0.3125)
    assert asked == [(1, 1.0), (0, 0.5), (0, 0.625)]


def test_the_path_is_straight_and_its_target_the_difference() -> None:
    process = flow(num_train_timesteps=4)
    x_start, noise = torch.full((4, 1, 1, 1), 2.0), torch.full((4, 1, 1, 1), -1.0)
    t = torch.arange(4)
    x_t = process.add_noise(x_start, noise, t)
    assert x_t.flatten().tolist() == pytest.approx([1.25, 0.5, -0.25, -1.0])
    assert process.target(x_start, noise, t).flatten().tolist() == [-3.0] * 4
    loss = process.training_loss(torch.zeros_like(x_t), x_start, noise, x_t, t)
    assert loss.tolist() == [9.0] * 4


@pytest.mark.parametrize("prediction_type", ["x_start", "v"])
@pytest.mark.parametrize("shift", [None, 2.0])
def test_any_answer_is_an_image_and_a_noise_that_fit_the_point(
    prediction_type: str, shift: float | None
) -> None:
    process = flow(prediction_type=prediction_type, shift=shift)
    generator = torch.Generator().manual_seed(0)
    x_t, answer = torch.randn(2, 4, 1, 3, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([0, 250, 998, 999])
    found = process.predict(answer, x_t, t)
    torch.testing.assert_close(getattr(found, prediction_type), answer)
    torch.testing.assert_close(found.v, found.epsilon - found.x_start, rtol=1e-9, atol=1e-9)
    s = (t + 1) / 1000
    s = ((shift or 1) * s / (1 + ((shift or 1) - 1) * s)).double()[:, None, None, None]
    again = (1 - s) * found.x_start + s * found.epsilon
    torch.testing.assert_close(again, x_t, rtol=1e-5, atol=1e-6)


def test_a_shift_divides_the_ratio_of_signal_to_noise_by_its_square() -> None:
    plain, shifted = flow().variances(300), flow(shift=3.0).variances(300)
    assert shifted[0] / shifted[1] == pytest.approx(plain[0] / plain[1] / 9)


def test_the_posterior_is_bayes_rule() -> None:
    """What is known of x_previous from x_start and, through one noising, from x_t: precisions add up."""
    process = flow()
    for t, previous in ((999, 400), (400, 399), (30, 2)):
        s, p = (t + 1) / 1000, (previous + 1) / 1000
        shrunk = (1 - s) / (1 - p)
        added = s**2 - shrunk**2 * p**2
        precision = 1 / p**2 + shrunk**2 / added
        found = process.posterior(t, previous)
        assert found.beta == pytest.approx(added)
        assert found.variance == pytest.approx(1 / precision)
        assert found.x_start_coefficient == pytest.approx((1 - p) / p**2 / precision)
        assert found.x_t_coefficient == pytest.approx(shrunk / added / precision)
    assert process.posterior(500, -1).x_start_coefficient == 1


def test_min_snr_weighs_the_error_of_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    x_start, noise, guess = torch.randn(3, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.tensor([99, 499, 899])
    losses = []
    for prediction_type in ("x_start", "v"):
        process = flow(prediction_type=prediction_type, min_snr_gamma=5.0)
        x_t = process.add_noise(x_start, noise, t)
        output = getattr(flow(prediction_type="x_start").predict(guess, x_t, t), prediction_type)
        losses.append(process.training_loss(output, x_start, noise, x_t, t))
    torch.testing.assert_close(losses[0], losses[1])
    weight = torch.tensor([5, 1, (1 / 9) ** 2], dtype=torch.float64)  # SNR of 81, 1, 1/81
    torch.testing.assert_close(losses[0], weight * (guess - x_start).square().mean((1, 2, 3)))


def test_what_does_not_combine_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="epsilon says nothing.* schedule flow.*v or x_start"):
        flow(prediction_type="epsilon")
    for schedule, sampler in (("cosine", "heun"), ("flow", "dpm++")):
        process = GaussianDiffusion(Diffusion(schedule=schedule, prediction_type="v"))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="sampler"):
            sample(process, lambda x, t: x, torch.zeros(1, 1, 2, 2), (5,), sampler=sampler)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_train_timesteps"):
        flow(num_train_timesteps=1)


def test_logit_normal_timesteps_are_those_of_the_middle() -> None:
    process = Diffusion(timestep_sampling="logit-normal", num_train_timesteps=100)
    t, weights = timestep_sampler(process).draw(20000, torch.Generator().manual_seed(0))
    assert weights.tolist() == [1.0] * 20000
    assert 0 <= int(t.min()) <= int(t.max()) <= 99
    for below in (10, 25, 50, 90):
        share = NormalDist().cdf(math.log(below / (100 - below)))
        assert float((t < below).float().mean()) == pytest.approx(share, abs=0.012)


def test_a_denoiser_of_pixels_draws_a_flow_along_its_path_and_others_with_noise() -> None:
    class Answer(torch.nn.Module):
        """A tenth of what it is given."""

        def __init__(self) -> None:
            super().__init__()
            self.share = torch.nn.Parameter(torch.tensor(0.1))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.share * x

    plan = Plan(2, ("image",), (), (4, 4))

    def drawn(schedule: str, sampler: Sampler | None) -> Tensor:
        process = Diffusion(schedule=schedule, prediction_type="v")  # type: ignore[arg-type]
        with torch.no_grad():
            images = draw_images(Answer(), process, plan, count=3, steps=4, sampler=sampler)
        return torch.from_numpy(images)

    assert torch.equal(drawn("flow", None), drawn("flow", "ddim"))
    assert not torch.equal(drawn("flow", None), drawn("flow", "heun"))
    assert torch.equal(drawn("cosine", None), drawn("cosine", "ddpm"))
