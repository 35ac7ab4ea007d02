"""Timestep sampling: the oracle's probabilities, unbiased weights, and resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radiffuse.config import Diffusion
from radiffuse.core.timesteps import (
    LossAwareTimesteps,
    LowTimesteps,
    UniformTimesteps,
    chosen_by,
    timestep_sampler,
)


def seen(root_mean_squares: list[float]) -> LossAwareTimesteps:
    """A sampler whose every timestep saw its loss ten times."""
    sampler = LossAwareTimesteps(len(root_mean_squares))
    for _ in range(10):
        sampler.update(torch.arange(len(root_mean_squares)), torch.tensor(root_mean_squares))
    return sampler


@pytest.mark.parametrize(
    ("mean_square", "expected"),
    [
        ([1, 0, 0, 0], [0.9925, 0.0025, 0.0025, 0.0025]),
        ([9, 4, 0, 0], [0.5965, 0.3985, 0.0025, 0.0025]),
        ([0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_loss_aware_oracle(mean_square: list[float], expected: list[float]) -> None:
    sampler = seen([value**0.5 for value in mean_square])
    assert sampler.probabilities().tolist() == pytest.approx(expected, abs=1e-7)


def test_the_mean_is_of_the_squares() -> None:
    sampler = LossAwareTimesteps(2, history_per_timestep=2)
    sampler.update(torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 7.0, 5.0, 5.0]))
    assert sampler.probabilities().tolist() == pytest.approx([0.5, 0.5])


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_weights_undo_the_probabilities(losses: list[float]) -> None:
    """Sum of p(t) w(t) f(t) is the plain mean of f, for whatever f."""
    sampler = seen(losses)
    total = len(losses)
    p = sampler.probabilities()
    assert p.sum().item() == pytest.approx(1)
    assert float(p.min()) >= 0.01 / total - 1e-12
    t, weights = sampler.draw(200, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.double(), 1 / (total * p[t]), rtol=1e-6, atol=0)
    assert float((p * 1 / (total * p)).sum()) == pytest.approx(1)


def test_the_weighted_mean_loss_is_unbiased_and_hard_timesteps_are_not_counted_twice() -> None:
    losses = torch.tensor([4.0, 2.0, 1.0, 1.0])
    sampler = seen(losses.tolist())
    t, weights = sampler.draw(40_000, torch.Generator().manual_seed(0))
    assert (weights * losses[t]).mean().item() == pytest.approx(2.0, rel=0.02)
    assert losses[t].mean().item() > 2.6
    frequency = torch.bincount(t, minlength=4) / len(t)
    torch.testing.assert_close(frequency.double(), sampler.probabilities(), rtol=0, atol=0.01)


def test_uniform_until_every_timestep_has_its_history() -> None:
    sampler = LossAwareTimesteps(3)
    for step in range(10):
        assert sampler.probabilities().tolist() == [1 / 3] * 3
        _, weights = sampler.draw(5, torch.Generator().manual_seed(step))
        assert weights.tolist() == [1] * 5
        sampler.update(torch.tensor([0, 0, 1]), torch.tensor([5.0, 5.0, 1.0]))
    assert sampler.counts.tolist() == [20, 10, 0]
    assert sampler.probabilities().tolist() == [1 / 3] * 3
    sampler.update(torch.full((10,), 2), torch.ones(10))
    assert sampler.probabilities()[0] > 0.6


def test_old_losses_are_forgotten_after_ten() -> None:
    sampler = seen([100.0, 1.0])
    sampler.update(torch.zeros(10, dtype=torch.int64), torch.ones(10))
    assert sampler.probabilities().tolist() == pytest.approx([0.5, 0.5])


def test_resume_draws_what_the_uninterrupted_run_draws() -> None:
    sampler = seen([3.0, 1.0, 0.5])
    sampler.update(torch.tensor([1]), torch.tensor([9.0]))
    resumed = LossAwareTimesteps(3)
    resumed.load_state_dict(sampler.state_dict())
    for each in (sampler, resumed):
        each.update(torch.tensor([1, 2]), torch.tensor([4.0, 2.0]))
    one = sampler.draw(50, torch.Generator().manual_seed(1))
    other = resumed.draw(50, torch.Generator().manual_seed(1))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


def test_keys_choose_timesteps_by_their_probabilities() -> None:
    p = torch.tensor([0.0, 0.5, 0.0, 0.125, 0.375], dtype=torch.float64)
    chosen = chosen_by(p, (torch.arange(800) + 0.5) / 800)
    assert (chosen.bincount(minlength=5) / 800).tolist() == p.tolist()
    ends = torch.tensor([0.0, 0.5, 0.625, 1 - 2**-24])
    assert chosen_by(p, ends).tolist() == [1, 3, 4, 4]


@pytest.mark.parametrize("sampler", [UniformTimesteps(1000), LossAwareTimesteps(1000)])
def test_draws_follow_the_generator_alone(sampler: UniformTimesteps | LossAwareTimesteps) -> None:
    torch.manual_seed(0)
    first, _ = sampler.draw(64, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    again, _ = sampler.draw(64, torch.Generator().manual_seed(5))
    other, _ = sampler.draw(64, torch.Generator().manual_seed(6))
    assert first.dtype == torch.int64
    assert first.shape == (64,)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_uniform_covers_all_timesteps_evenly_and_keeps_no_state() -> None:
    sampler = UniformTimesteps(10)
    t, weights = sampler.draw(20_000, torch.Generator().manual_seed(0))
    frequency = torch.bincount(t, minlength=10) / len(t)
    torch.testing.assert_close(frequency, torch.full((10,), 0.1), rtol=0, atol=0.01)
    assert bool((weights == 1).all())
    sampler.update(t[:3], torch.tensor([9.0, 9.0, 9.0]))
    assert sampler.state_dict() == {}
    assert torch.equal(sampler.draw(20_000, torch.Generator().manual_seed(0))[0], t)


def test_settings_choose_the_sampler() -> None:
    assert isinstance(timestep_sampler(Diffusion()), UniformTimesteps)
    aware = timestep_sampler(Diffusion(timestep_sampling="loss-aware", num_train_timesteps=7))
    assert isinstance(aware, LossAwareTimesteps)
    assert aware.history.shape == (7, 10)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_low_timesteps_have_the_probabilities_of_their_law(power: float) -> None:
    """P(t <= s) = ((s + 1) / T)^(1 / power): of T = 300, 4, 19 and 33 % at t <= 10. Kolmogorov's bound at 1 in 10^6."""
    total, count = 300, 200_000
    sampler = timestep_sampler(
        Diffusion(timestep_sampling="low", timestep_power=power, num_train_timesteps=total)
    )
    assert isinstance(sampler, LowTimesteps)
    t, weights = sampler.draw(count, torch.Generator().manual_seed(3))
    below = torch.bincount(t, minlength=total).double().cumsum(0) / count
    wanted = (torch.arange(1, total + 1).double() / total) ** (1 / power)
    assert float((below - wanted).abs().max()) < 2.7 / count**0.5
    assert float(below[10]) == pytest.approx({1: 0.0367, 2: 0.1915, 3: 0.3322}[power], abs=0.006)
    assert bool((weights == 1).all())
    assert (int(t.min()), int(t.max())) == (0, total - 1)


@pytest.mark.parametrize("total", [4, 100, 1000])
def test_so_many_losses_make_it_active_in_half_of_all_trainings(total: int) -> None:
    """Oracle: trainings simulated with numpy, each loss at a uniform timestep."""
    needed = LossAwareTimesteps(total).losses_needed()
    rng = np.random.default_rng(0)
    counts = rng.multinomial(needed, np.full(total, 1 / total), size=2000)
    assert float((counts.min(1) >= 10).mean()) == pytest.approx(
        0.5, abs=0.08 if total == 4 else 0.05
    )


def test_a_person_is_told_whether_it_will_become_active() -> None:
    sampler = LossAwareTimesteps(1000)
    needed = sampler.losses_needed()
    assert 20_000 < needed < 25_000
    first = -(-needed // 16)
    assert f"{first} steps of 16" in sampler.remark(16, first)
    assert "not become active" not in sampler.remark(16, first)
    assert f"will not become active in {first - 1} steps" in sampler.remark(16, first - 1)
    assert sampler.remark(None, None).endswith(f"about {needed:,} losses")
    assert UniformTimesteps(1000).remark(16, 1) == ""
