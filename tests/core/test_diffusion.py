"""The forward process, conversions, and the training loss."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from radiffuse.config import Diffusion
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.errors import InputError

TYPES = ["epsilon", "x_start", "v"]
SCHEDULES = ["linear", "cosine", "scaled-linear"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def double(**settings_: object) -> GaussianDiffusion:
    return GaussianDiffusion(Diffusion(**settings_), dtype=torch.float64)  # type: ignore[arg-type]


def test_noised_images_have_the_mean_and_spread_of_the_forward_process() -> None:
    diffusion = GaussianDiffusion(Diffusion(schedule="linear"))
    generator = torch.Generator().manual_seed(1)
    x_start = torch.full((4, 1, 200, 200), 0.5)
    t = torch.tensor([0, 100, 500, 999])
    x_t = diffusion.add_noise(x_start, torch.randn(x_start.shape, generator=generator), t)
    for image, timestep in zip(x_t, t.tolist(), strict=True):
        a = diffusion.signal(timestep)
        assert image.mean().item() == pytest.approx(0.5 * math.sqrt(a), abs=0.02)
        assert image.std().item() == pytest.approx(math.sqrt(1 - a), rel=0.02)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_jump_has_the_signal_of_many_small_steps(schedule: str) -> None:
    """The Markov chain of eq. 2 keeps the mean and variance that add_noise jumps to."""
    diffusion = double(schedule=schedule, num_train_timesteps=50)
    signal, variance = 1.0, 0.0
    for t in range(50):
        beta = diffusion.posterior(t, t - 1).beta
        signal, variance = signal * math.sqrt(1 - beta), variance * (1 - beta) + beta
        one, zero = torch.ones(1, 1, 1, 1).double(), torch.zeros(1, 1, 1, 1).double()
        at = torch.tensor([t])
        assert diffusion.add_noise(one, zero, at).item() == pytest.approx(signal, rel=1e-9)
        assert diffusion.add_noise(zero, one, at).item() ** 2 == pytest.approx(variance, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    prediction_type=st.sampled_from(TYPES),
    schedule=st.sampled_from(SCHEDULES),
    spatial=st.sampled_from([(4, 4), (2, 3, 4)]),
    t=st.lists(st.integers(0, 998), min_size=3, max_size=3),
)
def test_the_target_answered_gives_back_image_noise_and_velocity(
    prediction_type: str, schedule: str, spatial: tuple[int, ...], t: list[int]
) -> None:
    diffusion = double(schedule=schedule, prediction_type=prediction_type)
    x_start, noise = normal(2, 3, 2, *spatial, seed=t[0])
    steps = torch.tensor(t)
    x_t = diffusion.add_noise(x_start, noise, steps)
    found = diffusion.predict(diffusion.target(x_start, noise, steps), x_t, steps)
    torch.testing.assert_close(found.x_start, x_start, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.epsilon, noise, rtol=1e-6, atol=1e-6)
    v = diffusion.velocity(x_start, noise, steps)
    torch.testing.assert_close(found.v, v, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    first=st.sampled_from(TYPES),
    second=st.sampled_from(TYPES),
    schedule=st.sampled_from(SCHEDULES),
    t=st.integers(0, 990),
)
def test_any_answer_survives_a_change_of_parameterization(
    first: str, second: str, schedule: str, t: int
) -> None:
    """Also one no forward process produced: image and noise of a prediction always fit x_t."""
    x_t, answer = normal(2, 2, 1, 4, 4, seed=t)
    steps = torch.full((2,), t)
    one = double(schedule=schedule, prediction_type=first)
    other = double(schedule=schedule, prediction_type=second)
    belief = one.predict(answer, x_t, steps)
    again = other.predict(getattr(belief, second), x_t, steps)
    scale = float(belief.x_start.abs().max()) + float(belief.epsilon.abs().max())
    for form in TYPES:
        torch.testing.assert_close(
            getattr(again, form), getattr(belief, form), rtol=1e-6, atol=1e-8 * scale
        )
    refit = one.add_noise(belief.x_start, belief.epsilon, steps)
    torch.testing.assert_close(refit, x_t, rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("prediction_type", ["x_start", "v"])
def test_conversions_are_finite_and_right_where_no_signal_is_left(prediction_type: str) -> None:
    diffusion = double(prediction_type=prediction_type, zero_terminal_snr=True)
    x_start, noise = normal(2, 1, 1, 4, 4)
    t = torch.tensor([999])
    x_t = diffusion.add_noise(x_start, noise, t)
    assert torch.equal(x_t, noise)
    found = diffusion.predict(diffusion.target(x_start, noise, t), x_t, t)
    torch.testing.assert_close(found.x_start, x_start)
    torch.testing.assert_close(found.epsilon, noise)
    torch.testing.assert_close(found.v, -x_start)


def test_epsilon_cannot_be_predicted_without_signal() -> None:
    with pytest.raises(InputError, match="use prediction_type v or x_start"):
        GaussianDiffusion(Diffusion(zero_terminal_snr=True, prediction_type="epsilon"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_float32_tables_are_the_float64_ones_rounded_and_leave_no_trace_in_checkpoints(
    schedule: str,
) -> None:
    config = Diffusion(schedule=schedule, num_train_timesteps=4000)  # type: ignore[arg-type]
    single, exact = GaussianDiffusion(config), GaussianDiffusion(config, dtype=torch.float64)
    tables = dict(exact.named_buffers())
    assert tables
    for name, table in single.named_buffers():
        assert table.dtype == torch.float32
        assert torch.equal(table, tables[name].float())
        assert bool(table.isfinite().all())
    assert tables["posterior_x_start"][3].item() == exact.posterior(3, 2).x_start_coefficient
    assert tables["posterior_x_t"][3].item() == exact.posterior(3, 2).x_t_coefficient
    assert single.state_dict() == {}


def test_tables_are_not_written_to() -> None:
    diffusion = GaussianDiffusion(Diffusion(variance="learned", min_snr_gamma=5.0))
    before = {name: table.clone() for name, table in diffusion.named_buffers()}
    x_start, noise = normal(2, 2, 1, 4, 4).float()
    t = torch.tensor([0, 700])
    x_t = diffusion.add_noise(x_start, noise, t)
    diffusion.training_loss(torch.cat([x_t, x_t], dim=1), x_start, noise, x_t, t)
    for name, table in diffusion.named_buffers():
        assert torch.equal(table, before[name])


@pytest.mark.parametrize("prediction_type", TYPES)
def test_loss_is_zero_for_the_target_and_the_mean_distance_otherwise(prediction_type: str) -> None:
    x_start, noise = normal(2, 3, 2, 4, 4)
    t = torch.tensor([0, 300, 999])
    for name, distance in (("mse", 0.25), ("smooth-l1", 0.125)):
        diffusion = double(prediction_type=prediction_type, loss=name)
        x_t = diffusion.add_noise(x_start, noise, t)
        target = diffusion.target(x_start, noise, t)
        exact = diffusion.training_loss(target, x_start, noise, x_t, t)
        assert exact.tolist() == [0, 0, 0]
        off = diffusion.training_loss(target + 0.5, x_start, noise, x_t, t)
        torch.testing.assert_close(off, torch.full((3,), distance).double())
    far = double(prediction_type=prediction_type, loss="smooth-l1")
    loss = far.training_loss(target + 3, x_start, noise, x_t, t)
    torch.testing.assert_close(loss, torch.full((3,), 2.5).double())


def test_min_snr_loss_does_not_depend_on_what_the_network_predicts() -> None:
    """The paper's point: one weight on the error of x_start, however it is expressed."""
    x_start, noise = normal(2, 4, 1, 4, 4)
    belief = x_start + 0.1 * normal(4, 1, 4, 4, seed=9)
    t = torch.tensor([0, 200, 600, 900])
    losses = []
    for prediction_type in TYPES:
        diffusion = double(prediction_type=prediction_type, min_snr_gamma=5.0)
        x_t = diffusion.add_noise(x_start, noise, t)
        as_x_start = double(prediction_type="x_start").predict(belief, x_t, t)
        output = getattr(as_x_start, prediction_type)
        losses.append(diffusion.training_loss(output, x_start, noise, x_t, t))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])
    signal = torch.tensor([diffusion.signal(step) for step in t.tolist()], dtype=torch.float64)
    weight = (signal / (1 - signal)).clamp(max=5)
    expected = weight * ((belief - x_start) ** 2).flatten(1).mean(dim=1)
    torch.testing.assert_close(losses[0], expected)


