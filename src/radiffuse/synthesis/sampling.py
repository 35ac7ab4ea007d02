"""Sampling from a synthesizer: noise and embeddings to latents to films, with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.diffusion import GaussianDiffusion
from ..core.sampling import Denoiser, image_spacing, inference_timesteps
from ..core.sampling import sample as reverse
from ..data.scan import Array, gray_values
from ..errors import InputError
from ..inference.finite import verify_finite
from .autoencoder import Autoencoder
from .denoiser import ConditionalDenoiser
from .synthesizer import Synthesizer, scheduler_settings


def guided(network: ConditionalDenoiser, embeddings: Tensor, guidance: float) -> Denoiser:
    """The denoiser for embeddings ``(B, W)`` with classifier-free guidance w (Ho and Salimans 2022, eq. 6).

    The output is unconditional + w (conditional - unconditional): 1 is no guidance, 0 is unconditional.
    """
    null = torch.zeros_like(embeddings)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        if guidance == 1:
            return torch.as_tensor(network(x_t, t, embeddings))
        both = network(x_t.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([embeddings, null]))
        conditional, unconditional = both.chunk(2)
        return torch.as_tensor(unconditional + guidance * (conditional - unconditional))

    return denoise


def latent_noise(
    autoencoder: Autoencoder, size: Sequence[int], generators: Sequence[torch.Generator]
) -> Tensor:
    """Noise of latents ``(B, c, h, w)`` for films of a size, each film's from its own generator."""
    shape = (autoencoder.latent_channels, *(n // autoencoder.factor for n in size))
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


@torch.no_grad()
def sample_latents(
    synthesizer: Synthesizer,
    embeddings: Tensor,
    noise: Tensor,
    *,
    sampler: Literal["ddim", "heun", "dpm++"] = "ddim",
    steps: int = 50,
    guidance: float = 1.0,
    start: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """Latents of new images, ``(B, c, h, w)``, on the device of the synthesizer.

    Args:
        synthesizer: The networks.
        embeddings: ``(B, W)``, of length 1.
        noise: ``(B, c, h, w)``, standard normal.
        sampler: DDIM with eta 0, of a flow Euler's method; heun, of a flow; or DPM-Solver++ of diffusers (Lu et al.
            2022), second order, of any other process.
        steps: Inference steps over all timesteps.
        guidance: Weight of classifier-free guidance, see ``guided``.
        start: Latents ``(B, c, h, w)`` of real images to start from; None starts from noise.
        strength: Of ``start``: the fraction of the timesteps by which they are noised and then denoised, 0 to 1.

    Raises:
        InputError: More steps than training timesteps, or a strength that leaves no step.
    """
    device = next(synthesizer.autoencoder.parameters()).device
    embeddings, x = embeddings.to(device), noise.to(device)
    diffusion = GaussianDiffusion(synthesizer.diffusion).to(device)
    total = diffusion.num_train_timesteps
    spacing = image_spacing(synthesizer.diffusion.prediction_type)
    timesteps = inference_timesteps(steps, total, spacing)
    if start is not None:
        timesteps = tuple(t for t in timesteps if t < strength * total)
        if not timesteps:
            problem = f"leaves none of {steps} steps"
            raise InputError(f"--strength {strength}", problem, "Use more of either")
        first = torch.full((len(start),), timesteps[0], device=device)
        x = diffusion.add_noise(start.to(device), x, first)
    denoise = guided(synthesizer.denoiser.eval(), embeddings, guidance)
    if sampler == "dpm++":
        return _dpm_solver(synthesizer, denoise, x, timesteps)
    return reverse(diffusion, denoise, x, timesteps, sampler=sampler, clip=False)


def to_films(autoencoder: Autoencoder, latents: Tensor) -> Array:
    """The first channel of decoded latents, uint8 ``(B, rows, columns)``.

    Raises:
        InputError: A value is not finite.
    """
    films = verify_finite(autoencoder.decode(latents), "synthetic films", "the synthesizer")
    return gray_values(films[:, 0].cpu().numpy())


def _dpm_solver(
    synthesizer: Synthesizer, denoise: Denoiser, x: Tensor, timesteps: tuple[int, ...]
) -> Tensor:
    from diffusers import DPMSolverMultistepScheduler

    scheduler: Any = DPMSolverMultistepScheduler(
        solver_order=2,
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
        **scheduler_settings(synthesizer.diffusion),
    )
    scheduler.set_timesteps(timesteps=list(timesteps), device=x.device)
    for t in timesteps:
        output = denoise(x, torch.full((len(x),), t, device=x.device))
        x = scheduler.step(output, t, x).prev_sample
    return x
