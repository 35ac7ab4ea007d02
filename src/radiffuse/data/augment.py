"""Random changes of training images: one function draws, another applies, so that each can be replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import IGNORE, Augmentation
from .scan import Array

CONTROL_POINTS = 5
"""Of a smooth field, along each axis [ours]."""
OVERSHOOT = 1.3
"""Most by which what is interpolated between control points exceeds them."""
BLUR_REACH = 4.0
"""How far a blur reaches, in standard deviations."""


@dataclass(frozen=True)
class Change:
    """What happens to one image.

    Attributes:
        matrix: ``(dims, dims + 1)`` map from output to input, axes in the order of the array: of offsets from the
            center in voxels, then a shift in half extents; None: the identity.
        brightness: Added to the intensities.
        contrast: Multiplies the intensities.
        gamma: Exponent on the intensities in [0, 1].
        inverted: Whether gamma acts on the inverted intensities.
        noise: Standard deviation of added Gaussian noise, drawn with ``seed``.
        elastic: Largest displacement of a smooth deformation, as a fraction of the extent, drawn
            with ``seed`` too.
        blur: Standard deviation of a Gaussian blur, in pixels.
        coarser: Factor by which the resolution falls, 1 or more.
        shading: Largest local shift of the intensities by a smooth field, drawn with ``seed``.
        box: Of another image of the batch, pasted in last, see ``cutmix.pasted``; empty: none.
    """

    matrix: Array | None
    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    inverted: bool = False
    noise: float = 0.0
    elastic: float = 0.0
    blur: float = 0.0
    coarser: float = 1.0
    shading: float = 0.0
    seed: int = 0
    box: tuple[float, ...] = ()

    @property
    def geometry(self) -> Change:
        """What moves voxels alone."""
        return Change(self.matrix, elastic=self.elastic, seed=self.seed)

    @property
    def moves(self) -> bool:
        """Whether voxels move."""
        return self.matrix is not None or self.elastic > 0

    def reach(self, size: Sequence[int]) -> tuple[int, ...]:
        """Voxels beyond each border of a patch of ``size`` that it brings into it, by axis; at most a patch and one."""
        farthest = np.full(len(size), 1 + 2 * OVERSHOOT * self.elastic)
        if self.matrix is not None:
            farthest += np.abs(_in_extents(self.matrix, size)).sum(1) - 1
        beyond = np.clip((farthest - 1) / 2, 0, 1) * np.asarray(size)
        return tuple(int(n) for n in np.ceil(beyond) + (beyond > 0))

    @property
    def softens(self) -> bool:
        """Whether details are lost."""
        return self.blur > 0 or self.coarser > 1

    @property
    def intensity(self) -> bool:
        """Whether intensities change."""
        plain = (self.brightness, self.contrast, self.gamma, self.noise) == (0.0, 1.0, 1.0, 0.0)
        return not plain or self.softens or self.shading > 0


def draw_change(
    settings: Augmentation,
    dims: int,
    rng: np.random.Generator,
    mirrored: Sequence[int] = (),
    spacing: Sequence[float] | None = None,
) -> Change:
    """Draw one change for an image with ``dims`` axes, of which ``mirrored`` are flipped where ``flip`` is None.

    Rotations keep lengths in the unit of ``spacing``, the extent of a voxel along each axis; None: the same for all.
    """
    assert settings.shading is not None, "is decided by data.shading.shaded"
    geometric, intensity = rng.random(2) < settings.probability
    signs = np.ones(dims)
    for axis in mirrored if settings.flip is None else settings.flip:
        signs[axis] = rng.choice((-1.0, 1.0))
    angles = np.deg2rad(rng.uniform(-settings.rotate, settings.rotate, 3))
    scales = 1 + rng.uniform(-settings.scale, settings.scale, dims)
    shears = rng.uniform(-settings.shear, settings.shear, (dims, dims))
    shift = 2 * rng.uniform(-settings.translate, settings.translate, dims)
    brightness, contrast, gamma = rng.uniform(-1, 1, 3)
    noise, seed = rng.uniform(0, settings.noise), int(rng.integers(2**31))
    # What came later is drawn last, and only where it is wanted: older settings replay as they did.
    zoom = 2 ** rng.uniform(-settings.zoom, settings.zoom) if settings.zoom else 1.0
    inverted = bool(settings.inverted and rng.random() < settings.inverted)
    elastic, blur, coarser, shading = (
        float(rng.uniform(0, most)) if most and rng.random() < settings.chance else 0.0
        for most in (settings.elastic, settings.blur, settings.coarser, settings.shading)
    )
    cut = settings.cutmix and rng.random() < settings.cutmix
    box = tuple(rng.random(2 + dims).tolist()) if cut else ()
    matrix = np.diag(signs)
    if geometric:
        np.fill_diagonal(shears, 0)
        scaling = np.diag(1 / (zoom * scales))
        matrix = matrix @ _rotation(angles, dims) @ scaling @ (np.eye(dims) + shears)
        matrix = _rescaled(matrix, spacing or (1.0,) * dims)
    else:
        shift = np.zeros(dims)
    unchanged = np.allclose(matrix, np.eye(dims)) and not shift.any()
    full = None if unchanged else np.concatenate([matrix, shift[:, None]], axis=1)
    change = Change(
        full, elastic=elastic, blur=blur, coarser=2**coarser, shading=shading, seed=seed, box=box
    )
    if not intensity:
        return change
    return replace(
        change,
        brightness=float(brightness * settings.brightness),
        contrast=float(1 + contrast * settings.contrast),
        gamma=float(2 ** (gamma * settings.gamma)),
        inverted=inverted,
        noise=float(noise),
    )


def apply_changes(
    changes: Sequence[Change],
    images: Tensor,
    labels: Tensor | None,
    mirrored: Sequence[int] | None = None,
    size: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Apply one change to each image of a batch, and its geometric part to the labels, on the device of the images.

    Boxes are not pasted here, since one may come from another part of the batch: see ``batches.Batches``.

    Args:
        changes: One per image.
        images: float32 ``(B, C, *S)`` in [-1, 1], where the result is clipped to; mirrored outside.
        labels: integers ``(B, *S)`` or None; nearest voxel.
        mirrored: Axes along which labels are mirrored outside too; along the others they are
            ignored there. None: all axes.
        size: Of the result, which is the middle of the images; None: they are changed whole.
    """
    if any(change.moves for change in changes):
        grid = _grid(changes, images, size or images.shape[2:])
        images = functional.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
        if labels is not None:
            nearest = functional.grid_sample(
                labels[:, None].float(), grid, "nearest", "reflection", align_corners=False
            )
            labels = nearest[:, 0].round().long()
            if mirrored is not None:
                dims = images.ndim - 2
                others = [dims - 1 - axis for axis in range(dims) if axis not in mirrored]
                labels = labels.masked_fill((grid[..., others].abs() > 1).any(-1), IGNORE)
    if not any(change.intensity for change in changes):
        return images.clamp(-1, 1), labels
    return torch.stack([_intensity(c, i) for c, i in zip(changes, images, strict=True)]), labels


