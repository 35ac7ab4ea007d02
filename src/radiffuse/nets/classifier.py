"""Classifiers of whole films: standard networks of MONAI."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

ClassifierName = Literal["resnet-small", "resnet18", "densenet121"]


class Classifier(nn.Module):
    """A standard network that classifies whole films.

    Args:
        name: resnet-small: a residual network of four levels with one block each, 16 to 128 channels, 0.3 M
            parameters, for small films on a CPU; resnet18 (He et al. 2016); densenet121 (Huang et al. 2017).
        channels: Channels of the films.
        classes: Names of the classes.

    Raises:
        ValueError: Another name, or fewer than two classes.
    """

    def __init__(self, name: str, channels: int, classes: tuple[str, ...]) -> None:
        super().__init__()
        from monai.networks.nets import DenseNet121, ResNet

        if name not in get_args(ClassifierName) or len(classes) < 2:
            raise ValueError(f"{name!r} with {len(classes)} classes is no classifier")
        self.name, self.channels, self.classes = name, channels, classes
        if name == "densenet121":
            self.network: nn.Module = DenseNet121(2, channels, len(classes))
        else:
            small = name == "resnet-small"
            self.network = ResNet(
                "basic",
                [1, 1, 1, 1] if small else [2, 2, 2, 2],
                [16, 32, 64, 128] if small else [64, 128, 256, 512],
                spatial_dims=2,
                n_input_channels=channels,
                conv1_t_size=3 if small else 7,
                conv1_t_stride=1 if small else 2,
                no_max_pool=small,
                num_classes=len(classes),
            )

    def forward(self, images: Tensor) -> Tensor:
        """Films ``(B, channels, rows, columns)`` in [-1, 1] to logits ``(B, K)``."""
        return cast(Tensor, self.network(images))

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, K)`` and the features ``(B, F)`` that the last layer sees; arguments as of ``forward``."""
        last = [part for part in self.network.modules() if isinstance(part, nn.Linear)][-1]
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            return self(images), seen[0]
        finally:
            hook.remove()

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        values = {"name": self.name, "channels": self.channels, "classes": list(self.classes)}
        return {"kind": "classifier", **values}


def new_classifier(name: str, channels: int, classes: tuple[str, ...], seed: int) -> Classifier:
    """A classifier with weights by the seed; torch's global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(name, channels, classes)
