"""Chest radiographs from the front.

The patient's left is on the right side of the film, as films are looked at. Structures overlap in
projection, a label map holds one of them per pixel: clavicles win over the heart, the heart over
ribs, ribs over lungs. So "lungs" is lung tissue not covered by a labelled bone or the heart, with
every opacity in it. Of the ribs the rear parts of the first ten are labelled, which are the ones
radiologists count. What the collimator cut off is background.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import thorax
from .chest_findings import devices, opacities, vessels
from .chest_marks import collimate, mark
from .drawing import Drawing, Film, Floats, axes, blur, film_landmarks, smoothstep, waves

CLASSES = ("background", "lungs", "heart", "clavicles", "ribs")
HEIGHT = 370.0
"""Of the field of view in millimeters where no spacing is given."""


def draw(
    rng: np.random.Generator,
    noise: np.random.Generator,
    size: Sequence[int],
    step: tuple[float, ...],
) -> Drawing:
    """One chest film. See ``registry.Anatomy``."""
    rows, columns = axes(size, step)
    pixel = max(step)
    x, y = _pose(rng, rows, columns)
    body = thorax.outline(rng, x, y)
    bones = thorax.skeleton(rng, x, y, body, pixel)
    label = np.zeros(x.shape, dtype=np.uint8)
    trunk = body.body > 0
    for value, inside in ((1, body.lungs), (4, bones.ribs), (2, body.heart), (3, bones.clavicles)):
        label[(inside > 0) & trunk] = value

    air = np.sqrt(np.clip(body.lungs / 45, 0, 1))
    soft = _soft_tissue(rng, x, y, body)
    covered = smoothstep(body.heart, -1.5, 7)
    aerated = rng.uniform(0.42, 0.58) * air * (1 - opacities(rng, x, y, rows, columns, body))
    aerated *= 1 - rng.uniform(0.55, 0.8) * covered
    clear = np.clip(air * 1.5, 0, 1) * smoothstep(body.heart, 6, -2)
    attenuation = soft - aerated + clear * vessels(rng, x, y, pixel)
    attenuation += bones.attenuation * smoothstep(body.body, 0, 4)
    attenuation += rng.uniform(0.05, 0.12) * covered * np.sqrt(np.clip(body.heart / 30, 0, 1))
    attenuation += devices(rng, x, y, pixel)
    image = _film(rng).expose(np.maximum(attenuation, 0).astype(np.float32), step, noise)
    image = _present(rng, image, step)
    image = mark(rng, image, rows, columns)
    image, label = collimate(rng, image, label, rows, columns)
    return Drawing(image, label, CLASSES, step, film_landmarks(label, CLASSES, step))


def _pose(rng: np.random.Generator, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
    """Position in the body of every pixel: patients differ in build and stand a little askew."""
    angle = np.radians(rng.normal(0, 2.5))
    scale = rng.uniform(0.86, 1.16)
    aspect = rng.normal(1, 0.05)
    shift_x, shift_y = rng.normal(0, 8), rng.normal(6, 12)
    cos, sin = np.cos(angle), np.sin(angle)
    right, down = columns[None, :] - np.float32(shift_x), rows[:, None] - np.float32(shift_y)
    x = (cos * right + sin * down) / (scale * aspect)
    y = (cos * down - sin * right) / (scale / aspect)
    strength = rng.uniform(1, 4)
    x = x + strength * waves(rng, 2, 6, (90, 300))(rows, columns)
    y = y + strength * waves(rng, 2, 6, (90, 300))(rows, columns)
    return x.astype(np.float32), y.astype(np.float32)


def _soft_tissue(rng: np.random.Generator, x: Floats, y: Floats, body: thorax.Thorax) -> Floats:
    """Trunk, mediastinum, abdomen and breasts; air in the windpipe and the stomach."""
    half = body.body + body.side
    depth = np.sqrt(np.clip(1 - (body.side / np.maximum(half, 1)) ** 2, 0, 1))
    total = (
        rng.uniform(0.72, 0.86) * depth * (1 + 0.05 * waves(rng, 2, 6, (60, 250))(y[:, 0], x[0]))
    )
    total *= 0.55 + 0.45 * smoothstep(y, -185, -95)  # neck and shoulders are thinner
    total += rng.uniform(0.02, 0.16) * smoothstep(body.below, -4, 30)
    center = rng.normal(0, 4)
    total += rng.uniform(0.05, 0.14) * smoothstep(np.abs(x - center), 38, 14)
    knob = np.hypot(x - rng.normal(26, 3), y + rng.normal(58, 7)) - rng.normal(19, 3)
    aorta = smoothstep(knob, 1.5, -5) + smoothstep(np.abs(x - 30), 15, 6) * smoothstep(
        np.abs(y - 25), 90, 60
    )
    total += rng.uniform(0.06, 0.14) * np.clip(aorta, 0, 1)
    windpipe = np.abs(x - center - rng.normal(0, 3) * smoothstep(y, -160, -60)) - rng.uniform(
        6.5, 9.5
    )
    total -= rng.uniform(0.05, 0.12) * smoothstep(windpipe, 1.5, -2.5) * smoothstep(y, -48, -58)
    if rng.random() < 0.4:
        total += _breasts(rng, x, y)
    if rng.random() < 0.6:  # gas under the left diaphragm
        cx, cy, a, b = (
            rng.normal(70, 14),
            rng.uniform(14, 40),
            rng.uniform(12, 34),
            rng.uniform(7, 18),
        )
        bubble = 1 - ((x - cx) / a) ** 2 - ((body.below - cy) / b) ** 2
        total -= rng.uniform(0.08, 0.28) * smoothstep(bubble, 0, 0.5)
    return np.asarray(total, dtype=np.float32)


def _breasts(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Two rounded shadows with a sharp lower edge."""
    amount, low = rng.uniform(0.04, 0.14), rng.normal(88, 15)
    wide, high = rng.uniform(52, 72), rng.uniform(45, 75)
    total = np.zeros(x.shape, np.float32)
    for sign in (-1.0, 1.0):
        u = (np.float32(sign) * x - 84 - rng.normal(0, 4)) / wide
        v = (y - low + high + rng.normal(0, 4)) / high
        total += amount * smoothstep(1 - u * u - v * v, 0, 0.5) * smoothstep(v, -1, 0.9)
    return total


def _film(rng: np.random.Generator) -> Film:
    """Exposure, contrast, sharpness and noise of one detector and viewer."""
    contrast = float(rng.uniform(0.6, 1.6))
    white = (1 - np.exp(-contrast * rng.uniform(1.0, 1.3))) * rng.uniform(0.95, 1.3)
    return Film(
        contrast=contrast,
        window=(float(rng.uniform(-0.1, 0.2) * white), float(white)),
        gamma=float(np.exp(rng.normal(0.0, 0.25))),
        dose=float(np.exp(rng.uniform(np.log(2000), np.log(50000)))),
        sharpness=float(rng.uniform(0.3, 1.6)),
        grain=float(rng.choice([0.0, 0.5, 0.8])),
    )


def _present(rng: np.random.Generator, image: Floats, spacing: Sequence[float]) -> Floats:
    """What the maker's software does: edge enhancement in some films, a narrow gray range."""
    enhance, radius = rng.uniform(0.3, 1.6), rng.uniform(6, 22)
    if rng.random() < 0.4:
        image = image + np.float32(enhance) * (image - blur(image, radius, spacing))
    low, high = rng.uniform(0, 0.25), rng.uniform(0.6, 1.0)
    if rng.random() < 0.35:
        image = low + image * (high - low)
    return np.asarray(np.clip(image, 0, 1), dtype=np.float32)
