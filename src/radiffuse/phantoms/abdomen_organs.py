"""The shapes of the thirteen organs of the BTCV challenge.

They lie in the body's frame (see ``abdomen_frame``), in millimeters. Positions and sizes are those
of an average adult's CT: a liver of about 1.5 l, kidneys 11 cm long, a spleen of 0.2 l, an aorta 2
cm wide. Each call draws another patient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .drawing import Floats, Waves, shapes, waves
from .solids import Point, Solid, Vector, ellipsoid, pipe, rotation

CLASSES = (
    "background", "spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver",
    "stomach", "aorta", "inferior vena cava", "portal and splenic veins", "pancreas",
    "right adrenal", "left adrenal",
)  # fmt: skip


def _near(rng: np.random.Generator, point: Vector, amount: float = 4.0) -> Point:
    return np.asarray(point) + rng.normal(0, amount, 3)


def _course(
    rng: np.random.Generator, organ: str, amount: float = 3.0, moved: Point | float = 0.0
) -> Point:
    """An organ's center line, ``moved`` and then shifted as a whole and bent a little."""
    table = shapes("abdomen")[organ] + moved
    return table + rng.normal(0, amount, 3) + rng.normal(0, amount / 2, table.shape)


def _from(start: Point, *steps: Sequence[float]) -> Point:
    """A center line that begins at ``start``; the others are given relative to it."""
    return start + np.array([(0, 0, 0), *steps], dtype=np.float64)


def rough(solid: Solid, field: Waves, amount: float) -> Solid:
    """A solid with an uneven surface; ``field`` is a function of body coordinates."""
    frequency = field.frequency.astype(np.float32)

    def depth(x: Floats, y: Floats, z: Floats) -> Floats:
        total = np.zeros(x.shape, np.float32)
        for (a, b, c), phase in zip(frequency, field.phase, strict=True):
            total += np.sin(a * x + b * y + c * z + np.float32(phase))
        bumps = np.float32(amount * field.amplitude[0]) * total
        return np.asarray(solid.depth(x, y, z) + bumps, dtype=np.float32)

    return Solid(solid.low - 2 * amount, solid.high + 2 * amount, depth)


def liver(rng: np.random.Generator) -> Solid:
    """A large right lobe under the dome, a left one across the midline, a flat lower face."""
    size = rng.normal(1, 0.08)
    tip, left = rng.normal(1, 0.15), rng.normal(1, 0.2)
    right = ellipsoid(_near(rng, (84, 34, 28), 5), np.array([88, 98, 88 * tip]) * size)
    face = np.array([0.75, 0.1, 0.6]) + rng.normal(0, 0.07, 3)
    right = right.cut(_near(rng, (34, 30, 8), 5), face, 18)
    lobe = ellipsoid(
        _near(rng, (14, 92, 56), 5),
        np.array([86 * left, 46, 42]) * size,
        rotation(rng.normal((0, 14, 0), 6)),
    )
    whole = right.plus(lobe.cut((0, 62, 20), (0.1, 0.5, 0.8), 12), 22)
    return rough(whole, waves(rng, 3, 5, (45, 110)), 2.5)


def spleen(rng: np.random.Generator) -> Solid:
    """A crescent behind the stomach, hollow toward the left kidney."""
    size = np.exp(rng.normal(0.0, 0.13))
    center = _near(rng, (-106, -8, 24), 6)
    turn = rotation(rng.normal((0, 8, -14), 9))
    whole = ellipsoid(center, np.array([38, 60, 54]) * size * rng.normal(1, 0.06, 3), turn)
    hollow = ellipsoid(center + _near(rng, (46, 18, -4), 4), (36, 52, 58))
    return rough(whole.minus(hollow, 12), waves(rng, 3, 5, (30, 80)), 1.8)


def kidney(rng: np.random.Generator, side: float) -> tuple[Solid, Solid]:
    """A kidney and its sinus; ``side`` is 1 for the right one, which lies lower, else -1."""
    low = -32 if side > 0 else -20
    center = _near(rng, (side * 66, 0, low), 6)
    size = rng.normal(1, 0.08) * rng.normal(1, 0.05, 3)
    turn = rotation((rng.normal(12, 5), side * rng.normal(13, 5), -side * rng.normal(28, 10)))
    whole = ellipsoid(center, np.array([27, 30, 55]) * size, turn)
    inward = turn @ np.array([-side * 17, 5, 0])
    sinus = ellipsoid(center + inward, np.array([16, 9, 27]) * size, turn)
    return rough(whole, waves(rng, 3, 4, (25, 60)), 1.2), sinus


def gallbladder(rng: np.random.Generator) -> Solid:
    """A pear under the liver, empty or full."""
    full = rng.uniform(0.6, 1.35)
    points = _course(rng, "gallbladder", 5)
    return pipe(points, np.array([4.0, 11, 15, 12]) * full)


def esophagus(rng: np.random.Generator) -> Solid:
    """From the chest, in front of the aorta, into the stomach."""
    points = _course(rng, "esophagus")
    return pipe(points, np.array([8.5, 8, 8.5, 9, 10]) * rng.normal(1, 0.12), squash=(1.15, 0.9, 1))


