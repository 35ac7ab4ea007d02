"""Look at the attention of a U-Net of diffusers while it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from .networks import ConditionalDenoiser


@contextmanager
def recorded(
    denoiser: ConditionalDenoiser, kind: Literal["self", "cross"] = "self"
) -> Iterator[list[Tensor]]:
    """Attention of every layer during the next passes, heads averaged, ``(B, queries, keys)`` each.

    Args:
        denoiser: Its attention layers are as before afterwards.
        kind: ``self``: between places; ``cross``: from places to the context.
    """
    name = {"self": "attn1.processor", "cross": "attn2.processor"}[kind]
    before = dict(denoiser.unet.attn_processors)
    maps: list[Tensor] = []
    watched = {k: _Recorder(v, maps) if k.endswith(name) else v for k, v in before.items()}
    denoiser.unet.set_attn_processor(watched)
    try:
        yield maps
    finally:
        denoiser.unet.set_attn_processor(before)


class _Recorder:
    """A processor that keeps the attention and leaves the computing to another one."""

    def __init__(self, processor: Any, maps: list[Tensor]) -> None:
        self.processor = processor
        self.maps = maps

    @torch.no_grad()
    def _look(self, layer: Any, states: Tensor, context: Tensor | None) -> None:
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
        self._look(attn, hidden_states, encoder_hidden_states)
        answer: Tensor = self.processor(
            attn, hidden_states, encoder_hidden_states, attention_mask, *rest, **options
        )
        return answer
