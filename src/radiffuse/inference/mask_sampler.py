"""Sample masks for images from a mask denoiser, and keep every step's estimate of the clean mask."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config import Diffusion, Sampling
from ..core.diffusion import GaussianDiffusion
from ..core.masks import logits_to_x_start
from ..core.sampling import Randomness, inference_timesteps, sample
from ..errors import InputError
from ..nets.joint_denoiser import JointDenoiser
from ..nets.mask_denoiser import MaskDenoiser


def of_x_start(diffusion: Diffusion) -> Diffusion:
    """The same noising, of what is predicted clean: masks, or estimates that are clean already."""
    return replace(diffusion, prediction_type="x_start")


class MaskSampler:
    """From noise to a mask in few steps, with DDPM or DDIM of ``core``, by the process of the training.

    Raises:
        InputError: More steps than the process has timesteps.
    """

    def __init__(
        self, network: MaskDenoiser | JointDenoiser, diffusion: Diffusion, sampling: Sampling
    ) -> None:
        self.network = network
        self.predict = network.segment if isinstance(network, JointDenoiser) else network
        self.process = GaussianDiffusion(of_x_start(diffusion))
        self.sampling = sampling
        total = diffusion.num_train_timesteps
        if sampling.steps > total:
            problem = f"the run was trained on {total} timesteps"
            raise InputError(f"--steps {sampling.steps}", problem, f"Use 1 to {total}")
        n = sampling.steps
        # A single step has to start at the noise, not at the clean end.
        self.timesteps = inference_timesteps(n, total, "linspace" if n > 1 else "trailing")
        given = (
            [total * (n - i) / n - 1 for i in range(n)]
            if sampling.legacy_timesteps
            else self.timesteps
        )
        self.network_timesteps = dict(zip(self.timesteps, given, strict=True))

    @torch.no_grad()
    def __call__(self, images: Tensor, generator: Randomness, every_step: bool = False) -> Tensor:
        """Logits of the clean mask.

        Args:
            images: ``(B, C, *S)`` in [-1, 1].
            generator: Source of the noise, or one for each image.
            every_step: Keep the estimate of every step; else the result alone, which needs less memory.

        Returns:
            ``(steps, B, K, *S)`` float32, the result last; one step unless ``every_step``.
        """
        self.process.to(images.device)
        logits: list[Tensor] = []

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            step = self.network_timesteps[int(t[0])]
            network_t = torch.full(t.shape, float(step), device=t.device)
            guess = logits_to_x_start(logits[-1]) if logits else None
            if not every_step:
                logits.clear()
            logits.append(self.predict(images, x_t, network_t, guess).float())
            return logits_to_x_start(logits[-1])

        sample(
            self.process,
            denoise,
            (len(images), self.network.classes, *images.shape[2:]),
            self.timesteps,
            sampler=self.sampling.sampler,
            eta=self.sampling.eta,
            generator=generator,
            clip=False,  # an estimate made of probabilities lies in [-1, 1] already
        )
        return torch.stack(logits)
