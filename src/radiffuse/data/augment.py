"""Random changes of training images: one function draws, another applies, so that each can be replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import Augmentation
from .scan import Array


@dataclass(frozen=True)
class Change:
    """What happens to one image.

    Attributes:
        matrix: ``(dims, dims + 1)`` map from output to input coordinates, each in [-1, 1], axes in
            the order of the array; None: the identity.
        brightness: Added to the intensities.
        contrast: Multiplies the intensities.
        gamma: Exponent on the intensities in [0, 1].
        noise: Standard deviation of added Gaussian noise, drawn with ``seed``.
    """

    matrix: Array | None
    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    noise: float = 0.0
    seed: int = 0

    @property
    def intensity(self) -> bool:
        """Whether intensities change."""
        return (self.brightness, self.contrast, self.gamma, self.noise) != (0.0, 1.0, 1.0, 0.0)


def draw(settings: Augmentation, dims: int, rng: np.random.Generator) -> Change:
    """Draw one change for an image with ``dims`` spatial axes."""
    geometric, intensity = rng.random(2) < settings.probability
    signs = np.ones(dims)
    for axis in settings.flip:
        signs[axis] = rng.choice((-1.0, 1.0))
    angles = np.deg2rad(rng.uniform(-settings.rotate, settings.rotate, 3))
    scales = 1 + rng.uniform(-settings.scale, settings.scale, dims)
    shears = rng.uniform(-settings.shear, settings.shear, (dims, dims))
    shift = 2 * rng.uniform(-settings.translate, settings.translate, dims)
    brightness, contrast, gamma = rng.uniform(-1, 1, 3)
    noise, seed = rng.uniform(0, settings.noise), int(rng.integers(2**31))
    matrix = np.diag(signs)
    if geometric:
        np.fill_diagonal(shears, 0)
        matrix = matrix @ _rotation(angles, dims) @ np.diag(1 / scales) @ (np.eye(dims) + shears)
    else:
        shift = np.zeros(dims)
    unchanged = np.allclose(matrix, np.eye(dims)) and not shift.any()
    full = None if unchanged else np.concatenate([matrix, shift[:, None]], axis=1)
    if not intensity:
        return Change(full)
    return Change(
        full,
        float(brightness * settings.brightness),
        float(1 + contrast * settings.contrast),
        float(2 ** (gamma * settings.gamma)),
        float(noise),
        seed,
    )


def apply(
    changes: Sequence[Change], images: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Apply one change to each image of a batch, and its geometric part to the labels.

    Args:
        changes: One per image.
        images: float32 ``(B, C, *S)`` in [-1, 1], where the result is clipped to; mirrored outside.
        labels: int64 ``(B, *S)`` or None; nearest voxel.
    """
    if any(change.matrix is not None for change in changes):
        grid = _grid(changes, images)
        images = functional.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
        if labels is not None:
            nearest = functional.grid_sample(
                labels[:, None].float(), grid, "nearest", "reflection", align_corners=False
            )
            labels = nearest[:, 0].round().long()
    if not any(change.intensity for change in changes):
        return images.clamp(-1, 1), labels
    return torch.stack([_intensity(c, i) for c, i in zip(changes, images, strict=True)]), labels


def augmented(image: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    """One image ``(C, *S)`` with a drawn change."""
    return apply([draw(settings, image.ndim - 1, rng)], image[None], None)[0][0]


def _intensity(change: Change, image: Tensor) -> Tensor:
    if change.gamma != 1:
        image = ((image.clamp(-1, 1) + 1) / 2).pow(change.gamma) * 2 - 1
    if change.contrast != 1 or change.brightness != 0:
        image = image * change.contrast + change.brightness
    if change.noise > 0:
        generator = torch.Generator().manual_seed(change.seed)
        image = image + change.noise * torch.randn(image.shape, generator=generator)
    return image.clamp(-1, 1)


def _grid(changes: Sequence[Change], images: Tensor) -> Tensor:
    dims = images.ndim - 2
    extent = np.asarray(images.shape[2:], float)
    rows = []
    for change in changes:
        matrix = np.eye(dims, dims + 1) if change.matrix is None else change.matrix.copy()
        # Rotations are rigid in voxels, the grid is in units of each axis' extent.
        matrix[:, :dims] = matrix[:, :dims] * (extent[None, :] / extent[:, None])
        # grid_sample wants the last axis first.
        rows.append(np.concatenate([matrix[::-1, dims - 1 :: -1], matrix[::-1, dims:]], axis=1))
    theta = torch.from_numpy(np.stack(rows)).float()
    return functional.affine_grid(theta, list(images.shape), align_corners=False)


def _rotation(angles: Array, dims: int) -> Array:
    def plane(a: int, b: int, angle: float) -> Array:
        matrix = np.eye(dims)
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
        return matrix

    if dims == 2:
        return plane(0, 1, float(angles[0]))
    return (
        plane(0, 1, float(angles[0]))
        @ plane(0, 2, float(angles[1]))
        @ plane(1, 2, float(angles[2]))
    )
