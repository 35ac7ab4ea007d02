"""The U-Net as an architecture of nnU-Net 2: what its plans can name under ``network_class_name``.

nnU-Net builds the class with ``input_channels`` and ``num_classes``, switches ``decoder.deep_supervision``, takes
strides from ``strides``, and loads pre-trained weights by name, all but those under ``.seg_layers.``. Nothing of
nnU-Net is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from ..config.values import from_dict
from ..nets.blocks import convolution
from ..nets.unet import UNet, fine_channels


class Decoder(nn.Module):
    """The last layers: one 1x1 convolution per level to K = ``classes``. nnU-Net reaches for the name ``decoder``.

    With ``deep_supervision`` the network returns all levels.
    """

    def __init__(self, config: UNetConfig, classes: int, deep_supervision: bool) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        widths = [config.width * m for m in config.multipliers[:-1]]
        if math.prod(config.fold) > 1:
            widths[0] = fine_channels(config)
        self.seg_layers = nn.ModuleList(
            convolution(config.spatial_dims, width, classes, 1) for width in widths
        )


class NNUNetUNet(nn.Module):
    """A pre-trained U-Net that nnU-Net trains.

    Args:
        input_channels: Channels of the image, as many as the U-Net was trained on.
        num_classes: K.
        unet: Values of ``UNetConfig``.
        strides: Down-sampling of each output along each axis, as against the one before; nnU-Net reads its scales
            here.
        timestep: At which the U-Net is evaluated.
        rescale: Whether images come in [0, 1] and are brought to [-1, 1] here.
        deep_supervision: Return the logits of all levels but the lowest, the finest first; else of the finest alone.

    Raises:
        ValueError: Channels or strides are not those of the U-Net.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        unet: Mapping[str, Any],
        strides: Sequence[Sequence[int]],
        timestep: int = 0,
        rescale: bool = False,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        config: UNetConfig = from_dict(UNetConfig, unet, strict=True)
        if config.in_channels != input_channels:
            raise ValueError(
                f"the U-Net was trained on {config.in_channels} channels, the data has {input_channels}"
            )
        expected = strides_of(config)
        if [list(level) for level in strides] != expected:
            raise ValueError(f"strides are {strides}: this U-Net has {expected}")
        self.unet = UNet(config)
        self.unet.head = nn.Identity()  # type: ignore[assignment]
        self.timestep, self.rescale = timestep, rescale
        self.decoder = Decoder(config, num_classes, deep_supervision)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)``; with deep supervision those of every level, finest first."""
        x = images * 2 - 1 if self.rescale else images
        t = torch.full((x.shape[0],), self.timestep, dtype=torch.int64, device=x.device)
        taps = [f"level.{k}" for k in range(len(self.decoder.seg_layers))]
        if self.unet.folds:
            taps[0] = "fine"
        found = self.unet.features(x, t, taps if self.decoder.deep_supervision else taps[:1])
        logits = []
        for tap, layer in zip(taps, self.decoder.seg_layers[: len(found)], strict=False):
            feature = found[tap]
            logits.append(layer(self.unet.norm(feature) if tap == "level.0" else feature))
        return logits if self.decoder.deep_supervision else logits[0]


def strides_of(config: UNetConfig) -> list[list[int]]:
    """Down-sampling of each output along each axis, as against the one before; the first is at full resolution."""
    whole = (1,) * config.spatial_dims
    outputs = [whole, *config.factors[1:]]
    pairs = zip(outputs, [whole, *outputs], strict=False)
    return [[b // a for b, a in zip(later, before, strict=True)] for later, before in pairs]


def reversed_axes(
    state: Mapping[str, Tensor], config: UNetConfig
) -> tuple[dict[str, Tensor], UNetConfig]:
    """The weights and the configuration of a network whose images have their spatial axes in reverse order.

    nnU-Net reads volumes as (z, y, x); the U-Net was trained on (x, y, z). Convolutions know axes, and so do the
    channels that pixels are folded into.
    """
    fold, result = config.fold, {}
    for name, tensor in state.items():
        channel = {"unet.stem.": 1, "unet.refine.unfold.": 0}.get(name.rpartition(".")[0] + ".")
        if channel is not None and not (channel and name.endswith("bias")):
            split = tensor.unflatten(channel, (-1, *fold))
            axes = range(channel + len(fold), channel, -1)
            rest = range(channel + len(fold) + 1, split.ndim)
            tensor = split.permute(*range(channel + 1), *axes, *rest).reshape(tensor.shape)
        if tensor.ndim == 5:
            tensor = tensor.permute(0, 1, 4, 3, 2)
        result[name] = tensor.contiguous()
    strides = tuple(step[::-1] for step in config.strides)
    return result, replace(config, strides=strides, unshuffle=fold[::-1])
