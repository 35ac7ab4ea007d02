"""Bitewing radiographs: crowns of upper and lower side teeth, and the edge of the jaw bone.

Restorations are background in the label, being neither enamel nor dentine; the periodontal ligament
counts as bone; where neighboring teeth overlap in projection, enamel wins over dentine and pulp;
caries wins over all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import teeth
from .drawing import (
    Bools,
    Drawing,
    Film,
    Floats,
    axes,
    film_landmarks,
    line,
    shapes,
    smoothstep,
    waves,
)

CLASSES = ("background", "enamel", "dentine", "pulp", "bone", "caries")
HEIGHT = 32.0
"""Of the field of view in millimeters where no spacing is given."""


@dataclass(frozen=True)
class View:
    """Where every pixel is, in mm: ``rows``, ``columns`` on the film, ``x``, ``y`` in the mouth."""

    rows: Floats
    columns: Floats
    x: Floats
    y: Floats
    pixel: float


@dataclass(frozen=True)
class Jaw:
    """One jaw as drawn, ``(rows, columns)`` each."""

    attenuation: Floats
    label: NDArray[np.uint8]


def draw(
    rng: np.random.Generator,
    noise: np.random.Generator,
    size: Sequence[int],
    step: tuple[float, ...],
) -> Drawing:
    """One bitewing. See ``registry.Anatomy``."""
    rows, columns = axes(size, step)
    view = _view(rng, rows, columns, max(step))
    bend, middle = rng.normal(0, 0.004), rng.normal(0, 5)
    plane = np.float32(bend) * (view.x - np.float32(middle)) ** 2
    gap = rng.uniform(-0.9, 0.3) if rng.random() < 0.6 else rng.uniform(0.3, 2.5)
    start, lean = rng.normal(-23.5, 3.0), rng.uniform(-2, 2)
    loss = max(0.0, rng.normal(0.0, 1.4))
    lesions = rng.multinomial(int(rng.choice([0, 1, 2, 3, 4, 5, 6])), [0.5, 0.5])
    if rng.random() < 0.8:  # most films show at least one lesion
        lesions[int(rng.integers(2))] += 1
    rate = float(rng.choice([0.0, 0.15, 0.4]))
    jaws = []
    for name, sign, count in (("upper", -1.0, lesions[0]), ("lower", 1.0, lesions[1])):
        table = shapes("bitewing")[name]
        depth = np.float32(sign) * (view.y - plane) - np.float32(gap / 2)
        row = teeth.place(rng, table, view.x, depth, start + rng.normal(0, 1.0), lean * sign)
        jaws.append(_jaw(rng, view, row, depth, loss, int(count), rate))
    upper, lower = jaws
    attenuation = upper.attenuation + lower.attenuation + _soft_tissue(rng, view)
    label = np.where(upper.label > 0, upper.label, lower.label)
    attenuation, label = _artifacts(rng, view, attenuation, label)
    image = _film(rng).expose(attenuation, step, noise)
    return Drawing(image, label, CLASSES, step, film_landmarks(label, CLASSES, step))


def _view(rng: np.random.Generator, rows: Floats, columns: Floats, pixel: float) -> View:
    """Position in the mouth of every pixel: x from front to back, y from upper to lower jaw."""
    angle, scale = np.radians(rng.normal(0, 4)), rng.uniform(0.88, 1.14)
    mirror = rng.choice([-1.0, 1.0])
    shift_x, shift_y = rng.normal(0, 1.5), rng.normal(0, 1.8)
    wobble_x, wobble_y = waves(rng, 2, 5, (12, 40)), waves(rng, 2, 5, (12, 40))
    strength = np.float32(rng.uniform(0.1, 0.35))
    cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    x = (cos * columns + sin * rows[:, None]) * np.float32(mirror) - np.float32(shift_x)
    y = cos * rows[:, None] - sin * columns - np.float32(shift_y)
    x = x + strength * wobble_x(rows, columns)
    return View(rows, columns, x, y + strength * wobble_y(rows, columns), pixel)


def _jaw(
    rng: np.random.Generator,
    view: View,
    row: teeth.Row,
    depth: Floats,
    loss: float,
    lesions: int,
    rate: float,
) -> Jaw:
    """Attenuation and label of one jaw."""
    made = teeth.fill(row)
    body = np.any(row.inside > 0, axis=0)
    enamel = np.any((row.inside > 0) & (made.core <= 0) & (made.shell > 0.1), axis=0)
    pulp = np.any(made.pulp > 0, axis=0)
    caries = teeth.decay(rng, row, made, lesions)
    filling = teeth.restore(rng, row, made, rate)
    bone, density = _bone(rng, view, row, depth, loss)
    label = np.zeros(body.shape, dtype=np.uint8)
    for mask, name in (
        (bone, "bone"),
        (body, "dentine"),
        (pulp, "pulp"),
        (enamel, "enamel"),
        (caries, "caries"),
    ):
        label[mask] = CLASSES.index(name)
    label[filling] = 0
    # Bone in front of and behind a root covers it, but the root has displaced most of it.
    attenuation = np.sum(made.attenuation, axis=0) + np.where(body, 0.4 * density, density)
    return Jaw(attenuation.astype(np.float32), label)


def _bone(
    rng: np.random.Generator, view: View, row: teeth.Row, depth: Floats, loss: float
) -> tuple[Bools, Floats]:
    """Where the bone of the jaw is, behind the teeth too, and its attenuation.

    ``depth`` is the distance ``(rows, columns)`` from the chewing plane, ``loss`` the periodontal bone loss, both in
    mm.
    """
    wander = waves(rng, 2, 6, (8, 40), (30, 1))(view.rows, view.columns)
    fine = waves(rng, 2, 40, (0.7, 2.4), (1.0, 1.3))(view.rows, view.columns)
    coarse = waves(rng, 2, 10, (4, 14))(view.rows, view.columns)
    near = np.abs(row.center) < teeth.REACH  # the same teeth in every field of view
    level = float(np.mean(row.crown[near])) + rng.normal(1.5, 0.3) + loss
    defect, site, width = rng.uniform(1, 4.5), rng.uniform(-12, 12), rng.uniform(0.8, 2)
    crest = level + (0.2 + 0.35 * loss) * wander
    if rng.random() < 0.3:  # a vertical defect beside one tooth
        crest = crest + defect * np.exp(-(((view.x - site) / width) ** 2))
    inside = np.max(row.inside, axis=0)
    # The crest between two teeth is highest midway.
    below = depth - crest + 0.9 * smoothstep(-inside, 0.0, 1.5)
    bone = below > 0
    mesh = min(1.0, (0.3 / view.pixel) ** 1.5)
    density = smoothstep(below, -0.1, 1.5) * (0.36 + 0.012 * np.clip(below, 0, 12))
    density = (
        density
        * (1 + rng.uniform(0.1, 0.22) * mesh * fine + 0.08 * coarse)
        * rng.uniform(0.75, 1.3)
    )
    sheath = 0.18 * line(inside + 0.6, 0.35, view.pixel) - 0.3 * line(
        inside + 0.2, 0.22, view.pixel
    )
    density += np.where(bone & (inside < 0.3), sheath, 0)
    density += rng.uniform(0, 0.2) * line(below - 0.25, 0.35, view.pixel) * bone
    return bone, np.maximum(density, 0).astype(np.float32)


def _soft_tissue(rng: np.random.Generator, view: View) -> Floats:
    """Cheek, gums and, in some films, the tab that the patient bites on."""
    field = waves(rng, 2, 6, (15, 60))(view.rows, view.columns)
    cheek = rng.uniform(0.04, 0.16) * (1 + 0.3 * field)
    gum = rng.uniform(0.03, 0.14) * smoothstep(np.abs(view.y), 3.5, 9.0)
    tab = rng.uniform(0.03, 0.1) if rng.random() < 0.3 else 0.0
    wing = tab * smoothstep(np.abs(view.y), 2.2, 1.9) * smoothstep(np.abs(view.x), 8.2, 7.8)
    return np.asarray(cheek + gum + wing, dtype=np.float32)


def _artifacts(
    rng: np.random.Generator, view: View, attenuation: Floats, label: NDArray[np.uint8]
) -> tuple[Floats, NDArray[np.uint8]]:
    """A corner that the beam missed (background in the label), scratches, a film dot."""
    rows, columns = view.rows[:, None], view.columns[None, :]
    angle, far, dim = rng.uniform(0, 2 * np.pi), rng.uniform(33, 42), rng.uniform(1.5, 4)
    if rng.random() < 0.15:
        away = np.hypot(rows - 20 * np.sin(angle), columns - 20 * np.cos(angle)) - far
        attenuation = attenuation + dim * smoothstep(away, -0.15, 0.15)
        label = np.where(away > 0, 0, label).astype(np.uint8)
    for _ in range(int(rng.poisson(0.5))):
        angle, shift, change = rng.uniform(0, np.pi), rng.uniform(-14, 14), rng.normal(0, 0.12)
        away = rows * np.sin(angle) + columns * np.cos(angle) - shift
        attenuation = attenuation + change * line(away, 0.25, view.pixel)
    row, column = rng.uniform(10, 15), rng.choice([-1, 1]) * rng.uniform(10, 15)
    if rng.random() < 0.2:
        ring = np.hypot(rows - row, columns - column) - 0.9
        attenuation = attenuation + 0.3 * line(ring, 0.3, view.pixel)
    return np.maximum(attenuation, 0).astype(np.float32), label


def _film(rng: np.random.Generator) -> Film:
    """Exposure, contrast, sharpness and noise of one sensor and viewer."""
    contrast = float(rng.uniform(0.35, 0.8))
    # White is set where enamel is dense, or above; fillings saturate.
    brightest = 1 - np.exp(-contrast * rng.uniform(2.1, 3.2))
    return Film(
        contrast=contrast,
        window=(float(rng.uniform(-0.05, 0.08) * brightest), float(brightest)),
        gamma=float(np.exp(rng.normal(0.05, 0.25))),
        dose=float(np.exp(rng.uniform(np.log(500), np.log(12000)))),
        sharpness=float(rng.uniform(0.06, 0.3)),
        grain=float(rng.choice([0.0, 0.5, 0.8])),
    )
