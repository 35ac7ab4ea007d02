"""What a drawn image is, and the shapes and textures that every anatomy is made of.

Everything is a function of position in millimeters, evaluated at pixel centers. The size of the
grid therefore only changes the resolution of a picture, never what is in it. No call goes through a
threaded linear algebra library, so that the same arguments give the same bytes whatever the number
of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Drawing:
    """One drawn case with its exact label map.

    Attributes:
        image: ``(*size)`` float32. Films are ``(rows, columns)`` in 0 to 1, bright where tissue is
            dense; CT is ``(right, anterior, superior)`` in HU.
        label: ``(*size)`` uint8, an index into ``classes``.
        classes: Names by label value, background first.
        spacing: Millimeters per pixel along each axis.
        landmarks: Named points in millimeters. Films: ``(row, column)`` from the upper left corner
            of the image.
            CT: RAS+ world coordinates, as given by ``affine``.
        affine: CT: 4 x 4, voxel indices to RAS+ millimeters; films: None.
    """

    image: Floats
    label: NDArray[np.uint8]
    classes: tuple[str, ...]
    spacing: tuple[float, ...]
    landmarks: dict[str, tuple[float, ...]] = field(default_factory=dict)
    affine: NDArray[np.float64] | None = None


@functools.cache
def shapes(anatomy: str) -> Mapping[str, NDArray[np.float64]]:
    """Control points of an anatomy's ``shapes.yaml`` by name; each ``(K, dims)``."""
    text = resources.files(__package__).joinpath("shapes.yaml").read_text(encoding="utf-8")
    return {
        name: np.array(points, np.float64) for name, points in yaml.safe_load(text)[anatomy].items()
    }


def axes(size: Sequence[int], spacing: Sequence[float]) -> list[Floats]:
    """Pixel centers along each axis in millimeters from the middle of the field of view."""
    return [
        ((np.arange(n, dtype=np.float64) - (n - 1) / 2) * step).astype(np.float32)
        for n, step in zip(size, spacing, strict=True)
    ]


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves, defined everywhere.

    Attributes:
        frequency: ``(N, dims)`` in radians per millimeter.
        phase: ``(N)`` in radians.
        amplitude: ``(N)``.
    """

    frequency: NDArray[np.float64]
    phase: NDArray[np.float64]
    amplitude: NDArray[np.float64]

    def __call__(self, *coordinates: Floats) -> Floats:
        """The field on the grid that the one-dimensional ``coordinates`` span, ``(*lengths)``.

        exp(i k.x) is a product over the axes, so only one-dimensional exponentials are taken.
        """
        factors = [
            np.exp(1j * np.multiply.outer(x.astype(np.float64), self.frequency[:, d])).astype(
                np.complex64
            )
            for d, x in enumerate(coordinates)
        ]
        factors[0] = factors[0] * (self.amplitude * np.exp(1j * self.phase)).astype(np.complex64)
        while len(factors) > 2:
            first, second = factors[0], factors[1]
            factors[:2] = [(first[..., None, :] * second)]
        first, last = factors
        real = np.einsum("...n,kn->...k", np.ascontiguousarray(first.real), last.real.copy())
        real -= np.einsum("...n,kn->...k", np.ascontiguousarray(first.imag), last.imag.copy())
        return np.asarray(real, dtype=np.float32)


def waves(
    rng: np.random.Generator,
    dims: int,
    count: int,
    wavelength: tuple[float, float],
    stretch: Sequence[float] | None = None,
) -> Waves:
    """A random field of unit variance.

    Args:
        rng: Source of the draw.
        dims: Spatial axes.
        count: Plane waves; more look less regular.
        wavelength: Shortest and longest, in millimeters; drawn log-uniformly.
        stretch: Factor on the wavelength along each axis, for textures with a grain.
    """
    low, high = np.log(wavelength[0]), np.log(wavelength[1])
    length = np.exp(rng.uniform(low, high, count))
    direction = rng.normal(size=(count, dims))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    frequency = 2 * np.pi * direction / length[:, None]
    if stretch is not None:
        frequency = frequency / np.asarray(stretch)
    return Waves(frequency, rng.uniform(0, 2 * np.pi, count), np.full(count, np.sqrt(2 / count)))


def smoothstep(x: Any, low: Any, high: Any) -> Floats:
    """0 below ``low``, 1 above ``high``, a cubic with flat ends between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def soft_min(a: Any, b: Any, radius: float) -> Floats:
    """The smaller of two signed distances, with the corner rounded over ``radius`` millimeters."""
    h = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.asarray(np.minimum(a, b) - h * h * radius / 4, dtype=np.float32)


def dome(x: Any, power: int = 2) -> Floats:
    """Path length through a unit (super)ellipse at offset ``x``; ``power`` is 2 or 4."""
    inside = np.maximum(1 - np.abs(x) ** power if power == 2 else 1 - x * x * (x * x), 0)
    root = np.sqrt(inside)
    return np.asarray(root if power == 2 else np.sqrt(root), dtype=np.float32)