def test_hybrid_loss_teaches_the_mean_by_the_simple_loss_and_the_variance_by_the_bound() -> None:
    x_start, noise = normal(2, 3, 1, 4, 4).clamp(-1, 1)
    t = torch.tensor([0, 10, 900])
    hybrid = double(variance="learned")
    simple = double(variance="fixed_small")
    x_t = hybrid.add_noise(x_start, noise, t)
    mean = (noise + 0.3 * normal(3, 1, 4, 4, seed=4)).requires_grad_()
    raw = (0.2 * normal(3, 1, 4, 4, seed=5)).requires_grad_()
    output = torch.cat([mean, raw], dim=1)
    loss = hybrid.training_loss(output, x_start, noise, x_t, t)
    alone = simple.training_loss(mean, x_start, noise, x_t, t)
    bound = hybrid.variational_term(output, x_start, x_t, t)
    torch.testing.assert_close(loss, alone + 0.001 * 1000 * bound)
    of_mean, of_raw = torch.autograd.grad(loss.sum(), [mean, raw])
    torch.testing.assert_close(of_mean, torch.autograd.grad(alone.sum(), mean)[0])
    torch.testing.assert_close(of_raw, torch.autograd.grad(bound.sum(), raw)[0])
    assert bool((of_raw.flatten(1).abs().sum(dim=1) > 0).all())


def test_half_precision_outputs_give_a_single_precision_loss() -> None:
    diffusion = GaussianDiffusion(Diffusion(variance="learned"))
    x_start, noise = normal(2, 2, 1, 4, 4).float()
    t = torch.tensor([0, 500])
    x_t = diffusion.add_noise(x_start, noise, t)
    output = torch.cat([noise, torch.zeros_like(noise)], dim=1).bfloat16()
    loss = diffusion.training_loss(output, x_start, noise, x_t, t)
    assert loss.dtype == torch.float32
    assert diffusion.predict(output, x_t, t).x_start.dtype == torch.float32


def test_a_wrong_number_of_output_channels_is_not_broadcast() -> None:
    x = torch.zeros(1, 2, 4, 4)
    t = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"output has 1 channels.*needs 2"):
        GaussianDiffusion(Diffusion()).predict(torch.zeros(1, 1, 4, 4), x, t)
    with pytest.raises(ValueError, match=r"output has 2 channels.*needs 4"):
        GaussianDiffusion(Diffusion(variance="learned")).predict(x, x, t)


def test_timesteps_outside_the_schedule_are_refused() -> None:
    diffusion = GaussianDiffusion(Diffusion())
    assert diffusion.signal(-1) == 1
    for t, t_previous in ((1000, 5), (5, 5), (5, 6), (5, -2), (-1, -1)):
        with pytest.raises(ValueError, match="is not in"):
            diffusion.posterior(t, t_previous)
