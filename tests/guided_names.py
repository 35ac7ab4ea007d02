"""Our weights under the names of guided-diffusion."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from radiffuse.config import UNetConfig
from radiffuse.release.convert_names import GUIDED, layers


def to_guided_diffusion(state: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """Our weights under guided-diffusion's names.

    Args:
        state: ``UNet.state_dict()``.
        config: The network.

    Raises:
        KeyError: The weights are not those of this network.
    """
    result = {}
    for ours, (theirs,) in layers(config, GUIDED):
        weight = state[f"{ours}.weight"]
        projection = ours.endswith((".qkv", "attention.out"))
        result[f"{theirs}.weight"] = weight[..., None] if projection else weight
        result[f"{theirs}.bias"] = state[f"{ours}.bias"]
    return result