def line(distance: Any, width: float, pixel: float) -> Floats:
    """Profile of a thin line of ``width`` mm, widened and thinned to what pixels can hold."""
    wide = max(width, pixel)
    return np.asarray(np.exp(-((distance / wide) ** 2) * 2) * (width / wide), dtype=np.float32)


def blur(image: Floats, sigma: float, spacing: Sequence[float]) -> Floats:
    """Gaussian blur with ``sigma`` in millimeters."""
    return np.asarray(
        ndimage.gaussian_filter(image, [sigma / s for s in spacing], mode="nearest", truncate=3),
        dtype=np.float32,
    )


def tube(
    coordinates: Sequence[Floats], points: NDArray[np.float64], radii: NDArray[np.float64]
) -> Floats:
    """Signed distance to a tube of varying radius in millimeters, positive inside.

    Args:
        coordinates: One array per axis, of shapes that broadcast together.
        points: ``(K, dims)`` vertices of the center line.
        radii: ``(K)`` radius at each vertex.
    """
    best: Floats | None = None
    for start, end, r0, r1 in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        along = end - start
        length = max(float(along @ along), 1e-9)
        t = sum(
            (x - np.float32(s)) * np.float32(a / length)
            for x, s, a in zip(coordinates, start, along, strict=True)
        )
        t = np.clip(t, 0, 1)
        square = sum(
            (x - np.float32(s) - t * np.float32(a)) ** 2
            for x, s, a in zip(coordinates, start, along, strict=True)
        )
        inside = np.float32(r0) + t * np.float32(r1 - r0) - np.sqrt(square)
        best = inside if best is None else np.maximum(best, inside)
    assert best is not None, "a tube needs two points"
    return np.asarray(best, dtype=np.float32)


def curve(points: Any, count: int) -> NDArray[np.float64]:
    """``count`` points, ``(count, dims)``, on a cubic spline through ``points``."""
    from scipy.interpolate import CubicSpline

    knots = np.asarray(points, dtype=np.float64)
    step = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    position = np.concatenate([[0], np.cumsum(np.sqrt(step))])
    return np.asarray(CubicSpline(position, knots)(np.linspace(0, position[-1], count)))


@dataclass(frozen=True)
class Film:
    """How a detector, a developer and a viewer turn attenuation into gray.

    Attributes:
        contrast: Exponent scale: gray = 1 - exp(-contrast * attenuation), before the window.
        window: Values that become black and white.
        gamma: Exponent after the window.
        dose: Relative number of photons; noise falls with its square root.
        sharpness: Standard deviation of the point spread, in millimeters.
        grain: Standard deviation of the correlated part of the noise, in pixels.
    """

    contrast: float
    window: tuple[float, float]
    gamma: float
    dose: float
    sharpness: float
    grain: float

    def expose(
        self, attenuation: Floats, spacing: Sequence[float], rng: np.random.Generator
    ) -> Floats:
        """Gray values in 0 to 1 of ``attenuation`` (0 and up, about 1 in the densest tissue)."""
        transmitted = np.exp(-self.contrast * blur(attenuation, self.sharpness, spacing))
        noise = rng.standard_normal(attenuation.shape, dtype=np.float32)
        if self.grain > 0:
            noise = ndimage.gaussian_filter(noise, self.grain) * (1 + 2.5 * self.grain)
        # Photon counting: the relative error of the signal grows as fewer photons arrive.
        gray = 1 - transmitted + noise * np.sqrt(transmitted + 0.02) / np.sqrt(self.dose)
        low, high = self.window
        gray = np.clip((gray - low) / (high - low), 0, 1)
        return np.asarray(gray**self.gamma, dtype=np.float32)


def centroids(label: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Center of mass of each class that is present, in voxel indices (0: first voxel's center)."""
    values = np.unique(label[label > 0])
    centers = ndimage.center_of_mass(np.ones_like(label), label, values)
    return {classes[value]: np.asarray(at) for value, at in zip(values, centers, strict=True)}


def film_landmarks(
    label: NDArray[np.uint8], classes: Sequence[str], spacing: Sequence[float]
) -> dict[str, tuple[float, ...]]:
    """Centers of the classes, ``(row, column)`` in mm from the upper left corner of a film."""
    return {
        name: tuple(float(v) for v in (index + 0.5) * np.asarray(spacing))
        for name, index in centroids(label, classes).items()
    }


def spline(points: NDArray[np.float64], x: Floats) -> Floats:
    """A curve without overshoot (PCHIP) through ``points`` ``(K, 2)``, constant beyond its ends."""
    from scipy.interpolate import PchipInterpolator

    table = np.linspace(points[0, 0], points[-1, 0], 513)
    return np.interp(x, table, PchipInterpolator(points[:, 0], points[:, 1])(table)).astype(
        np.float32
    )
