"""Noise schedules: the betas of the forward process, computed in float64.

A schedule is a vector of T betas, each in (0, 1]; timestep t multiplies the signal by sqrt(1 -
beta_t) and adds noise of variance beta_t. ``alphas_cumprod[t]`` is the fraction of the signal's
variance left after step t. A flow has no betas, but times: see ``flow_times``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import InputError

SIDE = 64
"""Pixels along a side of the images that the published schedules are made for (Hoogeboom et al. 2023)."""
OFFSET = 0.008
"""Of the cosine, the paper's s: it keeps the first betas from vanishing."""
MAX_BETA = 0.999
"""Cap of the betas of the cosine, which keeps the last step from being singular."""


def linear_betas(
    num_train_timesteps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Tensor:
    """Betas on a straight line (Ho et al. 2020, section 4).

    The published end points belong to T near 1000 and are used for any T, unscaled. For the same
    amount of noise at another T, scale both by 1000 / T, as Nichol and Dhariwal 2021 do.

    Args:
        num_train_timesteps: T.
        beta_start: Beta at timestep 0, in (0, 1).
        beta_end: Beta at timestep T - 1, in (0, 1).

    Returns:
        (T,) float64.
    """
    return torch.linspace(
        beta_start, beta_end, num_train_timesteps, dtype=torch.float64, device="cpu"
    )


def scaled_linear_betas(num_train_timesteps: int) -> Tensor:
    """Betas (T,) float64 whose square roots lie on a straight line (Rombach et al. 2022, Stable Diffusion)."""
    start, end = math.sqrt(0.00085), math.sqrt(0.012)
    return linear_betas(num_train_timesteps, beta_start=start, beta_end=end) ** 2


def cosine_betas(num_train_timesteps: int) -> Tensor:
    """Betas (T,) float64 whose ``alphas_cumprod`` is a squared cosine (Nichol and Dhariwal 2021, eq. 17)."""
    time = (
        torch.arange(num_train_timesteps + 1, dtype=torch.float64, device="cpu")
        / num_train_timesteps
    )
    f = torch.cos((time + OFFSET) / (1 + OFFSET) * (math.pi / 2)) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=MAX_BETA)


_SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "linear": linear_betas,
    "cosine": cosine_betas,
    "scaled-linear": scaled_linear_betas,
}


def betas(schedule: str, num_train_timesteps: int) -> Tensor:
    """The betas, (T,) float64 on the CPU, of the schedule linear, cosine or scaled-linear, with published constants.

    Raises:
        InputError: Unknown schedule, or T below 2.
    """
    if schedule not in _SCHEDULES:
        raise InputError(
            "schedule", f"{schedule!r} is not a schedule", f"use one of {', '.join(_SCHEDULES)}"
        )
    _verify_length(num_train_timesteps)
    return _SCHEDULES[schedule](num_train_timesteps)


def flow_times(num_train_timesteps: int, shift: float | None = None) -> Tensor:
    """The times s of a rectified flow, x = (1 - s) x_start + s noise (Liu et al. 2023; Lipman et al. 2023).

    Timestep t has s = (t + 1) / T, so the last one is pure noise and -1, the clean image, has 0; with ``shift`` m it is
    m s / (1 + (m - 1) s), whose SNR is lower by m squared (Esser et al. 2024, eq. 23).

    Returns:
        (T,) float64, ascending, in (0, 1].

    Raises:
        InputError: T below 2.
    """
    _verify_length(num_train_timesteps)
    steps = torch.arange(1, num_train_timesteps + 1, dtype=torch.float64, device="cpu")
    time = steps / num_train_timesteps
    return time if shift is None else shift * time / (1 + (shift - 1) * time)


def alphas_cumprod(betas: Tensor) -> Tensor:
    """Fraction of the signal variance left after each timestep, (T,), decreasing, in [0, 1)."""
    return torch.cumprod(1 - betas, dim=0)


def rescale_zero_terminal_snr(betas: Tensor) -> Tensor:
    """The betas (T,) of a schedule, rescaled so that the last one is exactly 1: no signal is left.

    Lin et al. 2024, algorithm 1: sqrt(alphas_cumprod) is shifted to end at exactly 0, then scaled to keep its start.
    """
    roots = alphas_cumprod(betas).sqrt()
    first, last = roots[0], roots[-1]
    cumulative = ((roots - last) * first / (first - last)) ** 2
    previous = torch.cat([torch.ones_like(cumulative[:1]), cumulative[:-1]])
    return 1 - cumulative / previous


def shifted(betas: Tensor, shift: float) -> Tensor:
    """The betas (T,) of a schedule whose SNR is divided by ``shift`` squared at every timestep.

    Hoogeboom et al. 2023, section 3.1, for any schedule: with a = ``alphas_cumprod`` and s = ``shift``, the new one is
    a / (a + s^2 (1 - a)), so the new beta is s^2 beta / (a + s^2 (1 - a)). A last timestep of pure noise stays one.
    """
    a, square = alphas_cumprod(betas), shift * shift
    return square * betas / (a + square * (1 - a))


def resolution_shift(size: Sequence[int]) -> float:
    """The ``shift`` for images or patches of a spatial size, with a schedule made for sides of ``SIDE``.

    The mean of n pixels has n times the SNR of one. So that images of both sizes, brought to the same few pixels, hold
    the same signal, the SNR is divided by the ratio of their numbers of pixels: for films of side d by (d / 64)^2, as
    in the paper; for volumes [ours] by (d / 64)^3. Sizes that are not square count by their number of pixels. At
    fewer of them than ``SIDE`` makes, the schedule stays as it is [ours].
    """
    return max(1.0, math.sqrt(math.prod(size) / SIDE ** len(size)))


def min_snr_weight(
    signal: Tensor, noise: Tensor, prediction_type: str, gamma: float | None
) -> Tensor:
    """Loss weight of each timestep (Hang et al. 2023, section 3.4).

    The loss on x_start is weighted by min(SNR, gamma), whatever the network predicts: so by that
    over 1 for ``x_start``, over SNR for ``epsilon``, times the variance of the noise for ``v``, whose
    error is that of x_start over the noise's standard deviation. A timestep without signal has
    weight 0 for ``x_start`` and ``v``.

    Args:
        signal: (T,), variance of the signal, in [0, 1).
        noise: (T,), variance of the noise, in (0, 1].
        prediction_type: ``epsilon``, ``x_start`` or ``v``.
        gamma: Clamp; None weighs all timesteps by 1.

    Returns:
        (T,), 0 or more.
    """
    if gamma is None:
        return torch.ones_like(signal)
    snr = signal / noise
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1)
    clamped = snr.clamp(max=gamma)
    return clamped * noise if prediction_type == "v" else clamped


def _verify_length(num_train_timesteps: int) -> None:
    if num_train_timesteps < 2:
        raise InputError(
            "num_train_timesteps",
            f"{num_train_timesteps} is not a number of diffusion steps",
            "use 2 or more; 1000 is usual",
        )
