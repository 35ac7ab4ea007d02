"""The chest seen from the front: outlines of lungs, heart and bones as functions of position.

The frame is the body's own: x to the patient's left (the right side of a film), y down, in
millimeters, the origin in the middle of an adult chest. Control points are those of an average
adult film and vary from case to case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drawing import Floats, line, shapes, smoothstep, soft_min, spline


@dataclass(frozen=True)
class Thorax:
    """Signed distances in millimeters, positive inside, ``(rows, columns)`` each.

    Attributes:
        body: Outline of trunk and neck.
        lungs: Both lungs with the parts that the heart covers.
        heart: The heart above the diaphragm.
        below: Depth below the diaphragm.
        side: Distance from the midline.
        outer: Distance of the chest wall from the midline at that height.
    """

    body: Floats
    lungs: Floats
    heart: Floats
    below: Floats
    side: Floats
    outer: Floats


def outline(rng: np.random.Generator, x: Floats, y: Floats) -> Thorax:
    """The large shapes of one patient."""
    points = shapes("chest")

    def jitter(name: str, amount: float) -> NDArray[np.float64]:
        table = points[name].copy()
        table[:, 1] += rng.normal(0, amount, len(table))
        return table

    left = x > 0
    side = np.abs(x)
    breath = rng.normal(0, 14)  # how deeply the patient breathed in
    lift = np.where(left, rng.normal(0, 7), rng.normal(0, 7)).astype(np.float32)
    wide = rng.normal(1, 0.05)
    outer = [spline(jitter("outer", 2.5), y) * np.float32(wide) for _ in range(2)]
    hilum = points["hilum"] * [1, rng.uniform(-2, 8)]
    inner = [spline(jitter("inner", 2.0), y) + spline(hilum, y) for _ in range(2)]
    wall = np.where(left, outer[0], outer[1])
    middle = np.where(left, inner[0], inner[1])
    dome = jitter("diaphragm", 3.0)
    dome[:, 1] += breath
    # A flat or a steep dome, about the level of the angles.
    dome[:, 1] = 120 + breath + (dome[:, 1] - 120 - breath) * rng.uniform(0.6, 1.2)
    below = y - spline(dome, x) - lift
    lungs = soft_min(soft_min(wall - side, side - middle, 12.0), -below, 5.0)
    half = spline(jitter("body", 5.0), y) * np.float32(wide * rng.uniform(0.92, 1.12))
    return Thorax(half - side, lungs, _heart(rng, x, y, below, breath), below, side, wall)


def _heart(rng: np.random.Generator, x: Floats, y: Floats, below: Floats, breath: float) -> Floats:
    """A tilted oval whose left end points down, the right atrium beside it, on the diaphragm."""
    size = rng.normal(1, 0.11)
    angle = np.radians(rng.normal(36, 7) + 0.25 * breath * -1)
    shift = rng.normal(0, 5)
    cx, cy = 24 + shift, 60 + 0.55 * breath + rng.normal(0, 5)
    long, short = 76 * size, 52 * size * rng.normal(1, 0.05)
    u = np.cos(angle) * (x - cx) + np.sin(angle) * (y - cy)
    v = -np.sin(angle) * (x - cx) + np.cos(angle) * (y - cy)
    ventricle = (1 - np.sqrt((u / long) ** 2 + (v / short) ** 2)) * short
    atrium = (1 - np.sqrt(((x + 12 - shift) / (34 * size)) ** 2 + ((y - cy - 2) / 48) ** 2)) * 34
    return soft_min(-soft_min(-ventricle, -atrium, 14.0), -below + 2, 6.0)


@dataclass(frozen=True)
class Bones:
    """Attenuation of the skeleton, signed distances of the labelled bones: ``(rows, columns)``."""

    attenuation: Floats
    clavicles: Floats
    ribs: Floats


def skeleton(rng: np.random.Generator, x: Floats, y: Floats, thorax: Thorax, pixel: float) -> Bones:
    """Ribs, clavicles, spine, shoulder blades and upper arms."""
    ribs, posterior = _ribs(rng, x, y, thorax, pixel)
    clavicles, collar = _clavicles(rng, x, y, pixel)
    attenuation = ribs + collar + _spine(rng, x, y, pixel) + _shoulders(rng, x, y, pixel)
    return Bones(attenuation.astype(np.float32), clavicles, posterior)


def _bar(distance: Floats, half: Any, pixel: float) -> Floats:
    """A tubular bone: a hollow cylinder, brightest along its two edges."""
    full = np.sqrt(np.clip(1 - (distance / half) ** 2, 0, 1))
    edge = line(np.abs(distance) - half * 0.8, 1.8, pixel) * (np.abs(distance) < half)
    return np.asarray(0.75 * full + 0.5 * edge, dtype=np.float32)


def _ribs(
    rng: np.random.Generator, x: Floats, y: Floats, thorax: Thorax, pixel: float
) -> tuple[Floats, Floats]:
    """Ribs 1 to 10: the labelled rear part runs outward, the faint front part comes back lower."""
    side, wall = thorax.side, thorax.outer
    opacity, front = rng.uniform(0.035, 0.11), rng.uniform(0.3, 0.8)
    slope, bow = rng.normal(0.0, 0.07), rng.normal(17, 4)
    pitch, first = rng.normal(22.5, 1.2), rng.normal(-122, 4)
    thick = rng.normal(1, 0.1)
    fall = rng.normal(0.72, 0.1)
    total = np.zeros(x.shape, np.float32)
    nearest = np.full(x.shape, -99, np.float32)
    skew = np.where(x > 0, rng.normal(0, 3), rng.normal(0, 3)).astype(np.float32)
    for i in range(10):
        start = first + pitch * i * (0.9 + 0.012 * i) + rng.normal(0, 1.0)
        tilt = slope + 0.035 * i - (0.0 if i else 0.1)
        half = np.float32(thick * (3.6 + 0.16 * min(i, 6)))
        t = (side - 20) / 120
        center = (
            start
            + skew
            + 120 * t * tilt
            - 9 * np.sin(np.pi * np.clip(t, 0, 1))
            + bow * t * t * np.abs(t)
        )
        derivative = tilt + bow * 3 * t * t / 120
        off = (y - center) / np.sqrt(1 + derivative**2)
        inside = np.minimum(half - np.abs(off), np.minimum(side - 17, wall + 5 - side))
        nearest = np.maximum(nearest, inside)
        total += _bar(off, half, pixel) * (inside > 0)
        if 0 < i < 9:  # the front part starts where the rear part meets the wall
            reach = wall + 3
            end = start + skew + tilt * 120 + bow * 1.3
            back = reach - side
            steep = (y - end - fall * back - 9 * np.sin(np.pi * np.clip(back / 90, 0, 1))) / 1.22
            here = (back > 0) & (side > 58 - 2 * i)
            total += front * _bar(steep, half * 1.15, pixel) * here
    return opacity * total, nearest.astype(np.float32)


def _clavicles(
    rng: np.random.Generator, x: Floats, y: Floats, pixel: float
) -> tuple[Floats, Floats]:
    """Two S-shaped bones from the breastbone to the shoulders."""
    nearest = np.full(x.shape, -99, np.float32)
    total = np.zeros(x.shape, np.float32)
    opacity = rng.uniform(0.08, 0.17)
    level, rise, thick = rng.normal(-92, 8), rng.normal(32, 9), rng.normal(1, 0.1)
    for sign in (-1.0, 1.0):
        along = np.float32(sign) * x
        lift = rise + rng.normal(0, 5)
        along_x, share, more = shapes("chest")["clavicle"].T
        points = np.stack([along_x, share * lift + more], axis=1)
        points[:, 1] += level + rng.normal(0, 2)
        half = np.interp(along, [14, 30, 80, 150], np.array([8.5, 6.4, 5.4, 6.6]) * thick)
        off = (y - spline(points, along)) * 0.93
        ends = np.minimum(along - rng.normal(15, 2), rng.normal(154, 4) - along)
        inside = soft_min(half - np.abs(off), ends, 4.0)
        nearest = np.maximum(nearest, inside)
        total += _bar(off, half.astype(np.float32), pixel) * smoothstep(inside, -0.4, 0.8)
    return nearest, opacity * total


def _spine(rng: np.random.Generator, x: Floats, y: Floats, pixel: float) -> Floats:
    """The column of vertebrae, slightly bent, with its discs and spinous processes."""
    center = rng.normal(0, 5) * np.sin(y / 110 + rng.uniform(0, 6))
    height, phase = rng.normal(23.5, 1.5), rng.uniform(0, 6)
    half = 15 + 0.02 * (y + 120)
    column = smoothstep(half - np.abs(x - center), -1, 3)
    disc = np.cos(2 * np.pi * y / height + phase)
    body = 0.75 - 0.45 * smoothstep(disc, 0.45, 0.9)
    process = line(np.hypot((x - center) * 1.0, (disc + 0.2) * 6) - 2.5, 2.0, pixel)
    return np.asarray(rng.uniform(0.07, 0.16) * column * (body + 0.5 * process), dtype=np.float32)


def _shoulders(rng: np.random.Generator, x: Floats, y: Floats, pixel: float) -> Floats:
    """Shoulder blades and upper arms, outside the lungs or across them."""
    total = np.zeros(x.shape, np.float32)
    opacity = rng.uniform(0.05, 0.12)
    inward = rng.normal(0, 9)
    for sign in (-1.0, 1.0):
        along = np.float32(sign) * x + np.float32(inward + rng.normal(0, 3))
        head = 24 - np.hypot(along - 182, y + 108)
        shaft = 13 - np.abs(along - 190 - 0.1 * (y + 90))
        arm = np.maximum(head, np.minimum(shaft, y + 108))
        total += smoothstep(arm, -1, 4) * 0.8 + line(arm - 1.5, 2.5, pixel) * (arm > 0)
        u, v = along - 118 - 0.12 * (y + 105), y + 105
        blade = np.minimum(np.minimum(u, v + 0.25 * u), 1.02 * (110 - v) * 0.5 - u + 8)
        total += 0.3 * smoothstep(blade, -0.5, 1.5) + 0.55 * line(blade - 1.2, 2.2, pixel) * (
            blade > 0
        )
    return opacity * total
