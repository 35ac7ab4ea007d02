"""The frozen DINO encoder, from images to embeddings: a folder of transformers, whoever trained it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..system.files import read_json, whole_folder, write_json
from .hub import OWN, component_folder, first_line, hush

FILES = ("config.json", "model.safetensors")
PREPROCESSOR = "preprocessor_config.json"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(nn.Module):
    """A frozen DINO backbone behind its own preprocessing.

    Args:
        backbone: ``Dinov2Model``, or another that returns ``last_hidden_state`` with the global token first.
        size: Pixels along each axis to which images are resized.
        mean: Subtracted from images in [0, 1], by channel.
        std: They are then divided by it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Any, size: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.size = size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return int(self.backbone.config.hidden_size)

    @property
    def channels(self) -> int:
        """Channels of the images that the backbone takes."""
        return int(self.backbone.config.num_channels)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(B, width)`` of length 1 from images ``(B, C, rows, columns)`` in [-1, 1].

        Raises:
            InputError: The backbone takes another number of channels, and the images are not gray.
        """
        if images.shape[1] != self.channels and images.shape[1] != 1:
            problem = f"takes {self.channels} channels, the images have {images.shape[1]}"
            remedy = "Train one on the images: leave --encoder out"
            raise InputError("the encoder", problem, remedy)
        shape = (self.size, self.size)
        if tuple(images.shape[2:]) != shape:
            images = F.interpolate(
                images, shape, mode="bilinear", align_corners=False, antialias=True
            )
        pixels = images.expand(-1, self.channels, -1, -1)
        pixels = ((pixels + 1) / 2 - self.mean) / self.std
        tokens: Tensor = self.backbone(pixel_values=pixels).last_hidden_state
        return F.normalize(tokens[:, 0].float(), dim=1)


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write a transformers folder, whole or not at all."""
    with whole_folder(folder) as partial:
        encoder.backbone.save_pretrained(partial)
        write_json(
            partial / PREPROCESSOR,
            {
                "image_processor_type": "BitImageProcessor",
                "do_resize": True,
                "size": {"height": encoder.size, "width": encoder.size},
                "do_center_crop": False,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": encoder.mean.flatten().tolist(),
                "image_std": encoder.std.flatten().tolist(),
            },
        )


def load_encoder(name: str) -> Encoder:
    """A DINO encoder by folder or public name, on the CPU.

    ``preprocessor_config.json`` names the size that images are resized to, and mean and standard deviation of the
    normalization; without that file, the size is the one in ``config.json`` and the rest is ImageNet's.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    folder = component_folder(name, FILES, "--encoder", OWN, [PREPROCESSOR])
    from transformers import AutoConfig, AutoModel

    hush()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if "dino" not in config.model_type and config.model_type != "vit":
            raise ValueError(f"a {config.model_type}, not a DINO")
        backbone = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # transformers raises many types, all about the folder
        problem = f"holds no encoder that can be read ({first_line(error)})"
        raise InputError(folder, problem, "Give a DINO of transformers") from None
    path = folder / PREPROCESSOR
    values = read_json(path) if path.is_file() else {}
    channels = int(backbone.config.num_channels)
    mean = tuple(values.get("image_mean", IMAGENET_MEAN))
    std = tuple(values.get("image_std", IMAGENET_STD))
    if len(mean) != channels or len(std) != channels:
        raise InputError(path, f"does not fit {channels} channels", "Restore the file")
    return Encoder(backbone, _shown_size(values, backbone.config), mean, std)


def _shown_size(values: dict[str, Any], config: Any) -> int:
    given = values.get("crop_size") if values.get("do_center_crop") else None
    given = given or values.get("size") or config.image_size
    if isinstance(given, dict):
        given = given.get("height") or given.get("shortest_edge") or config.image_size
    patch = int(config.patch_size)
    return max(patch, int(given) // patch * patch)
