"""Features of a frozen denoiser: activations at given timesteps, and their values at given voxels."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from ..core.diffusion import GaussianDiffusion
from .guided import GuidedUNet
from .unet import UNet


def noised_features(
    denoiser: UNet,
    process: GaussianDiffusion | None,
    images: Tensor,
    timestep: int,
    taps: Sequence[str],
    *,
    seed: int = 0,
    draws: int = 1,
    where: Tensor | None = None,
) -> dict[str, Tensor]:
    """Activations of one noised pass, without gradients: float32 ``(B, C', *S')`` by name, in the order of ``taps``.

    Every image of every batch gets the same noise. A guided network takes its coordinates from the clean images.

    Args:
        denoiser: The network.
        process: Its noising process; None: the images stay clean.
        images: ``(B, C, *S)`` in [-1, 1].
        timestep: Training timestep.
        taps: Names of features, see ``UNet``.
        seed: Seed of the noise.
        draws: Draws of noise to average the features over.
        where: Body coordinates of the images, where a guided network's are known already.
    """
    t = torch.full((images.shape[0],), timestep, dtype=torch.int64, device=images.device)
    total: dict[str, Tensor] = {}
    draws = 1 if process is None else draws
    guide: dict[str, Tensor] = {}
    with torch.no_grad(), _evaluating(denoiser):
        if isinstance(denoiser, GuidedUNet):
            guide = {"where": denoiser.coordinates(images) if where is None else where}
        for draw in range(draws):
            x_t = images
            if process is not None:
                noise = fixed_noise(tuple(images.shape[1:]), seed, draws)[draw].to(images.device)
                x_t = process.to(images.device).add_noise(images, noise.expand_as(images), t)
            features = denoiser.features(x_t, t, taps, **guide)
            for name in taps:
                total[name] = total.get(name, 0) + features[name].float() / draws
    return total


@functools.lru_cache(maxsize=4)
def fixed_noise(shape: tuple[int, ...], seed: int, draws: int) -> Tensor:
    """The noise of a seed, ``(draws, *shape)``; cached, so that it is a constant of an exported network."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(draws)])


@contextlib.contextmanager
def _evaluating(network: UNet) -> Iterator[None]:
    """Evaluation mode inside the block: dropout would change the features."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def at_voxels(feature: Tensor, voxels: Tensor, shape: Sequence[int]) -> Tensor:
    """Linearly interpolated features of voxels of the full grid, ``(B, P, C)``.

    The same values as up-sampling the whole map and indexing it, without its memory.

    Args:
        feature: ``(B, C, *S')``.
        voxels: ``(B or 1, P)`` int64 indices into the flattened grid.
        shape: The grid.
    """
    dims = len(shape)
    places, rest = [], voxels
    for n in reversed(shape):
        places.append(((rest % n).float() + 0.5) / n * 2 - 1)
        rest = rest // n
    grid = torch.stack(places, dim=-1).reshape(len(voxels), -1, *(1,) * (dims - 1), dims)
    if len(grid) != len(feature):
        grid = grid.expand(len(feature), *grid.shape[1:])
    values = functional.grid_sample(feature, grid, "bilinear", "border", align_corners=False)
    return values.flatten(2).transpose(1, 2)


def feature_channels(network: UNet, tap: str) -> int:
    """Channels of a named feature."""
    widths = [network.config.width * m for m in network.config.multipliers]
    if tap == "middle":
        return widths[-1]
    if tap == "fine":
        return int(network.head.weight.shape[1])
    if tap == "output":
        return network.config.out_channels
    kind, _, number = tap.partition(".")
    if kind == "level":
        return widths[int(number)]
    stage = cast(Any, network.up[int(number)])
    return int(stage.block.conv2.weight.shape[0])
