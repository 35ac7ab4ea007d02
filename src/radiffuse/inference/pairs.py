"""Draw images together with their masks from a joint denoiser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Diffusion
from ..core.diffusion import GaussianDiffusion
from ..core.masks import logits_to_x_start
from ..core.sampling import image_spacing
from ..data.plan import Plan
from ..data.scan import Array
from ..nets.joint_denoiser import JointDenoiser
from .draw import image_batches
from .mask_sampler import of_x_start


class _Clean(nn.Module):
    """A joint denoiser as one of image and mask as channels, both at one timestep, whose answer is ``x_start``."""

    def __init__(self, network: JointDenoiser, diffusion: Diffusion) -> None:
        super().__init__()
        self.network, self.process = network, GaussianDiffusion(diffusion)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        image, mask = self.network.parts(x)
        output = self.network(image, mask, torch.stack([t, t], dim=1)).float()
        answer, logits = self.network.parts(output)
        x_start = self.process.predict(answer, image, t).x_start
        return torch.cat([x_start, logits_to_x_start(logits)], dim=1)


def pair_batches(
    network: JointDenoiser, diffusion: Diffusion, plan: Plan, **options: Any
) -> Iterator[tuple[range, Array, Array]]:
    """Numbers, images float32 ``(B, C, *size)`` in [-1, 1] and their masks ``(B, *size)``.

    ``options`` are those of ``image_batches``. Both parts take the same steps from noise, as an image alone does there.
    """
    device = next(network.parameters()).device
    batches = image_batches(
        _Clean(network, diffusion).to(device).eval(),
        of_x_start(diffusion),
        plan,
        spacing=image_spacing(diffusion.prediction_type),
        channels=network.channels + network.classes,
        **options,
    )
    for numbers, drawn in batches:
        yield numbers, drawn[:, : network.channels], drawn[:, network.channels :].argmax(1)
