"""What is seen in lungs besides the lungs: vessels, disease, and wires and tubes of the ward."""

from __future__ import annotations

import numpy as np

from .drawing import Floats, curve, line, smoothstep, tube, waves
from .thorax import Thorax


def vessels(rng: np.random.Generator, x: Floats, y: Floats, pixel: float) -> Floats:
    """Attenuation of the hila and of the vessels that fan out from them and fork."""
    total = np.zeros(x.shape, np.float32)
    opacity = rng.uniform(0.05, 0.16)
    for sign in (-1.0, 1.0):
        root = np.array([sign * rng.normal(36, 3), rng.normal(-2 - 8 * (sign > 0), 6)])
        total += 0.5 * np.exp(-(((x - root[0]) / 12) ** 2) - ((y - root[1]) / 22) ** 2)
        for angle in np.linspace(-1.25, 1.35, 9) + rng.normal(0, 0.12, 9):
            length, bend = rng.uniform(55, 105), rng.normal(0.25, 0.2)
            for turn, share in ((0.0, 1.0), (rng.choice([-0.45, 0.45]), 0.8)):
                way = angle + turn + bend * np.array([0, 0.3, 0.8])
                step = length * share / 3 * np.stack([sign * np.cos(way), np.sin(way)], axis=1)
                points = root + np.concatenate([[[0, 0]], np.cumsum(step, axis=0)])
                thickness = rng.uniform(3.2, 4.6) * share * np.array([1.0, 0.66, 0.4, 0.15])
                branch = tube((x, y), points, thickness)
                total += 0.55 * share * smoothstep(branch, -0.5 * pixel, 2.0)
    return np.asarray(opacity * np.minimum(total, 1.6), dtype=np.float32)


def opacities(
    rng: np.random.Generator, x: Floats, y: Floats, rows: Floats, columns: Floats, body: Thorax
) -> Floats:
    """Share of the air that is gone, 0 to 1: consolidation, nodules, effusion, reticulation."""
    gone = np.zeros(x.shape, np.float32)
    cloud = waves(rng, 2, 24, (8, 45))(rows, columns)
    net = waves(rng, 2, 40, (5, 14))(rows, columns)
    sick = rng.random(4) < (0.45, 0.25, 0.2, 0.35)
    for _ in range(int(rng.integers(1, 6))):
        cx, cy = rng.choice([-1, 1]) * rng.uniform(45, 125), rng.uniform(-95, 95)
        a, b, much = rng.uniform(12, 45), rng.uniform(12, 45), rng.uniform(0.2, 0.85)
        patch = np.exp(-(((x - cx) / a) ** 2) - ((y - cy) / b) ** 2)
        if sick[0]:
            gone = np.maximum(gone, much * smoothstep(patch + 0.12 * cloud * patch, 0.1, 0.9))
    for _ in range(int(rng.integers(1, 5))):
        cx, cy = rng.choice([-1, 1]) * rng.uniform(45, 125), rng.uniform(-100, 80)
        radius, much = rng.uniform(4, 16), rng.uniform(0.2, 0.6)
        if sick[1]:
            gone = np.maximum(
                gone, much * smoothstep(np.hypot(x - cx, y - cy), radius, radius * 0.6)
            )
    sign, level, rim = rng.choice([-1.0, 1.0]), rng.uniform(5, 75), rng.uniform(20, 60)
    if sick[2]:  # fluid settles at the base and climbs along the wall
        wall = body.outer - body.side
        surface = level + rim * np.exp(-np.clip(wall, 0, None) / 14)
        fluid = smoothstep(body.below + surface, -6, 10) * (np.float32(sign) * x > 0)
        gone = np.maximum(gone, rng.uniform(0.6, 0.95) * fluid)
    if sick[3]:
        base = smoothstep(y, rng.uniform(-120, 0), 90)
        gone = np.maximum(gone, rng.uniform(0.1, 0.35) * base * smoothstep(np.abs(net), 0.5, 0.05))
    return np.clip(gone, 0, 1)


def devices(rng: np.random.Generator, x: Floats, y: Floats, pixel: float) -> Floats:
    """Attenuation of electrode leads, tubes and a pacemaker. None of them is labelled."""
    total = np.zeros(x.shape, np.float32)
    for _ in range(int(rng.choice([0, 0, 0, 1, 2, 4]))):
        ends = np.array(
            [
                [rng.choice([-1, 1]) * rng.uniform(60, 150), rng.uniform(-110, 90)],
                [rng.uniform(-90, 90), rng.uniform(-60, 110)],
                [rng.choice([-1, 1]) * rng.uniform(120, 220), rng.uniform(0, 200)],
            ]
        )
        wire = tube((x, y), curve(ends, 14), np.full(14, 0.0))
        total += rng.uniform(0.1, 0.3) * line(wire, 1.4, pixel)
        total += 0.3 * smoothstep(np.hypot(x - ends[0, 0], y - ends[0, 1]), 6, 4)
    if rng.random() < 0.15:  # a tube in the windpipe, a catheter in a great vein
        depth, bend = rng.uniform(-80, -45), rng.normal(0, 3)
        points = np.array([[bend, -230], [-bend, -140], [0, depth]])
        wall = np.abs(tube((x, y), points, np.full(3, 5.0)))
        total += 0.12 * line(wall, 1.5, pixel)
        points = curve([[-120, -150], [-70, -112], [-24, -70], [-22, rng.uniform(-10, 40)]], 14)
        total += 0.14 * line(tube((x, y), points, np.zeros(14)), 1.6, pixel)
    if rng.random() < 0.08:
        cx, cy = rng.choice([-1.0, 1.0]) * rng.normal(100, 10), rng.normal(-75, 8)
        case = 1 - np.abs((x - cx) / 24) ** 3 - np.abs((y - cy) / 20) ** 3
        total += 0.7 * smoothstep(case, 0, 0.2)
        points = curve([[cx, cy - 12], [cx * 0.5, -110], [-20, -40], [rng.uniform(10, 60), 80]], 16)
        total += 0.35 * line(tube((x, y), points, np.zeros(16)), 2.0, pixel)
    return np.asarray(total, dtype=np.float32)
