"""Draw images from a denoiser."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn

from ..config import Diffusion
from ..core.diffusion import GaussianDiffusion
from ..core.sampling import Spacing, inference_timesteps
from ..core.sampling import sample as reverse
from ..data.plan import Plan
from ..data.scan import Array


def draw_images(
    network: nn.Module,
    diffusion: Diffusion,
    plan: Plan,
    *,
    count: int,
    steps: int = 50,
    sampler: Literal["ddim", "ddpm"] = "ddpm",
    seed: int = 0,
    batch: int = 16,
) -> Array:
    """Images of the denoiser: float32 ``(count, C, *size)`` in [-1, 1].

    They depend on seed and count alone.
    """
    process = GaussianDiffusion(diffusion)
    device = next(network.parameters()).device
    process.to(device)
    # At the last timestep a predicted noise says next to nothing about the image, and its error grows by
    # 1 / sqrt(alphas_cumprod); leading spacing starts below it. The other predictions can start at the end.
    spacing: Spacing = "leading" if diffusion.prediction_type == "epsilon" else "trailing"
    timesteps = inference_timesteps(steps, diffusion.num_train_timesteps, spacing)
    images = []
    for first in range(0, count, batch):
        numbers = range(first, min(first + batch, count))
        start = torch.stack(
            [
                torch.randn(
                    (len(plan.channels), *plan.size),
                    generator=torch.Generator().manual_seed(seed * 1_000_003 + i),
                )
                for i in numbers
            ]
        )
        output = reverse(
            process,
            network,
            start.to(device),
            timesteps,
            sampler=sampler,
            generator=torch.Generator().manual_seed(seed * 1_000_003 + first),
        )
        images.append(output.sample.clamp(-1, 1).float().cpu().numpy())
    return np.concatenate(images)
