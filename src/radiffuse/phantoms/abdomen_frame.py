"""What surrounds the organs of the abdomen: wall, spine, ribs, diaphragm, lungs, and the bowel.

The frame of the body: origin in the middle of the first lumbar vertebra's body, x to the patient's
right, y to the front, z to the head, in millimeters. Sizes are those of an average adult's CT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .drawing import Floats, shapes, smoothstep, spline, waves
from .solids import Canvas, Solid, ellipsoid, pipe, rotation

PITCH = 33.0
"""Height of a lumbar vertebra with its disc, mm."""
SPINE = shapes("abdomen")["spine"]
"""(z, y) of the middle of the vertebral bodies."""
VERTEBRAE = {"T10": 3, "T11": 2, "T12": 1, "L1": 0, "L2": -1, "L3": -2, "L4": -3}
"""Vertebrae by how many levels they lie above the first lumbar one."""


@dataclass(frozen=True)
class Frame:
    """Signed distances in millimeters, positive inside, ``(R, A, S)`` each.

    Attributes:
        cavity: Inside of the abdominal wall and the rib cage.
        abdomen: The part of the cavity below the diaphragm.
    """

    cavity: Floats
    abdomen: Floats


def spine_y(z: Floats) -> Floats:
    """How far in front of the first lumbar vertebra the spine lies at height ``z``."""
    return spline(SPINE, z)


def build(rng: np.random.Generator, canvas: Canvas, muscle: float) -> Frame:
    """Paint fat, muscles, ribs, spine and lungs into air; return the room left for organs."""
    x, y, z = canvas.x, canvas.y, canvas.z
    girth, flat, power = rng.normal(126, 7), rng.normal(0.72, 0.05), rng.uniform(2.2, 2.7)
    fat = float(np.clip(rng.gamma(3.0, 6.0), 5, 45))
    wall_thickness = rng.uniform(9, 15)
    texture = waves(rng, 3, 16, (8, 40))
    ribbed = smoothstep(z, -60, 60)
    half_x = girth + 8 * ribbed
    half_y = flat * girth + 6 * ribbed
    spine = spine_y(z)
    front = y - 29 - np.float32(0.35) * spine
    ratio = np.abs(x / half_x) ** power + np.abs(front / half_y) ** power
    # Distance along the ray from the middle: close to the true distance for such a round shape.
    radius = np.sqrt(x * x + front * front)
    shell = (radius * (np.maximum(ratio, 1e-4) ** (-1 / power) - 1)).astype(np.float32)
    # The muscles of the back fill the groove on either side of the spine.
    groove = y - spine + 21 + 48 * smoothstep(np.abs(x), 26, 78)
    cavity = np.minimum(shell, groove)
    back = smoothstep(front, -49, -99)
    outer = (
        shell + wall_thickness + fat * (1 + 0.35 * smoothstep(y, 60, 120)) + back * (26 - 0.5 * fat)
    )
    canvas.hu[outer > 0] = -102
    canvas.hu[(outer > 0) & (outer < 2.5)] = -20
    wall = shell + wall_thickness
    back_muscle = 1 - ((np.abs(x) - 34) / 36) ** 2 - ((y - spine + 44) / 25) ** 2
    meat = np.asarray(muscle, np.float32) + 5 * texture(*canvas.grid)
    muscular = ((wall > 0) & (cavity < 0)) | ((back_muscle > 0) & (outer > 4))
    canvas.hu[muscular] = meat[muscular]
    canvas.hu[cavity > 0] = -104
    psoas = 1 - ((np.abs(x) - 36 + 0.05 * z) / (13 + 0.12 * np.clip(-z, 0, 90))) ** 2
    psoas -= ((y - spine + 2) / 24) ** 2
    low = (psoas > 0) & (z < 12)
    canvas.hu[low] = meat[low]
    dome = _diaphragm(rng, x, y)
    _ribs(rng, canvas, shell)
    _spine(rng, canvas)
    _chest(rng, canvas, cavity, dome)
    return Frame(cavity, np.minimum(cavity - 1.5, dome - 3 - z).astype(np.float32))


def _diaphragm(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Height of the diaphragm: two domes, the right one higher, steep toward the back."""
    height, drop = rng.normal(104, 9), rng.normal(11, 5)
    right = ((x - 78) / 92) ** 2 + ((y - 42) / 84) ** 2
    left = ((x + 72) / 88) ** 2 + ((y - 38) / 84) ** 2
    right = height - rng.normal(52, 6) * right
    left = height - drop - rng.normal(52, 6) * left
    middle = height - 12 - 0.004 * (x * x) - 0.007 * (y - 60) ** 2
    return np.maximum(np.maximum(right, left), middle).astype(np.float32)


def _ribs(rng: np.random.Generator, canvas: Canvas, shell: Floats) -> None:
    """Ribs run in the wall, downward from the spine to the flank, and leave the belly free."""
    x, y, z = canvas.x, canvas.y, canvas.z
    pitch, phase, fall = rng.normal(27, 1.5), rng.uniform(0, 27), rng.normal(0.42, 0.05)
    course = z + fall * (y + 40) - 0.1 * np.abs(x)
    off = np.mod(course - phase, pitch) - pitch / 2
    distance = 5.6 - np.sqrt((shell + 5) ** 2 + (0.8 * off) ** 2)
    arch = z - 0.9 * np.clip(y - 30, 0, None) + 22 + 0.2 * np.clip(60 - y, 0, 120)
    # The lowest ribs end at the costal arch, and none crosses the spine's processes.
    bone = (distance > 0) & (arch > 0) & (np.abs(x) > 26) & (y < 128)
    canvas.hu[bone] = np.where(distance > 2.2, rng.uniform(130, 260), rng.uniform(350, 700))[bone]


