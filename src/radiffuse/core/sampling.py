"""From noise to image in any number of steps: DDPM (Ho et al. 2020), DDIM (Song et al. 2021), Heun's method for flows.

A few-step sampler visits some of the training timesteps and steps between them with the exact
respaced posterior. The network always gets the training timestep, never the number of the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from .diffusion import GaussianDiffusion
from .gaussian import interpolate_log_variance

Spacing = Literal["leading", "linspace", "trailing"]
Sampler = Literal["ddpm", "ddim", "heun"]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> output; x_t is (B, C, *spatial), t is (B,) int64 training timesteps."""
Randomness = torch.Generator | Sequence[torch.Generator]
"""One source for a batch, or one for each of its images, whose noise then does not depend on the others."""


@dataclass(frozen=True)
class StepOutput:
    """One reverse step."""

    sample: Tensor
    """(B, C, *spatial), the image at the earlier timestep."""
    x_start: Tensor
    """(B, C, *spatial), the estimate of the clean image that the step used."""


def image_spacing(prediction_type: str) -> Spacing:
    """How a sampler of images spaces its timesteps.

    At the last timestep a predicted noise says almost nothing about the image, and its error grows
    by 1 / sqrt(alphas_cumprod); leading spacing starts below it. Predictions of x_start or v can
    start at the end.
    """
    return "leading" if prediction_type == "epsilon" else "trailing"


def image_sampler(schedule: str) -> Sampler:
    """The sampler of images of a denoiser of pixels by default: of a flow its ordinary differential equation."""
    return "ddim" if schedule == "flow" else "ddpm"


