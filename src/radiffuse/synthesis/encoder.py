"""DINO encoders: from a transformers folder, or a small one with the two branches that its training needs.

DINO: Caron et al. 2021, arXiv 2104.14294. The backbone is ``Dinov2Model`` of transformers at any size, so an encoder
trained here is saved as a folder that transformers loads.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DinoSettings
from ..errors import InputError
from ..system.distributed import gather, world_size
from ..system.files import read_json, whole_folder, write_json
from .hub import component_folder, hush

FILES = ("config.json", "model.safetensors")
PREPROCESSOR = "preprocessor_config.json"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HEAD_WIDTH = 64
"""Channels of an attention head."""
HIDDEN, BOTTLENECK = 512, 128
"""Widths of the head; [related] 2048 and 256."""


class Encoder(nn.Module):
    """A frozen DINO backbone behind its own preprocessing.

    Args:
        backbone: ``Dinov2Model``, or another that returns ``last_hidden_state`` with the global token first.
        size: Pixels along each axis that it is shown.
        mean: Of its normalization, for images in [0, 1].
        std: Of its normalization.
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
        """Width of an embedding."""
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
            raise InputError(
                "the encoder",
                f"takes {self.channels} channels, the images have {images.shape[1]}",
                "Train one on the images: leave --encoder out",
            )
        shape = (self.size, self.size)
        if tuple(images.shape[2:]) != shape:
            images = F.interpolate(
                images, shape, mode="bilinear", align_corners=False, antialias=True
            )
        pixels = images.expand(-1, self.channels, -1, -1)
        pixels = ((pixels + 1) / 2 - self.mean) / self.std
        tokens: Tensor = self.backbone(pixel_values=pixels).last_hidden_state
        return F.normalize(tokens[:, 0].float(), dim=1)


class DinoNetwork(nn.Module):
    """Student and averaged teacher, each a backbone with a head.

    The teacher's weights, and the center that is subtracted from its outputs, move at the beginning of the step after
    the one they have seen: both are then part of every checkpoint, and neither micro-batches nor processes change them.

    Args:
        settings: Sizes, temperatures and momenta.
        size: Pixels of a large crop along each axis.
        channels: Channels of the images.
    """

    center: Tensor
    square: Tensor
    pending: Tensor
    seen: Tensor
    step: Tensor

    def __init__(self, settings: DinoSettings, size: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.student = _Branch(settings, size, channels)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("center", torch.zeros(settings.prototypes))
        self.register_buffer("square", torch.full((settings.prototypes,), 1 / BOTTLENECK))
        self.register_buffer("pending", torch.zeros(2, settings.prototypes))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, large: Tensor, small: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of both branches, and the student's tokens.

        Args:
            large: ``(B, 2, C, S, S)``.
            small: ``(B, L, C, S / 2, S / 2)``; L may be 0.
            total: Images of the step over all passes and ranks.

        Returns:
            Student ``(B, 2 + L, K)``, the large crops first; teacher ``(B, 2, K)``, centered; and the student's global
            tokens of the large crops, ``(B, 2, W)``.
        """
        if int(self.seen) >= total:
            self._follow()
        student, tokens = self.student(large)
        if small.shape[1]:
            student = torch.cat([student, self.student(small)[0]], dim=1)
        with torch.no_grad():
            teacher = self.teacher(large)[0]
            self.pending += torch.stack([teacher.mean(1).sum(0), teacher.square().mean(1).sum(0)])
            self.seen += len(large)
            if (world := world_size()) > 1 and int(self.seen) * world >= total:
                self.pending.copy_(gather(self.pending[None]).sum(0))
                self.seen.mul_(world)
            # The spread of a cosine to a random direction is what the temperature is in units of. Dividing by the
            # spread that is seen keeps the answers of an untrained teacher, which hardly differ, from being no target.
            spread = (self.square - self.center.square()).clamp(min=1e-12).sqrt()
            teacher = (teacher - self.center) / spread / BOTTLENECK**0.5
        return student, teacher, tokens

    def forget_step(self) -> None:
        """Forget what the step under way has seen, so that it can be done once more; ``_follow`` is not undone."""
        self.pending.zero_()
        self.seen.zero_()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move teacher and center to what the last step has seen (Caron et al. 2021, algorithm 1)."""
        progress = min(1.0, int(self.step) / max(1, self.settings.training.steps))
        momentum = 1 - (1 - self.settings.momentum) * (1 + math.cos(math.pi * progress)) / 2
        torch._foreach_lerp_(
            list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum
        )
        mean, square = self.pending / int(self.seen)
        self.center.lerp_(mean, 1 - self.settings.center_momentum)
        self.square.lerp_(square, 1 - self.settings.center_momentum)
        self.pending.zero_()
        self.seen.zero_()
        self.step += 1


class _Branch(nn.Module):
    def __init__(self, settings: DinoSettings, size: int, channels: int) -> None:
        from transformers import Dinov2Config, Dinov2Model

        super().__init__()
        hush()
        if settings.width % HEAD_WIDTH:
            raise InputError(
                f"--dino.width {settings.width}", f"is no multiple of {HEAD_WIDTH}", "Use one"
            )
        if (size // 2) % settings.patch:
            raise InputError(
                f"--dino.patch {settings.patch}",
                f"does not divide half the size, {size // 2}",
                "Choose a patch that does, such as 4 or 8",
            )
        self.backbone = Dinov2Model(
            Dinov2Config(
                hidden_size=settings.width,
                num_hidden_layers=settings.depth,
                num_attention_heads=settings.width // HEAD_WIDTH,
                image_size=size,
                patch_size=settings.patch,
                num_channels=channels,
                # The usual 0.02 fits a width of 768 and more; a narrow network would start with tokens that hardly
                # depend on the image, and attention that does not tell places apart. [ours]
                initializer_range=settings.width**-0.5,
            )
        )
        # Of masked image modelling, which DINO does not do; unused weights would stop a distributed run.
        self.backbone.embeddings.mask_token.requires_grad_(False)
        self.head = nn.Sequential(
            nn.Linear(settings.width, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, BOTTLENECK),
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(settings.prototypes, BOTTLENECK))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, V, C, S, S)`` to logits ``(B, V, K)`` and global tokens ``(B, V, W)``."""
        flat = crops.flatten(0, 1)
        token = self.backbone(pixel_values=flat).last_hidden_state[:, 0]
        direction = F.normalize(self.head(token), dim=1, eps=1e-6)
        logits = direction @ F.normalize(self.prototypes, dim=1).T
        views = crops.shape[:2]
        return logits.float().unflatten(0, views), token.float().unflatten(0, views)


def trained_encoder(network: DinoNetwork) -> Encoder:
    """The teacher's backbone, whose images in [-1, 1] need no other normalization."""
    config = network.teacher.backbone.config
    half = (0.5,) * int(config.num_channels)
    return Encoder(network.teacher.backbone, int(config.image_size), half, half)


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

    Images are shown at the size, and with the mean and spread, that its preprocessor_config.json names; without one,
    at its config's size and with ImageNet's.

    Raises:
        InputError: There is none, or it is not one that can be read.
    """
    folder = component_folder(
        name,
        FILES,
        setting="--encoder",
        default="radiffuse then trains its own on the images",
        extra=[PREPROCESSOR],
    )
    from transformers import AutoConfig, AutoModel

    hush()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if "dino" not in config.model_type and config.model_type != "vit":
            raise ValueError(f"a {config.model_type}, not a DINO")
        backbone = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # transformers raises many types, all about the folder
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            folder, f"holds no encoder that can be read ({reason})", "Give a DINO of transformers"
        ) from None
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
