"""Sample images from a denoiser of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Diffusion
from ..core.diffusion import GaussianDiffusion
from ..core.sampling import (
    Denoiser,
    Sampler,
    Spacing,
    image_sampler,
    image_spacing,
    inference_timesteps,
)
from ..core.sampling import sample as reverse
from ..data.arrays import write_arrays
from ..data.plan import Plan
from ..data.scan import Array, gray_values
from ..errors import InputError
from ..nets.guided import GuidedUNet
from .finite import verify_finite

SAMPLES = 16
"""Images that are sampled for the report."""
SAMPLE_STEPS = 50
TOGETHER = 16
"""Images whose noise on the way is drawn together; what is drawn depends on it."""


def draw_images(network: nn.Module, diffusion: Diffusion, plan: Plan, **options: Any) -> Array:
    """All images of ``image_batches``, whose ``options`` these are: float32 ``(count, C, *size)`` in [-1, 1]."""
    batches = image_batches(network, diffusion, plan, **options)
    return np.concatenate([images for _, images in batches])


def image_batches(
    network: nn.Module,
    diffusion: Diffusion,
    plan: Plan,
    *,
    count: int,
    steps: int = 50,
    sampler: Sampler | None = None,
    seed: int = 0,
    at_once: int | None = None,
    references: Tensor | None = None,
    spacing: Spacing | None = None,
    channels: int | None = None,
    wanted: Callable[[range], bool] = lambda numbers: True,
) -> Iterator[tuple[range, Array]]:
    """Images of the denoiser: numbers, and float32 ``(B, C, *size)`` in [-1, 1], which depend on seed and count alone.

    So batches that are not ``wanted``, such as those that an earlier command wrote, can be left out.

    ``sampler`` None is that of ``core.sampling.image_sampler``, ``spacing`` None that of ``image_spacing``, and
    ``channels`` None those of the plan. ``at_once`` films go through the network together, None: ``TOGETHER``; volumes
    go one by one. A guided denoiser samples them at the coordinates of ``references``, clean images ``(count or more,
    C, *size)``.

    Raises:
        InputError: A guided denoiser, and no references; or a value is not finite.
    """
    guided = isinstance(network, GuidedUNet)
    if guided and references is None:
        problem = "is guided by body coordinates, which noise does not have"
        remedy = "Draw images with a run that was pre-trained without --coordinates"
        raise InputError("the denoiser", problem, remedy)
    device = next(network.parameters()).device
    process = GaussianDiffusion(diffusion).to(device)
    spacing = spacing or image_spacing(diffusion.prediction_type)
    timesteps = inference_timesteps(steps, diffusion.num_train_timesteps, spacing)
    at_once = (at_once or TOGETHER) if plan.spatial_dims == 2 else 1
    shape = (channels or len(plan.channels), *plan.size)
    for first in range(0, count, TOGETHER):
        numbers = range(first, min(first + TOGETHER, count))
        if not wanted(numbers):
            continue
        start = torch.stack([torch.randn(shape, generator=_generator(seed, i)) for i in numbers])
        clean = None
        if guided and references is not None:
            clean = references[first : numbers.stop].to(device)
        drawn = reverse(
            process,
            _denoiser(network, clean, at_once),
            start.to(device),
            timesteps,
            sampler=sampler or image_sampler(diffusion.schedule),
            generator=_generator(seed, first),
        )
        which = f"images {first} to {numbers[-1]}"
        sample = verify_finite(drawn, which, "the denoiser")
        yield numbers, sample.clamp(-1, 1).float().cpu().numpy()


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + number)


def _denoiser(network: nn.Module, clean: Tensor | None, at_once: int) -> Denoiser:
    """The network on so many images at once; a guided one with the coordinates of the ``clean`` images."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        inputs = (x_t, t) if clean is None else (x_t, t, clean)
        parts = zip(*(values.split(at_once) for values in inputs), strict=True)
        return torch.cat([network(*part) for part in parts])

    return denoise


def write_samples(
    network: nn.Module,
    diffusion: Diffusion,
    plan: Plan,
    path: Path,
    references: Tensor | None,
    at_once: int | None = None,
) -> None:
    """Write sample images for the report: uint8 ``(N, rows, columns)``; of volumes the middle slice.

    ``at_once`` as of ``draw_images``.

    A guided network samples them at the coordinates of the references; without references there are no samples.
    """
    count = SAMPLES
    if isinstance(network, GuidedUNet):
        if references is None:
            return
        count = min(SAMPLES, len(references))
    steps = min(SAMPLE_STEPS, diffusion.num_train_timesteps)
    drawn = draw_images(
        network,
        diffusion,
        plan,
        count=count,
        steps=steps,
        at_once=at_once,
        references=references,
    )
    images = drawn[:, 0]
    if plan.spatial_dims == 3:
        images = images[..., images.shape[-1] // 2].transpose(0, 2, 1)[:, ::-1]
    write_arrays(path, gray_values(images))
