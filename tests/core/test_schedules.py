"""Schedules against their published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radiffuse.config import Diffusion
from radiffuse.core import schedules
from radiffuse.core.diffusion import GaussianDiffusion, betas_of
from radiffuse.errors import InputError

NAMES = ["linear", "cosine", "scaled-linear"]


def test_linear_is_the_published_line() -> None:
    betas = schedules.betas("linear", 1000)
    np.testing.assert_allclose(betas.numpy(), np.linspace(1e-4, 0.02, 1000), rtol=1e-14)


def test_linear_of_1001_steps_has_the_signal_of_the_respacing_oracle() -> None:
    signal = schedules.alphas_cumprod(schedules.betas("linear", 1001))
    expected = [0.999900000, 0.521750136, 0.077992323, 0.003318914, 0.000039952]
    np.testing.assert_allclose(signal[::250].numpy(), expected, rtol=0, atol=5e-10)


def test_linear_end_points_can_be_scaled_for_another_number_of_timesteps() -> None:
    scaled = schedules.linear_betas(4000, beta_start=1e-4 / 4, beta_end=0.02 / 4)
    signal = schedules.alphas_cumprod(scaled)
    reference = schedules.alphas_cumprod(schedules.betas("linear", 1000))
    assert math.log(signal[-1]) == pytest.approx(math.log(reference[-1]), rel=0.01)


def test_cosine_signal_is_the_squared_cosine_of_equation_17() -> None:
    steps = 1000
    signal = schedules.alphas_cumprod(schedules.betas("cosine", steps)).numpy()
    t = np.arange(steps + 1) / steps
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(signal[:-1], (f / f[0])[1:-1], rtol=1e-9)
    assert schedules.betas("cosine", steps)[-1] == 0.999


def test_scaled_linear_is_linear_in_the_square_root() -> None:
    roots = schedules.betas("scaled-linear", 1000).sqrt().numpy()
    np.testing.assert_allclose(np.diff(roots, 2), 0, atol=1e-15)
    assert roots[0] ** 2 == pytest.approx(0.00085)
    assert roots[-1] ** 2 == pytest.approx(0.012)


@settings(deadline=None)
@given(name=st.sampled_from(NAMES), steps=st.integers(2, 5000))
def test_every_schedule_loses_signal_at_every_step(name: str, steps: int) -> None:
    betas = schedules.betas(name, steps)
    signal = schedules.alphas_cumprod(betas)
    assert betas.shape == (steps,)
    assert betas.dtype == torch.float64
    assert bool((betas > 0).all())
    assert bool((betas < 1).all())
    assert bool((signal.diff() < 0).all())
    assert bool((signal > 0).all())


@settings(deadline=None)
@given(name=st.sampled_from(NAMES), steps=st.integers(2, 2000))
def test_zero_terminal_snr_ends_in_noise_and_keeps_the_start(name: str, steps: int) -> None:
    before = schedules.betas(name, steps)
    after = schedules.rescale_zero_terminal_snr(before)
    signal = schedules.alphas_cumprod(after)
    assert after[-1] == 1
    assert signal[-1] == 0
    assert signal[0].item() == pytest.approx(1 - before[0].item(), rel=1e-12)
    # Algorithm 1: an affine map of the roots, so their differences keep their proportions.
    old, new = schedules.alphas_cumprod(before).sqrt().diff(), signal.sqrt().diff()
    torch.testing.assert_close(new / new.sum(), old / old.sum(), rtol=1e-6, atol=1e-12)


def test_zero_terminal_snr_agrees_with_diffusers() -> None:
    ddim = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    betas = schedules.betas("linear", 1000)
    ours = schedules.rescale_zero_terminal_snr(betas)
    torch.testing.assert_close(ours, ddim.rescale_zero_terminal_snr(betas), rtol=1e-9, atol=1e-12)


def test_a_shifted_cosine_is_simple_diffusion_s() -> None:
    """Hoogeboom et al. 2023, section 3.1: log SNR = -2 log tan(pi t / 2) + 2 log(64 / d), here at d = 256.

    Nichol and Dhariwal's offset moves t to (t + .008) / 1.008, and divides by the cosine at t = 0.
    """
    process = GaussianDiffusion(Diffusion(schedule="cosine", shift=4.0), dtype=torch.float64)
    angle = (np.arange(1, 1000) / 1000 + 0.008) / 1.008 * np.pi / 2  # the last beta is capped
    signal = (np.cos(angle) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    expected = np.log(signal / (1 - signal)) + 2 * np.log(64 / 256)
    found = process.alphas_cumprod[:-1].numpy()
    np.testing.assert_allclose(np.log(found / (1 - found)), expected, rtol=0, atol=1e-9)


@settings(deadline=None)
@given(name=st.sampled_from(NAMES), zero=st.booleans(), shift=st.floats(0.05, 50))
def test_a_shift_divides_the_snr_of_every_schedule(name: str, zero: bool, shift: float) -> None:
    def log_snr(shift: float | None) -> np.ndarray:
        config = Diffusion(schedule=name, prediction_type="v", zero_terminal_snr=zero, shift=shift)  # type: ignore[arg-type]
        signal = GaussianDiffusion(config, dtype=torch.float64).alphas_cumprod
        assert bool((signal[-1] == 0) == zero)
        kept = signal[:-1].numpy()
        return np.log(kept / (1 - kept))

    np.testing.assert_allclose(log_snr(shift), log_snr(None) - 2 * np.log(shift), atol=1e-7)


def test_averages_over_neighbors_keep_the_signal_of_the_small_image() -> None:
    """Films: 4 x 4 pixels of 256 x 256 make one of 64 x 64. Volumes: 2 x 2 x 2 voxels of 128^3."""
    for size, neighbors in (((256, 256), 16), ((512, 128), 16), ((128, 128, 128), 8)):
        shift = schedules.resolution_shift(size)
        large = GaussianDiffusion(Diffusion(shift=shift), dtype=torch.float64).alphas_cumprod
        small = GaussianDiffusion(Diffusion(), dtype=torch.float64).alphas_cumprod
        averaged = neighbors * large / (1 - large)  # the variance of a mean of noise is 1/n
        torch.testing.assert_close(averaged, small / (1 - small), rtol=1e-9, atol=0)
    assert schedules.resolution_shift((64, 64)) == schedules.resolution_shift((64, 64, 64)) == 1


def test_without_a_shift_no_bit_changes() -> None:
    for name in NAMES:
        assert torch.equal(betas_of(Diffusion(schedule=name)), schedules.betas(name, 1000))  # type: ignore[arg-type]


def test_diffusers_gets_the_shifted_betas() -> None:
    from diffusers import DDIMScheduler

    from radiffuse.synthesis.synthesizer import scheduler_settings

    for zero in (False, True):
        config = Diffusion(prediction_type="v", zero_terminal_snr=zero, shift=2.5)
        theirs = DDIMScheduler(**scheduler_settings(config)).alphas_cumprod
        ours = GaussianDiffusion(config).alphas_cumprod
        torch.testing.assert_close(theirs.float(), ours, rtol=1e-3, atol=1e-5)


def test_schedules_stay_on_the_cpu_under_a_meta_device() -> None:
    with torch.device("meta"):
        assert schedules.betas("cosine", 10).device.type == "cpu"
        assert schedules.betas("linear", 10).device.type == "cpu"


def test_an_unknown_schedule_is_named_with_its_neighbors() -> None:
    with pytest.raises(InputError, match=r"'quadratic' is not a schedule.*linear, cosine"):
        schedules.betas("quadratic", 1000)


def test_one_timestep_is_refused() -> None:
    with pytest.raises(InputError, match="num_train_timesteps"):
        schedules.betas("linear", 1)


@pytest.mark.parametrize(("snr", "gamma"), [(0.25, 5.0), (5.0, 5.0), (40.0, 5.0), (0.01, 1.0)])
def test_min_snr_weights_are_those_of_the_paper(snr: float, gamma: float) -> None:
    signal = torch.tensor([snr / (1 + snr)], dtype=torch.float64)
    weights = {
        "x_start": min(snr, gamma),
        "epsilon": min(snr, gamma) / snr,
        "v": min(snr, gamma) / (snr + 1),
    }
    for prediction_type, expected in weights.items():
        weight = schedules.min_snr_weight(signal, 1 - signal, prediction_type, gamma)
        assert weight.item() == pytest.approx(expected)


def test_min_snr_is_finite_without_signal_and_off_by_default() -> None:
    signal = torch.tensor([0.5, 0.0], dtype=torch.float64)
    assert schedules.min_snr_weight(signal, 1 - signal, "v", 5.0).tolist() == [0.5, 0.0]
    assert schedules.min_snr_weight(signal, 1 - signal, "x_start", 5.0).tolist() == [1.0, 0.0]
    assert schedules.min_snr_weight(signal, 1 - signal, "epsilon", None).tolist() == [1.0, 1.0]