def inference_timesteps(
    num_inference_steps: int, num_train_timesteps: int, spacing: Spacing = "trailing"
) -> tuple[int, ...]:
    """The training timesteps that a few-step sampler visits (Lin et al. 2024, table 2).

    leading is i (T // n): it reaches 0 but not T - 1; linspace is round(i (T - 1) / (n - 1)): it
    reaches both (0 alone for one step); trailing is round(T - i T / n) - 1: it reaches T - 1.
    Halves round to even, in exact arithmetic. Where the first timestep visited still holds signal,
    sampling starts from more noise than the network was trained on there; trailing avoids that.

    Args:
        num_inference_steps: n, 1 to T.
        num_train_timesteps: T.
        spacing: Which n of the T.

    Returns:
        n distinct timesteps, descending.

    Raises:
        InputError: n out of range, or unknown spacing.
    """
    n, total = num_inference_steps, num_train_timesteps
    if not 1 <= n <= total:
        raise InputError(
            "num_inference_steps",
            f"{n} steps cannot be spread over {total} training timesteps",
            f"use 1 to {total}",
        )
    if spacing == "leading":
        return tuple(i * (total // n) for i in reversed(range(n)))
    if spacing == "linspace":
        gap = Fraction(total - 1, max(n - 1, 1))
        return tuple(round(i * gap) for i in reversed(range(n)))
    if spacing == "trailing":
        return tuple(round(total - i * Fraction(total, n)) - 1 for i in range(n))
    raise InputError(
        "spacing", f"{spacing!r} is not a spacing", "use leading, linspace or trailing"
    )


def ddpm_step(
    diffusion: GaussianDiffusion,
    output: Tensor,
    x_t: Tensor,
    t: int,
    t_previous: int,
    *,
    noise: Tensor | None = None,
    clip: bool = False,
) -> StepOutput:
    """One ancestral step, a draw of p(x_previous | x_t) (Ho et al. 2020, algorithm 2).

    Args:
        diffusion: The process; its ``variance`` setting applies.
        output: (B, C or 2 C, *spatial), the network's output at (x_t, t).
        x_t: (B, C, *spatial).
        t: Training timestep of ``x_t``.
        t_previous: Training timestep to go to; -1 is the clean image, which gets no noise.
        noise: Standard normal, shaped like ``x_t``; not needed for the step to -1.
        clip: Clip the estimated x_start to [-1, 1].

    Raises:
        ValueError: Timesteps out of order, or no noise where it is needed.
    """
    posterior = diffusion.posterior(t, t_previous)
    x_start = _predict(diffusion, output, x_t, t, clip=clip)[0]
    mean = posterior.x_start_coefficient * x_start + posterior.x_t_coefficient * x_t
    if t_previous == -1:
        return StepOutput(sample=mean, x_start=x_start)
    if noise is None:
        raise ValueError("a DDPM step needs noise")
    if diffusion.config.variance == "learned":
        raw = diffusion.split(output, x_t.shape[1])[1]
        assert raw is not None
        small, large = math.log(posterior.variance), math.log(posterior.beta)
        sigma = torch.exp(0.5 * interpolate_log_variance(raw.to(x_t.dtype), small, large))
        return StepOutput(sample=mean + sigma * noise, x_start=x_start)
    fixed_large = diffusion.config.variance == "fixed_large"
    variance = posterior.beta if fixed_large else posterior.variance
    return StepOutput(sample=mean + math.sqrt(variance) * noise, x_start=x_start)


def ddim_step(
    diffusion: GaussianDiffusion,
    output: Tensor,
    x_t: Tensor,
    t: int,
    t_previous: int,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
    clip: bool = False,
) -> StepOutput:
    """One DDIM step (Song et al. 2021, eq. 12 and 16), between any timesteps; of a flow, with eta 0, a step of Euler.

    Args:
        diffusion: The process.
        output: (B, C or 2 C, *spatial), the network's output at (x_t, t); a learned variance is not used.
        x_t: (B, C, *spatial).
        t: Training timestep of ``x_t``.
        t_previous: Training timestep to go to; -1 is the clean image.
        eta: 0 is deterministic, 1 is DDPM with ``fixed_small`` variance; in between a mixture.
        noise: Standard normal, shaped like ``x_t``; needed if eta is above 0, except for the step to -1.
        clip: Clip the estimated x_start to [-1, 1]; the direction then follows the clipped estimate.

    Raises:
        ValueError: Timesteps out of order, or no noise where it is needed.
    """
    sigma = eta * math.sqrt(diffusion.posterior(t, t_previous).variance)
    x_start, epsilon = _predict(diffusion, output, x_t, t, clip=clip)
    sample = _at(diffusion, x_start, epsilon, t_previous, sigma)
    if sigma > 0:
        if noise is None:
            raise ValueError("a DDIM step with eta above 0 needs noise")
        sample = sample + sigma * noise
    return StepOutput(sample=sample, x_start=x_start)


def heun_step(
    diffusion: GaussianDiffusion,
    network: Denoiser,
    x_t: Tensor,
    t: int,
    t_previous: int,
    *,
    clip: bool = False,
) -> StepOutput:
    """One step of Heun's method along a flow, dx/ds = v: by the mean velocity of both ends (Karras et al. 2022).

    The network is asked twice; once, for a step of Euler, on the way to the clean image, where it has no timestep.

    Args:
        diffusion: The process, a flow.
        network: Called as ``network(x_t, t)``.
        x_t: (B, C, *spatial).
        t: Training timestep of ``x_t``.
        t_previous: Training timestep to go to; -1 is the clean image.
        clip: Clip the estimates of x_start to [-1, 1]; the velocities then follow the clipped estimates.
    """
    x_start, epsilon = _predict(diffusion, network(x_t, _steps(t, x_t)), x_t, t, clip=clip)
    euler = _at(diffusion, x_start, epsilon, t_previous, 0.0)
    if t_previous == -1:
        return StepOutput(sample=euler, x_start=x_start)
    output = network(euler, _steps(t_previous, x_t))
    x_next, epsilon_next = _predict(diffusion, output, euler, t_previous, clip=clip)
    time, after = (math.sqrt(diffusion.variances(s)[1]) for s in (t, t_previous))
    velocity = 0.5 * (epsilon - x_start + epsilon_next - x_next)
    return StepOutput(sample=x_t + (after - time) * velocity, x_start=x_start)


@torch.no_grad()
def sample(
    diffusion: GaussianDiffusion,
    network: Denoiser,
    start: Tensor | Sequence[int],
    timesteps: Sequence[int],
    *,
    sampler: Sampler = "ddpm",
    eta: float = 0.0,
    generator: Randomness | None = None,
    clip: bool = True,
) -> Tensor:
    """Sample a clean image from noise, over the given training timesteps.

    Noise is drawn on the generator's device and moved, so a CPU generator gives the same noise on any machine.

    Args:
        diffusion: The process.
        network: Called as ``network(x_t, t)``, t a (B,) int64 tensor of training timesteps.
        start: x at the first timestep, (B, C, *spatial), or the shape of the noise to start from.
        timesteps: Descending, as of ``inference_timesteps``; the last step leads to the clean image.
        sampler: ``ddpm``, with the variance of ``diffusion.config``; ``ddim``; or ``heun``, of a flow.
        eta: Noise of DDIM, 0 to 1.
        generator: Source of randomness, or one for each image; None only for DDIM with eta 0 or Heun from a given
            ``start``.
        clip: Clip each estimate of x_start to [-1, 1].

    Returns:
        (B, C, *spatial), the clean image.

    Raises:
        InputError: Unknown sampler, or one that the process does not have.
        ValueError: Timesteps not descending, or no generator where noise is needed.
    """
    if sampler not in ("ddpm", "ddim", "heun"):
        raise InputError("sampler", f"{sampler!r} is not a sampler", "use ddpm, ddim or heun")
    verify_sampler(sampler, diffusion.config.schedule)
    if not timesteps:
        raise ValueError("no timesteps to sample at")
    table = diffusion.alphas_cumprod
    x = start if isinstance(start, Tensor) else _noise(start, generator, table)
    for t, t_previous in zip(timesteps, [*timesteps[1:], -1], strict=True):
        if sampler == "heun":
            x = heun_step(diffusion, network, x, t, t_previous, clip=clip).sample
        else:
            output = network(x, _steps(t, x))
            noisy = t_previous >= 0 and (sampler == "ddpm" or eta > 0)
            noise = _noise(x.shape, generator, x) if noisy else None
            go = ddpm_step if sampler == "ddpm" else partial(ddim_step, eta=eta)
            x = go(diffusion, output, x, t, t_previous, noise=noise, clip=clip).sample
    return x


def verify_sampler(sampler: str, schedule: str) -> None:
    """Refuse a sampler that a process does not have.

    Raises:
        InputError: Heun's method, and no flow; or the solver of diffusers, and a flow.
    """
    if sampler == "heun" and schedule != "flow":
        problem = f"is for the schedule flow, not for {schedule}"
        raise InputError("sampler heun", problem, "Use another sampler")
    if sampler == "dpm++" and schedule == "flow":
        raise InputError("sampler dpm++", "is not for the schedule flow", "Use heun or ddim")


def _steps(t: int, like: Tensor) -> Tensor:
    """A timestep for each image of a batch."""
    return torch.full((like.shape[0],), t, dtype=torch.int64, device=like.device)


def _predict(
    diffusion: GaussianDiffusion, output: Tensor, x_t: Tensor, t: int, *, clip: bool
) -> tuple[Tensor, Tensor]:
    """Estimates of x_start and of the noise that agree with each other and x_t."""
    prediction = diffusion.predict(output, x_t, _steps(t, x_t))
    if not clip:
        return prediction.x_start, prediction.epsilon
    x_start, (signal, noise) = prediction.x_start.clamp(-1, 1), diffusion.variances(t)
    return x_start, (x_t - math.sqrt(signal) * x_start) / math.sqrt(noise)


def _at(
    diffusion: GaussianDiffusion, x_start: Tensor, epsilon: Tensor, t: int, sigma: float
) -> Tensor:
    """The point at t by x_start and epsilon, with room for new noise of standard deviation sigma."""
    signal, noise = diffusion.variances(t)
    # Rounding may leave a tiny negative number under the root at eta = 1.
    return math.sqrt(signal) * x_start + math.sqrt(max(noise - sigma**2, 0.0)) * epsilon


def _noise(shape: Sequence[int], generator: Randomness | None, like: Tensor) -> Tensor:
    """Standard normal noise of the dtype and on the device of ``like``."""
    if isinstance(generator, Sequence):
        return torch.cat([_noise((1, *shape[1:]), one, like) for one in generator])
    if generator is None:
        raise ValueError("sampling needs a generator to draw noise from")
    draw = torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=like.dtype)
    return draw.to(like.device)
