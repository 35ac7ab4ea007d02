"""What is on a film and not in the patient: letters, and the edge that the collimator leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .drawing import Floats, smoothstep

GLYPHS = {
    "L": ("1....", "1....", "1....", "1....", "1....", "1....", "11111"),
    "R": ("1111.", "1...1", "1...1", "1111.", "1.1..", "1..1.", "1...1"),
    "A": (".111.", "1...1", "1...1", "11111", "1...1", "1...1", "1...1"),
    "P": ("1111.", "1...1", "1...1", "1111.", "1....", "1....", "1...."),
    "S": (".1111", "1....", "1....", ".111.", "....1", "....1", "1111."),
    "D": ("1111.", "1...1", "1...1", "1...1", "1...1", "1...1", "1111."),
}


def mark(rng: np.random.Generator, image: Floats, rows: Floats, columns: Floats) -> Floats:
    """Burn in the letter of a side, and in some films a word, at a corner."""
    side = rng.choice([-1.0, 1.0])
    words = [("L" if side > 0 else str(rng.choice(["R", "D"])), side)]
    words += [(str(rng.choice(["AP", "PA", "LAPS"])), float(rng.choice([-1.0, 1.0])))]
    shown = rng.random(2) < (0.75, 0.25)
    height, wide = 2 * _edge(rows), 2 * _edge(columns)
    for (word, where), show in zip(words, shown, strict=True):
        letter = rng.uniform(9, 20)
        top = float(rng.choice([-0.46, rng.uniform(-0.4, -0.1), 0.36])) * height
        left = where * rng.uniform(0.34, 0.42) * wide
        gray, boxed = rng.uniform(0.85, 1.0), rng.random() < 0.25
        if not show:
            continue
        bits = np.array([[[c == "1" for c in line] for line in GLYPHS[w]] for w in word])
        pattern = np.concatenate([np.pad(b, ((1, 1), (1, 1))) for b in bits], axis=1)
        cell = letter / 7
        i = np.floor((rows - top) / cell).astype(int)
        j = np.floor((columns - left) / cell + pattern.shape[1] / 2).astype(int)
        in_rows, in_columns = (i >= 0) & (i < pattern.shape[0]), (j >= 0) & (j < pattern.shape[1])
        place = np.ix_(in_rows, in_columns)
        ink = pattern[np.ix_(i[in_rows], j[in_columns])]
        image = image.copy()
        under = image[place] * (0.4 if boxed else 1.0)
        image[place] = np.where(ink, gray, under)
    return image


def _edge(axis: Floats) -> float:
    """Distance of the film's edge from its middle, whatever the size of its pixels."""
    return float(axis[-1] + (axis[1] - axis[0]) / 2)


def collimate(
    rng: np.random.Generator,
    image: Floats,
    label: NDArray[np.uint8],
    rows: Floats,
    columns: Floats,
) -> tuple[Floats, NDArray[np.uint8]]:
    """Cut some films to a slightly rotated rectangle; beyond it is black, and background."""
    angle = np.radians(rng.normal(0, 1.5))
    inset = rng.uniform(-0.02, 0.07, 4)
    soft, dark = rng.uniform(0.5, 3.0), rng.uniform(0.0, 0.12)
    if rng.random() < 0.6:
        return image, label
    r = np.cos(angle) * rows[:, None] + np.sin(angle) * columns[None, :]
    c = np.cos(angle) * columns[None, :] - np.sin(angle) * rows[:, None]
    high, wide = _edge(rows), _edge(columns)
    inside = np.minimum(
        np.minimum(r + high * (1 - 2 * inset[0]), high * (1 - 2 * inset[1]) - r),
        np.minimum(c + wide * (1 - 2 * inset[2]), wide * (1 - 2 * inset[3]) - c),
    )
    image = dark + (image - dark) * smoothstep(inside, -soft, soft)
    return image.astype(np.float32), np.where(inside > 0, label, 0).astype(np.uint8)
