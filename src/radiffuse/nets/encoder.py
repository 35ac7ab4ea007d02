"""A frozen DINO encoder, from images to embeddings and features: a folder of transformers, whoever trained it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, first_line
from ..system.files import read_json, whole_folder, write_json
from .hub import OWN, component_folder, hush, verified
from .imagenet import DEVIATION, MEAN

FILES = ("config.json", "model.safetensors")
MODEL_TYPES = ("dinov2", "dinov2_with_registers", "dinov3_vit", "vit")
"""Architectures of transformers that an encoder may have (DINO v1 is a ``vit``)."""
FOREIGN = ("auto_map", "attn_implementation", "_attn_implementation", "experts_implementation")
"""Entries of a configuration that name code outside of transformers; they are not read."""
PLACES = ("", "model", "model/encoder", "encoder/model")
"""Where an encoder lies in a folder: itself, or in a run of ``synthesize`` or of its first stage."""
UNUSED = ("pooler.", "mask_token")
"""Weights that no embedding depends on, and that some files lack."""
PREPROCESSOR = "preprocessor_config.json"


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

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(B, width)`` of length 1 from images ``(B, C, rows, columns)`` in [-1, 1].

        Raises:
            InputError: The backbone takes another number of channels, and the images are not gray.
        """
        with torch.no_grad():
            embeddings: Tensor = F.normalize(self._tokens(images)[:, 0].float(), dim=1)
        return embeddings

    def patches(self, images: Tensor, *, frozen: bool = True) -> Tensor:
        """The tokens of the patches on their grid, ``(B, width, h, w)``.

        Arguments and errors as of ``forward``; the images get gradients unless ``frozen``.
        """
        side = self.size // self.patch
        with torch.set_grad_enabled(not frozen and torch.is_grad_enabled()):
            return _on_grid(self._tokens(images).float(), (side, side))

    @torch.no_grad()
    def blocks(self, images: Tensor, numbers: Sequence[int]) -> list[Tensor]:
        """The tokens of the patches after several blocks, each through the last normalization, ``(B, width, h, w)``.

        Of images of any whole number of patches, which are not resized. Arguments and errors as of ``forward``; block 0
        is the first.
        """
        options: dict[str, Any] = {"output_hidden_states": True}
        if self.backbone.config.model_type == "vit":  # the others do so by themselves
            options["interpolate_pos_encoding"] = True
        found = self.backbone(pixel_values=self._pixels(images), **options).hidden_states
        shape = tuple(n // self.patch for n in images.shape[2:])
        normalization = getattr(self.backbone, "layernorm", None) or self.backbone.norm
        return [_on_grid(normalization(found[number + 1]), shape) for number in numbers]

    @property
    def patch(self) -> int:
        """Pixels of a patch along each axis."""
        return int(self.backbone.config.patch_size)

    def _tokens(self, images: Tensor) -> Tensor:
        shape = (self.size, self.size)
        if tuple(images.shape[2:]) != shape:
            images = F.interpolate(
                images, shape, mode="bilinear", align_corners=False, antialias=True
            )
        tokens: Tensor = self.backbone(pixel_values=self._pixels(images)).last_hidden_state
        return tokens

    def _pixels(self, images: Tensor) -> Tensor:
        """What the backbone sees of images in [-1, 1]."""
        if images.shape[1] != self.channels and images.shape[1] != 1:
            problem = f"takes {self.channels} channels, the images have {images.shape[1]}"
            raise InputError(
                "the encoder", problem, "Train one on the images: radiffuse synthesize"
            )
        pixels = images.expand(-1, self.channels, -1, -1)
        return ((pixels + 1) / 2 - self.mean) / self.std


def _on_grid(tokens: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tokens of the patches ``(B, W, h, w)``; the global token and any registers come before them."""
    patches: Tensor = tokens[:, -shape[0] * shape[1] :].transpose(1, 2).unflatten(2, shape)
    return patches


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


def encoder_folder(name: str, otherwise: str = "") -> Path:
    """The folder of a DINO encoder, fetched first if a public name was given; arguments as of ``load_encoder``.

    Raises:
        InputError: There is none.
    """
    places = (Path(name).expanduser() / place for place in PLACES)
    own = (place for place in places if all((place / file).is_file() for file in FILES))
    remedy = otherwise or f"leave --encoder out: {OWN}"
    return component_folder(str(next(own, name)), FILES, "--encoder", remedy, [PREPROCESSOR])


def load_encoder(name: str, otherwise: str = "") -> Encoder:
    """A DINO encoder by folder or public name, on the CPU; or that of a run of ``synthesize``.

    ``preprocessor_config.json`` names the size that images are resized to, and mean and standard deviation of the
    normalization; without that file, the size is the one in ``config.json`` and the rest is ImageNet's.

    Args:
        name: Folder or name.
        otherwise: What else can be done, for messages; ``''``: to leave it out.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    folder = encoder_folder(name, otherwise)
    backbone = verified(_load_backbone(folder).float(), folder)
    path = folder / PREPROCESSOR
    values = read_json(path) if path.is_file() else {}
    channels = int(backbone.config.num_channels)
    mean = tuple(values.get("image_mean", MEAN))
    std = tuple(values.get("image_std", DEVIATION))
    if len(mean) != channels or len(std) != channels:
        raise InputError(path, f"does not fit {channels} channels", "Restore the file")
    return Encoder(backbone, _shown_size(values, backbone.config), mean, std)


def _load_backbone(folder: Path) -> Any:
    """The network of a folder. transformers gets values alone, never the folder: no code in it can be found or run.

    Raises:
        InputError: It is of another type, or the two files do not make a network.
    """
    from safetensors.torch import load_file
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    hush()
    values = read_json(folder / FILES[0])
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind not in MODEL_TYPES:
        problem = f"has the model_type {kind!r}, not {', '.join(MODEL_TYPES)}"
        raise InputError(folder / FILES[0], problem, "Give a DINO of transformers")
    try:
        config = _config(values)
        with torch.random.fork_rng(devices=[]):  # what a file lacks is drawn, and may be UNUSED
            torch.manual_seed(0)
            backbone, found = MODEL_MAPPING[type(config)].from_pretrained(
                None,
                config=config,
                state_dict=load_file(folder / FILES[1]),
                output_loading_info=True,
                trust_remote_code=False,
            )
        if missing := [k for k in found["missing_keys"] if not any(u in k for u in UNUSED)]:
            raise ValueError(f"{FILES[1]} lacks {min(missing)}")
    except Exception as error:  # transformers raises many types, all about the folder
        problem = f"holds no encoder that can be read ({first_line(error)})"
        raise InputError(folder, problem, "Give a DINO of transformers") from None
    return backbone


def described(encoder: Encoder) -> dict[str, Any]:
    """What ``built`` makes the encoder of again, its weights apart: JSON, without the path that it came from."""
    values, left = encoder.backbone.config.to_dict(), {*FOREIGN, "_name_or_path", "dtype"}
    return {
        "backbone": {key: value for key, value in values.items() if key not in left},
        "size": encoder.size,
        "mean": encoder.mean.flatten().tolist(),
        "std": encoder.std.flatten().tolist(),
    }


def built(values: Mapping[str, Any]) -> Encoder:
    """An encoder as ``described``, its weights yet to be loaded.

    Raises:
        ValueError, TypeError, KeyError: It is of another type, or not valid.
    """
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    hush()
    if values["backbone"].get("model_type") not in MODEL_TYPES:
        raise ValueError(f"its encoder is none of {', '.join(MODEL_TYPES)}")
    config = _config(values["backbone"])
    backbone = MODEL_MAPPING[type(config)](config)
    mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
    return Encoder(backbone, int(values["size"]), mean, std)


def _config(values: Mapping[str, Any]) -> Any:
    """The configuration of a known type, without what names code outside of transformers."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    known = {key: value for key, value in values.items() if key not in FOREIGN}
    return CONFIG_MAPPING[values["model_type"]].from_dict(known)


def _shown_size(values: dict[str, Any], config: Any) -> int:
    given = values.get("crop_size") if values.get("do_center_crop") else None
    given = given or values.get("size") or config.image_size
    if isinstance(given, dict):
        given = given.get("height") or given.get("shortest_edge") or config.image_size
    patch = int(config.patch_size)
    return max(patch, int(given) // patch * patch)
