"""Segments from self-attention: DiffSeg (Tian et al., CVPR 2024, arXiv 2308.12469).

A self-attention map says how each place attends to all places. Maps of several resolutions, averaged over passes,
become one; places with similar maps become a segment. No label and no text is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..core.diffusion import GaussianDiffusion
from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..data.transform import image_to_plan, map_to_scan
from .denoiser import ConditionalDenoiser
from .synthesizer import Synthesizer

TIMESTEPS = (50, 150, 300)
"""Of the passes, for T = 1000; scaled to T. [related] one pass at 300; [ours] several, for less noise."""
PASSES = 4
"""Passes at each timestep, each with its own noise. [ours]"""
ANCHORS = 16
"""Anchors along each axis, at most one per place [related]."""
MEDIAN_FRACTION = 0.5
"""Two maps are one segment if their symmetric KL divergence is below this fraction of the median between all maps.
[ours], chosen on films without labels; [related] an absolute 0.9, which suits the sharp maps of Stable Diffusion. The
maps of a small network are nearly uniform: all divergences are a thousandth of that, and all would be one segment."""
ROUNDING = 1e-5
"""Divergences below this are rounding errors between equal maps."""
SELF_ATTENTION = "attn1.processor"
"""Ends the names of the attention processors of places to places; the others attend to the embedding."""
ROUNDS = 3
"""Rounds of merging, the first with the anchors [related]."""


@torch.no_grad()
def segment_film(synthesizer: Synthesizer, plan: Plan, scan: Scan, *, seed: int = 0) -> Array:
    """Segments of a film on its own grid, ``(rows, columns)`` of 0, 1, 2, ..., conditioned on its own embedding."""
    image, undo = image_to_plan(scan, plan)
    device = next(synthesizer.autoencoder.parameters()).device
    images = torch.from_numpy(image)[None].to(device)
    channels = synthesizer.autoencoder.latent_channels
    latents = synthesizer.autoencoder.encode(images)[:, :channels]
    process = GaussianDiffusion(synthesizer.diffusion).to(device)
    context = synthesizer.encoder(images)
    generator = torch.Generator().manual_seed(seed)
    steps = [t * process.num_train_timesteps // 1000 for t in TIMESTEPS for _ in range(PASSES)]
    with recorded(synthesizer.denoiser.eval()) as maps:
        for step in steps:
            noise = torch.randn(latents.shape, generator=generator).to(device)
            t = torch.full((1,), step, device=device)
            synthesizer.denoiser(process.add_noise(latents, noise, t), t, context)
    size = (int(latents.shape[2]), int(latents.shape[3]))
    soft = segments(aggregate([m[0] for m in maps], size))
    fine = functional.interpolate(soft[None], plan.size, mode="bilinear", align_corners=False)[0]
    labels: Array = np.stack([map_to_scan(x, undo) for x in fine]).argmax(0)
    return labels


@contextmanager
def recorded(denoiser: ConditionalDenoiser) -> Iterator[list[Tensor]]:
    """Self-attention of every layer during the next passes, heads averaged, ``(B, queries, keys)`` each.

    Attention to the embedding, a single token, is 1 everywhere and separates nothing.
    """
    before = dict(denoiser.unet.attn_processors)
    maps: list[Tensor] = []
    watched = {
        k: _Recorder(v, maps) if k.endswith(SELF_ATTENTION) else v for k, v in before.items()
    }
    denoiser.unet.set_attn_processor(watched)
    try:
        yield maps
    finally:
        denoiser.unet.set_attn_processor(before)


class _Recorder:
    """An attention processor that records the attention and leaves the computation to another one."""

    def __init__(self, processor: Any, maps: list[Tensor]) -> None:
        self.processor = processor
        self.maps = maps

    @torch.no_grad()
    def _record(self, layer: Any, states: Tensor, context: Tensor | None) -> None:
        query = layer.to_q(states)
        key = layer.to_k(states if context is None else context)
        parts = (x.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for x in (query, key))
        query, key = parts
        scores = (query @ key.transpose(-1, -2) * layer.scale).float()
        self.maps.append(scores.softmax(-1).mean(1))

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *rest: Any,
        **options: Any,
    ) -> Tensor:
        """As diffusers calls a processor."""
        self._record(attn, hidden_states, encoder_hidden_states)
        output: Tensor = self.processor(
            attn, hidden_states, encoder_hidden_states, attention_mask, *rest, **options
        )
        return output


def aggregate(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """One map for each place of the finest grid, weighted by resolution (DiffSeg, section 3.2).

    Args:
        maps: Each ``(Q, Q)``, heads averaged, rows sum to 1, on a grid of ``size`` or of a half, a quarter, ... of it.
        size: Rows and columns of the finest grid.

    Returns:
        ``(rows * columns, rows, columns)``, each map sums to 1.
    """
    total = torch.zeros((size[0] * size[1], *size))
    weights = [float(len(m)) ** 0.5 for m in maps]
    for weight, attention in zip(weights, maps, strict=True):
        grid = _grid(len(attention), size)
        keys = attention.float().cpu().reshape(-1, 1, *grid)
        keys = functional.interpolate(keys, size, mode="bilinear", align_corners=False)
        keys = keys / keys.sum((2, 3), keepdim=True)
        # A place of the finest grid takes the queries of the coarse place that contains it.
        queries = keys.reshape(*grid, *size)
        for axis in (0, 1):
            queries = queries.repeat_interleave(size[axis] // grid[axis], dim=axis)
        total += weight / sum(weights) * queries.reshape(-1, *size)
    return total / total.sum((1, 2), keepdim=True)


def segments(attention: Tensor) -> Tensor:
    """Soft segments from the map of each place (DiffSeg, section 3.3).

    Evenly spaced anchors are merged with all similar maps; then the proposals are merged with each other, for several
    rounds. Maps are similar by their symmetric KL divergence, see ``MEDIAN_FRACTION``.

    Args:
        attention: From ``aggregate``.

    Returns:
        ``(S, rows, columns)``: a map for each segment; a place belongs to the one that is largest there.
    """
    rows, columns = attention.shape[1:]
    flat = attention.reshape(rows * columns, -1)
    between = symmetric_kl(flat, flat)[~torch.eye(len(flat), dtype=torch.bool)]
    threshold = max(ROUNDING, MEDIAN_FRACTION * float(between.median())) if len(between) else 0.0
    y = torch.linspace(0, rows - 1, min(ANCHORS, rows)).round().long()
    x = torch.linspace(0, columns - 1, min(ANCHORS, columns)).round().long()
    seeds = flat[(y[:, None] * columns + x[None]).flatten()]
    alike = symmetric_kl(seeds, flat) < threshold
    proposals = torch.stack([flat[near].mean(0) for near in alike])
    for _ in range(ROUNDS - 1):
        merged = []
        left = torch.ones(len(proposals), dtype=torch.bool)
        distance = symmetric_kl(proposals, proposals)
        while left.any():
            first = int(left.nonzero()[0])
            near = left & (distance[first] < threshold)
            near[first] = True
            merged.append(proposals[near].mean(0))
            left &= ~near
        proposals = torch.stack(merged)
    return proposals.reshape(-1, rows, columns)


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """Mean of the KL divergences both ways between all pairs of distributions ``(N, Q)``, ``(M, Q)``: ``(N, M)``."""
    p, q = first.clamp(min=1e-12), second.clamp(min=1e-12)
    cross = p @ q.log().T + p.log() @ q.T
    own = (p * p.log()).sum(1)[:, None] + (q * q.log()).sum(1)[None]
    distance: Tensor = 0.5 * (own - cross)
    return distance


def _grid(places: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map of so many places, a division of ``size`` by a power of two."""
    rows, columns = size
    while rows * columns > places and rows % 2 == 0 and columns % 2 == 0:
        rows, columns = rows // 2, columns // 2
    if rows * columns != places:
        raise ValueError(f"{places} places are no division of {size[0]} x {size[1]}")
    return rows, columns