def augmented(image: Tensor, settings: Augmentation, rng: np.random.Generator) -> Tensor:
    """One image ``(C, *S)`` with a drawn change."""
    return apply_changes([draw_change(settings, image.ndim - 1, rng)], image[None], None)[0][0]


def _intensity(change: Change, image: Tensor) -> Tensor:
    if change.gamma != 1:
        sign = -1 if change.inverted else 1
        image = sign * (((sign * image.clamp(-1, 1) + 1) / 2).pow(change.gamma) * 2 - 1)
    if change.contrast != 1 or change.brightness != 0:
        image = image * change.contrast + change.brightness
    if change.shading > 0:
        image = image + change.shading * _smooth(change.seed + 2, 1, image.shape[1:], image.device)
    if change.softens:
        for axis in range(1, image.ndim):
            kernel = _softening(change, image.shape[axis]).to(image.device)
            image = (image.movedim(axis, -1) @ kernel).movedim(-1, axis)
    if change.noise > 0:
        generator = torch.Generator().manual_seed(change.seed)
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        image = image + change.noise * noise
    return image.clamp(-1, 1)


def _softening(change: Change, n: int) -> Tensor:
    """Blur and loss of resolution along an axis of n pixels, as a matrix ``(n, n)`` from input to output."""
    matrix = torch.eye(n)
    if change.blur > 0:
        places = torch.arange(n, dtype=torch.float32) / change.blur
        distance = (places[:, None] - places).abs()
        # Numbers too small to matter would be too small for fast arithmetic too.
        matrix = torch.exp(-(distance**2) / 2).masked_fill(distance > BLUR_REACH, 0)
        matrix = matrix / matrix.sum(0)  # at the border, what is inside counts
    if (fewer := max(1, round(n / change.coarser))) < n:
        matrix = functional.interpolate(matrix[None], fewer, mode="area")
        matrix = functional.interpolate(matrix, n, mode="linear")[0]
    return matrix


def _grid(changes: Sequence[Change], images: Tensor, size: Sequence[int]) -> Tensor:
    """Where in the images each voxel of the result comes from: ``(B, *size, dims)`` in [-1, 1], last axis first."""
    dims = images.ndim - 2
    rows = []
    for change in changes:
        matrix = np.eye(dims, dims + 1)
        if change.matrix is not None:
            matrix = _in_extents(change.matrix, size)
        # grid_sample wants the last axis first.
        rows.append(np.concatenate([matrix[::-1, dims - 1 :: -1], matrix[::-1, dims:]], axis=1))
    theta = torch.from_numpy(np.stack(rows)).float().to(images.device)
    grid = functional.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
    for number, change in enumerate(changes):
        if change.elastic > 0:
            grid[number] += _deformation(change, size, images.device)
    parts = [n / whole for n, whole in zip(size, images.shape[2:], strict=True)]
    return grid if set(parts) == {1.0} else grid * torch.tensor(parts[::-1]).to(grid)


def _in_extents(matrix: Array, size: Sequence[int]) -> Array:
    """A map of voxels in units of each axis' extent, as the grid is."""
    return np.column_stack([_rescaled(matrix[:, :-1], size), matrix[:, -1]])


def _rescaled(matrix: Array, units: Sequence[float]) -> Array:
    """A linear map of places in units of which an axis has ``units`` in each of its own, in those of the axes."""
    unit = np.asarray(units, float)
    rescaled: Array = matrix * (unit[None, :] / unit[:, None])
    return rescaled


def _deformation(change: Change, shape: Sequence[int], device: torch.device) -> Tensor:
    """Displacements ``(*S, dims)``, smooth between random ones on a few control points."""
    field = _smooth(change.seed + 1, len(shape), shape, device)
    return 2 * change.elastic * field.movedim(0, -1)


def _smooth(seed: int, channels: int, shape: Sequence[int], device: torch.device) -> Tensor:
    """Fields ``(channels, *S)`` between random values in [-1, 1] on a few control points."""
    dims = len(shape)
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand((1, channels, *[CONTROL_POINTS] * dims), generator=generator) * 2 - 1
    mode = "bicubic" if dims == 2 else "trilinear"
    resized = functional.interpolate(points.to(device), tuple(shape), mode=mode, align_corners=True)
    return resized[0]


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
