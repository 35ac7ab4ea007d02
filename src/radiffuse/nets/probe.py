"""Heads on a frozen network's feature pyramid (vox2vec, arXiv 2307.14725, section 3.3; Li et al. 2025 use the second).

The input is the image noised to one or several timesteps; the features of a level are joined over timesteps by channel;
a head turns them into logits. Beside its finest features a head can see body coordinates of the same image or window
[ours]: those that a guided network is given, or those of a regressor beside any other network. Several heads, each with
its own timesteps and levels, learn from one pass of the frozen network, and of the regressor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Diffusion
from ..config.types import Timestep
from ..core.diffusion import GaussianDiffusion
from .blocks import convolution, redraw_all
from .coordinates import CoordinateRegressor
from .frozen import feature_channels, noised_features
from .guided import GuidedUNet
from .unet import UNet

Features = Mapping[tuple[Timestep, str], Tensor]
"""Features by timestep and tap."""


@dataclass(frozen=True)
class HeadConfig:
    """One head.

    Attributes:
        name: Unique in its network.
        kind: ``linear`` or ``nonlinear``.
        timesteps: Training timesteps of its features, or ``clean``.
        taps: Names of its features: ``middle``, ``level.K``, ``fine``; the finest last.
        coordinates: Whether it sees body coordinates beside its finest features.
    """

    name: str
    kind: str
    timesteps: tuple[Timestep, ...]
    taps: tuple[str, ...]
    coordinates: bool = False


class LinearHead(nn.Module):
    """A 1x1 convolution per level to the classes, up-sampled and summed; ``channels`` has those of each feature."""

    def __init__(self, dims: int, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(standardized(dims, c, classes) for c in channels)

    def forward(self, features: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """``(B, C_i, *S_i)``, the coarsest first, to logits ``(B, K, *shape)``."""
        parts = [p(f) for p, f in zip(self.project, features, strict=True)]
        return torch.stack([resize(part, shape) for part in parts]).sum(0)


class NonlinearHead(nn.Module):
    """Residual 1x1 blocks of ``width`` channels: from the coarsest level on, each level is added and mixed."""

    def __init__(self, dims: int, channels: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(standardized(dims, c, width) for c in channels)
        self.mix = nn.ModuleList(ResidualVoxelBlock(dims, width) for _ in channels)
        self.out = convolution(dims, width, classes, 1)

    def forward(self, features: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """``(B, C_i, *S_i)``, the coarsest first, to logits ``(B, K, *shape)``."""
        h: Tensor | None = None
        for feature, project, mix in zip(features, self.project, self.mix, strict=True):
            here = project(feature)
            h = mix(here if h is None else here + resize(h, feature.shape[2:]))
        assert h is not None
        logits: Tensor = self.out(resize(h, shape))
        return logits


class ResidualVoxelBlock(nn.Module):
    """Two 1x1 convolutions beside the identity, with batch normalization, which does not mix voxels."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = batch_norm(dims, width), batch_norm(dims, width)
        self.conv1 = convolution(dims, width, width, 1)
        self.conv2 = convolution(dims, width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` to the same shape."""
        h = self.conv1(functional.silu(self.norm1(x)))
        change: Tensor = self.conv2(functional.silu(self.norm2(h)))
        return x + change


class ProbedNetwork(nn.Module):
    """A frozen denoiser under one or several heads.

    Args:
        denoiser: The pre-trained network, which is frozen.
        diffusion: Its noising process; None for one that knows no timesteps: clean images are then its input at
            timestep 0.
        classes: K.
        heads: The heads; the first is the main one.
        width: Channels of non-linear heads.
        seed: Seed of the noise and of the heads' initial weights.
        draws: Draws of noise that features are averaged over.
        regressor: Gives heads on an unguided network their coordinates; frozen, and saved with the heads.

    Raises:
        ValueError: A head has an unknown kind, feature or timestep, or coordinates that there are none of, or two have
            one name; the regressor is for other images, or the network has its own.
    """

    def __init__(
        self,
        denoiser: UNet,
        diffusion: Diffusion | None,
        classes: int,
        heads: Sequence[HeadConfig],
        *,
        width: int = 32,
        seed: int = 0,
        draws: int = 1,
        regressor: CoordinateRegressor | None = None,
    ) -> None:
        super().__init__()
        _verify(denoiser, diffusion, heads, regressor)
        self.denoiser = denoiser.requires_grad_(False)
        self.regressor = None if regressor is None else regressor.requires_grad_(False).eval()
        self.diffusion = diffusion
        self.process = None if diffusion is None else GaussianDiffusion(diffusion)
        self.classes, self.width, self.seed, self.draws = classes, width, seed, draws
        self.configs = tuple(heads)
        dims = denoiser.config.spatial_dims
        self.heads = nn.ModuleList()
        for head in self.configs:
            channels = [feature_channels(denoiser, tap) * len(head.timesteps) for tap in head.taps]
            channels[-1] += dims * head.coordinates
            if head.kind == "linear":
                self.heads.append(LinearHead(dims, channels, classes))
            else:
                self.heads.append(NonlinearHead(dims, channels, classes, width))
        redraw_all(self.heads, torch.Generator().manual_seed(seed))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the heads, the main one first."""
        return tuple(head.name for head in self.configs)

    def train(self, mode: bool = True) -> ProbedNetwork:
        """Set the mode of the heads; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.denoiser.eval()
        if self.regressor is not None:
            self.regressor.eval()
        return self

    def forward(self, images: Tensor, names: Sequence[str] | None = None) -> list[Tensor]:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)`` in [-1, 1], by the named heads or all, in their order."""
        pairs = zip(self.configs, self.heads, strict=True)
        wanted = [(config, head) for config, head in pairs if names is None or config.name in names]
        configs = [config for config, _ in wanted]
        where = self.coordinates(images, configs)
        features = self.features(images, configs, where)
        logits = []
        for config, head in wanted:
            levels = [[features[t, tap] for t in config.timesteps] for tap in config.taps]
            if config.coordinates:
                assert where is not None
                levels[-1].append(resize(where.float(), levels[-1][0].shape[2:]))
            logits.append(head([torch.cat(parts, dim=1) for parts in levels], images.shape[2:]))
        return logits

    def coordinates(self, images: Tensor, heads: Sequence[HeadConfig]) -> Tensor | None:
        """Body coordinates ``(B, dims, *S)`` of images; None where neither the network nor a head sees any."""
        if isinstance(self.denoiser, GuidedUNet):
            return self.denoiser.coordinates(images)
        if self.regressor is None or not any(head.coordinates for head in heads):
            return None
        with torch.no_grad():
            where: Tensor = self.regressor(images)
        return where

    def features(
        self, images: Tensor, heads: Sequence[HeadConfig], where: Tensor | None = None
    ) -> Features:
        """The features that the heads need, each computed once; ``where`` as ``coordinates`` gives it."""
        features: dict[tuple[Timestep, str], Tensor] = {}
        for t in dict.fromkeys(t for head in heads for t in head.timesteps):
            taps = dict.fromkeys(tap for head in heads if t in head.timesteps for tap in head.taps)
            process, at = (None, 0) if t == "clean" else (self.process, t)
            at_t = noised_features(
                self.denoiser, process, images, at, [*taps],
                seed=self.seed, draws=self.draws, where=where,
            )  # fmt: skip
            features |= {(t, tap): feature for tap, feature in at_t.items()}
        return features

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        return self.denoiser.to_config() | {
            "kind": "probe",
            "classes": self.classes,
            "diffusion": None if self.diffusion is None else asdict(self.diffusion),
            "heads": [asdict(head) for head in self.configs],
            "width": self.width,
            "seed": self.seed,
            "draws": self.draws,
            "regressor": None if self.regressor is None else self.regressor.to_config(),
        }


def standardized(dims: int, channels: int, out: int) -> nn.Sequential:
    """A 1x1 convolution of features standardized to mean 0 and variance 1 [ours], which is still linear.

    Features of networks trained on different tasks differ greatly in magnitude.
    """
    return nn.Sequential(
        batch_norm(dims, channels, affine=False), convolution(dims, channels, out, 1)
    )


def batch_norm(dims: int, channels: int, *, affine: bool = True) -> nn.Module:
    """Batch normalization over two or three axes."""
    kind = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    return kind(channels, affine=affine)


def resize(feature: Tensor, shape: Sequence[int]) -> Tensor:
    """Linear interpolation to another grid."""
    if tuple(feature.shape[2:]) == tuple(shape):
        return feature
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return functional.interpolate(feature, tuple(shape), mode=mode, align_corners=False)


def pyramid(denoiser: UNet) -> tuple[str, ...]:
    """The bottleneck and every decoder level, the coarsest first [code: Li et al.]; then ``fine``, if there is one."""
    levels = reversed(range(len(denoiser.config.multipliers)))
    return ("middle", *(f"level.{k}" for k in levels), *(("fine",) if denoiser.folds else ()))


def _verify(
    denoiser: UNet,
    diffusion: Diffusion | None,
    heads: Sequence[HeadConfig],
    regressor: CoordinateRegressor | None,
) -> None:
    if regressor is not None:
        if denoiser.coordinate_channels:
            raise ValueError("the network is guided, and heads see the coordinates of its own")
        axes, channels = denoiser.config.spatial_dims, denoiser.config.in_channels
        if (axes, channels) != (regressor.config.spatial_dims, regressor.image_channels):
            raise ValueError("the regressor sees images of other axes or channels")
    total = 1 if diffusion is None else diffusion.num_train_timesteps
    known = pyramid(denoiser)
    if not heads or len({head.name for head in heads}) != len(heads):
        raise ValueError("heads need names of their own")
    for head in heads:
        if head.kind not in ("linear", "nonlinear"):
            raise ValueError(f"no head is {head.kind!r}: choose linear or nonlinear")
        numbers = [t for t in head.timesteps if t != "clean"]
        if not head.timesteps or any(not 0 <= t < total for t in numbers):
            shown = ", ".join(map(str, head.timesteps)) or "none"
            raise ValueError(f"timesteps {shown}: they go from 0 to {total - 1}, or are clean")
        if not head.taps or any(tap not in known for tap in head.taps):
            raise ValueError(f"features {head.taps}: choose from {', '.join(known)}")
        if head.coordinates and not denoiser.coordinate_channels and regressor is None:
            problem = "wants coordinates, and no regressor guides the network or is given"
            raise ValueError(f"{head.name} {problem}")