def _spine(rng: np.random.Generator, canvas: Canvas) -> None:
    """Vertebral bodies with a dense rim, discs, the canal, arches and processes."""
    marrow, rim, disc = rng.uniform(90, 180), rng.uniform(380, 620), rng.uniform(60, 110)
    cancellous = waves(rng, 3, 20, (4, 16))
    box = canvas.box(
        Solid(np.array([-48.0, -130, -400]), np.array([48.0, 60, 400]), lambda x, y, z: x)
    )
    if box is None:
        return
    part = canvas.part(box)
    x, y, z = part.x, part.y - spine_y(part.z), part.z
    level = np.abs(
        np.mod(z + PITCH / 2, PITCH) - PITCH / 2
    )  # mm from the middle of the nearest vertebra
    waist = 1 - 0.1 * smoothstep(level, 12, 0)
    body = (1 - np.sqrt((x / (23 * waist)) ** 2 + (y / (17.5 * waist)) ** 2)) * 18
    inner = np.minimum(body, 12.5 - level)
    hu = part.hu
    inside = body > 0
    grain = cancellous(*part.grid)
    hu[inside] = np.where(level > 12.5, disc, np.where(inner < 1.6, rim, marrow + 22 * grain))[
        inside
    ]
    arch = (1 - np.sqrt((x / 19) ** 2 + ((y + 24) / 15) ** 2)) * 15
    ring = (arch > 0) & (arch < 6) & (level < 11)
    spinous = (np.abs(x) < 4.5) & (y < -34) & (y > -66) & (np.abs(level - 4) < 10)
    across = (np.abs(y + 16) < 5) & (np.abs(x) < 42) & (np.abs(x) > 14) & (level < 6)
    facet = np.hypot(np.abs(x) - 18, y + 30) < 9
    for place, value in (
        (facet, rim * 0.75),
        (ring, rim * 0.8),
        (spinous, rim * 0.7),
        (across, rim * 0.6),
    ):
        hu[place & ~inside] = value
    hu[(arch > 6) & ~inside] = 25


def _chest(rng: np.random.Generator, canvas: Canvas, cavity: Floats, dome: Floats) -> None:
    """Lungs above the diaphragm, the heart and the mediastinum between them."""
    x, y, z = canvas.x, canvas.y, canvas.z
    above = np.minimum(z - dome, cavity - 2)
    vessels = waves(rng, 3, 24, (10, 30))(*canvas.grid)
    lung = above > 0
    density = rng.uniform(-880, -780) + 40 * smoothstep(y, 20, -70)
    tree = np.where(np.abs(vessels) < 0.06, 300, 0)
    canvas.hu[lung] = (density + tree).astype(np.float32)[lung]
    middle = 1 - ((x + 4) / 30) ** 2 - ((y - 20) / 80) ** 2 + 0.12 * vessels
    canvas.hu[lung & (middle > 0)] = -60
    heart = ellipsoid((-26, 84, 138), (66, 54, 50), rotation((0, 14, 20)))
    blood = rng.uniform(40, 160)
    canvas.paint(heart, blood, within=(above + 3,))


def bowel(rng: np.random.Generator, canvas: Canvas, room: Floats, enhanced: float) -> None:
    """Loops of small bowel and the frame of the colon, with gas, fluid, feces or contrast."""
    x, y, z = canvas.x, canvas.y, canvas.z
    loops = waves(rng, 3, 30, (30, 52))(*canvas.grid)
    content = waves(rng, 3, 12, (20, 60))(*canvas.grid)
    region = np.minimum(room - 6, np.minimum(22 - z, 95 - np.abs(x)))
    region = np.minimum(region, y - 38 - 0.1 * np.clip(z, -90, 40))
    gut = (loops > rng.uniform(-0.4, 0.2)) & (region > 0)
    lumen = rng.choice([12.0, 25.0, 220.0], p=[0.45, 0.3, 0.25])
    wall = (40 + 0.45 * enhanced) * smoothstep(loops, 1.1, 0.5)
    fill = wall + lumen * smoothstep(loops, 0.5, 1.1)
    fill = np.where((content > 1.1) & (loops > 0.9) & (y > 75), -850, fill)
    canvas.hu[gut] = fill.astype(np.float32)[gut]

    sag, top = rng.uniform(15, 75), rng.normal(8, 10)
    right, left = rng.normal(104, 5), rng.normal(-112, 5)
    course = shapes("abdomen")["colon"].copy()
    course[:, 0] += [right] * 3 + [0] * 3 + [left] * 4
    course[2:8, 2] += [top, top - sag * 0.6, top - sag, top - sag * 0.3, top, top]
    width = rng.uniform(13, 24) * rng.uniform(0.75, 1.2, 10)
    gas, phase = rng.uniform(-0.6, 1.2), rng.uniform(0, 6)
    mottle = waves(rng, 3, 30, (5, 14))

    def inside(part: Canvas, depth: Floats) -> Floats:
        stool = 20 - 350 * smoothstep(mottle(*part.grid), 0.3, 1.4)
        high = content[box] + 0.02 * (part.y - 60)
        hu = np.where(high > gas, -900, stool)
        return np.where(depth < 3.0, 40 + 0.3 * enhanced, hu).astype(np.float32)

    colon = pipe(course, width, 30)
    smooth = colon.depth
    colon = Solid(
        colon.low,
        colon.high,
        lambda a, b, c: smooth(a, b, c) - 2.5 + 2.5 * np.sin((a + c) * 0.21 + np.float32(phase)),
    )
    box = canvas.box(colon)
    canvas.paint(colon, inside, within=(room,))