def stomach(rng: np.random.Generator) -> Solid:
    """A bent bag from the left dome across the midline, empty or full."""
    full, sag = rng.uniform(0.65, 1.2), rng.normal(0, 12)
    moved = np.zeros((6, 3))
    moved[3:5, 2] = -sag, -sag * 0.7
    points = _course(rng, "stomach", 5, moved)
    bag = pipe(points, np.array([27, 36, 32, 25, 20, 9]) * np.array([1, *[full] * 4, 1]), 14)
    return rough(bag, waves(rng, 3, 5, (25, 60)), 2.0)


def aorta(rng: np.random.Generator) -> tuple[Solid, list[Solid]]:
    """The aorta down to where it forks, and its branches, which have no label."""
    drift, width = rng.normal(0, 3), np.exp(rng.normal(0, 0.1))
    moved = np.zeros((8, 3))
    moved[3:7, 0] = drift
    points = _course(rng, "aorta", 1.5, moved)
    trunk = pipe(points, np.array([12.5, 12, 11.5, 11, 10.5, 10, 9.5, 9.5]) * width, 16)
    fork, root = points[-1], points[3]
    branches = [
        pipe(_from(fork, (s * 14, -2, -24), (s * 36, -8, -70)), [6.5, 6, 5.5], 5)
        for s in (-1.0, 1.0)
    ]
    celiac = _from(root, (2, 14, 4), (10, 20, 6), (28, 22, 14))
    mesenteric = _from(points[4], (2, 14, -6), (4, 24, -30), (6, 24, -80))
    branches += [pipe(celiac, [3.5, 3, 2.5], 6), pipe(mesenteric, [4, 3.8, 3], 8)]
    return trunk, branches


def vena_cava(rng: np.random.Generator) -> Solid:
    """From the iliac veins, right of the aorta, through the back of the liver to the heart."""
    flat = rng.uniform(0.62, 1.0)
    points = _course(rng, "vena cava", 2.0)
    width = rng.normal(1, 0.1) * np.array([11, 11, 11.5, 12, 12.5, 13, 13, 13])
    return pipe(points, width, 14, squash=(1.1, flat, 1))


def portal(rng: np.random.Generator) -> tuple[Solid, list[Solid], Point]:
    """Splenic and portal vein, unlabelled veins that join them, and the points of junction."""
    points = _course(rng, "portal", 2.0)
    width = rng.normal(1, 0.1) * np.array([3.5, 4, 4.3, 4.8, 6.8, 7.2, 6.6, 5])
    vein = pipe(points, width, 20)
    meet, hilum = points[4], points[7]
    right = pipe(_from(hilum, (24, -2, 4), (44, -16, 8)), [5, 3.8, 2.2], 6)
    left = pipe(_from(points[6], (-14, 18, 14), (-34, 30, 20)), [4.5, 3.5, 2], 6)
    mesenteric = pipe(_from(meet, (2, 4, -30), (4, 6, -85)), [5.8, 5.2, 4.2], 6)
    return vein, [right, left, mesenteric], points[3:6]


def hepatic_veins(rng: np.random.Generator) -> list[Solid]:
    """Three veins that meet at the vena cava under the dome. Liver in the label."""
    ends = ((118, 30, 34), (78, 92, 40), (4, 100, 52))
    return [
        pipe(
            [(20, 50, 88), _near(rng, np.asarray(end) * 0.5 + (10, 25, 46), 4), _near(rng, end, 8)],
            [5.2, 4, 1.6],
            6,
        )
        for end in ends
    ]


def pancreas(rng: np.random.Generator, meet: Point) -> Solid:
    """Head in the duodenum's loop, body in front of the splenic vein, tail toward the spleen."""
    front = meet[1] + np.array([0, 13, -4])
    head = _from(front, (28, -12, -26), (22, -6, -10), (-20, -4, 8))[[1, 2, 0, 3]]
    points = np.concatenate([head, [(-46, 48, 15), (-68, 28, 18), (-84, 14, 19)]])
    points = points + rng.normal(0, 2, points.shape)
    width = rng.normal(1, 0.13) * np.array([15, 14, 8.5, 9, 9.5, 9, 7])
    lobes = waves(rng, 3, 6, (9, 24))
    return rough(pipe(points, width, 16, squash=(1, 0.9, 1.15)), lobes, rng.uniform(0.5, 1.4))


def duodenum(rng: np.random.Generator) -> Solid:
    """The loop around the head of the pancreas. It has no label."""
    points = _course(rng, "duodenum")
    return pipe(points, rng.uniform(9, 13) * np.array([0.9, 1, 1.05, 1, 1, 0.9]), 14)


def adrenal(rng: np.random.Generator, side: float) -> Solid:
    """A thin, tall, forked leaf above the kidney."""
    if side > 0:
        top, middle, ends = (30, 27, 24), (33, 16, 20), ((42, 2, 14), (29, 1, 14))
    else:
        top, middle, ends = (-36, 34, 26), (-40, 22, 20), ((-53, 8, 14), (-36, 6, 14))
    shift = rng.normal(0, 2.5, 3)
    width = rng.uniform(2.4, 3.4)
    stretch = (1.0, 1.0, rng.uniform(2.8, 3.8))
    stem = np.array([top, middle], dtype=np.float64) + shift
    whole: Solid | None = None
    for end in ends:
        limb = pipe(
            [stem[0], stem[1], np.asarray(end) + shift],
            [width, width * 1.1, width * 0.8],
            6,
            stretch,
        )
        whole = limb if whole is None else whole.plus(limb, 1.0)
    assert whole is not None, "an adrenal has two limbs"
    return whole
