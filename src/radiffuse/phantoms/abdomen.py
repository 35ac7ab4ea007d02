"""Abdominal CT in HU with the thirteen organs of the BTCV challenge, in its names and order.

Axes are right, anterior, superior. The field of view moves along the body from case to case, so
that organs at its ends may be cut or missing. Bowel, heart, lungs, branches of the vessels and the
fat of the kidneys' sinuses are background; what a stomach holds and lesions within an organ belong
to the organ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from . import abdomen_organs as organs
from .abdomen_frame import PITCH, SPINE, VERTEBRAE, Frame, bowel, build
from .abdomen_texture import flesh, quantum_noise
from .drawing import Drawing, Floats, axes, centroids, smoothstep, waves
from .solids import Canvas, Pose, Solid, ellipsoid

CLASSES = organs.CLASSES
FIELD = (380.0, 380.0, 240.0)
"""Field of view in millimeters where no spacing is given."""

# HU of organs without contrast medium, and in the arterial, portal venous and late phase.
# Ranges of textbooks of abdominal CT; each case varies around them.
PHASES = (0.15, 0.2, 0.5, 0.15)
HU = {
    "spleen": (48, 120, 122, 100),
    "kidney": (32, 165, 185, 165),
    "medulla": (32, 75, 170, 175),
    "gallbladder": (8, 8, 8, 9),
    "esophagus": (38, 52, 65, 60),
    "liver": (56, 70, 108, 92),
    "stomach": (38, 70, 75, 65),
    "aorta": (40, 300, 155, 115),
    "vena cava": (38, 75, 130, 112),
    "portal": (40, 105, 165, 118),
    "pancreas": (38, 105, 92, 75),
    "adrenal": (22, 75, 68, 52),
    "muscle": (54, 58, 63, 62),
}


def draw(
    rng: np.random.Generator,
    noise: np.random.Generator,
    size: Sequence[int],
    step: tuple[float, ...],
    *,
    textured: bool = False,
) -> Drawing:
    """One CT volume. See ``registry.Anatomy``; ``textured``: with the flesh and the noise of ``abdomen_texture``."""
    r, a, s = axes(size, step)
    middle = np.array([rng.normal(0, 5), 26 + rng.normal(0, 6), rng.uniform(-14, 24)])
    pose = Pose.random(rng, middle, 3.0)
    shape = (len(r), len(a), len(s))
    x, y, z = pose.body((r, a, s))
    canvas = Canvas(
        np.full(shape, -1000, np.float32), np.zeros(shape, np.uint8), x, y, z, (r, a, s)
    )
    table = _contrast(rng)
    frame = build(rng, canvas, table["muscle"])
    bowel(rng, canvas, frame.abdomen, max(table["aorta"] - 40, 0) * 0.3)
    _organs(rng, canvas, frame, table)
    _couch(rng, canvas)
    texture = waves(rng, 3, 20, (7, 40))(r, a, s)
    tissue = smoothstep(np.abs(canvas.hu - 60), 240, 180)
    image = canvas.hu + np.float32(rng.uniform(1, 4)) * texture * tissue
    if textured:
        image += flesh(noise, canvas) * tissue
    image = _scan(rng, image, step)
    level, grain = float(np.exp(rng.uniform(np.log(4), np.log(24)))), float(rng.uniform(0.45, 0.8))
    grains = quantum_noise(noise, size, step) if textured else level * _grains(noise, size, grain)
    central = 0.7 + 0.5 * np.exp(-(canvas.x**2 + (canvas.y - 25) ** 2) / 110**2)
    image = np.clip(image + central * grains, -1024, 3071).astype(np.float32)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * d for n, d in zip(size, step, strict=True)]
    landmarks = _landmarks(canvas.label, affine, pose)
    return Drawing(image, canvas.label, CLASSES, step, landmarks, affine)


def _contrast(rng: np.random.Generator) -> dict[str, float]:
    """HU of every organ in one patient: phase of the contrast medium, timing, fatty liver."""
    phase = int(rng.choice(4, p=PHASES))
    blend = rng.uniform(0, 0.3)
    other = min(phase + 1, 3) if phase else 0
    table = {}
    for name, values in HU.items():
        value = (1 - blend) * values[phase] + blend * values[other]
        plain = values[0]
        table[name] = float(plain + (value - plain) * rng.normal(1, 0.1) + rng.normal(0, 4))
    if rng.random() < 0.25:
        table["liver"] -= rng.uniform(10, 45)
    return table


def _organs(rng: np.random.Generator, canvas: Canvas, frame: Frame, hu: dict[str, float]) -> None:
    """Paint the organs; later ones win over earlier ones where they touch."""
    room = (frame.abdomen,)
    value = CLASSES.index
    stomach, liver, spleen = organs.stomach(rng), organs.liver(rng), organs.spleen(rng)
    level, gas, fluid = (
        rng.normal(92, 16),
        rng.uniform(-970, -850),
        float(rng.choice([8, 30, 190], p=[0.4, 0.4, 0.2])),
    )

    def bag(part: Canvas, depth: Floats) -> Floats:
        content = np.where(part.y > level, gas, fluid)
        return np.where(depth < 4.5, hu["stomach"], content).astype(np.float32)

    canvas.paint(organs.duodenum(rng), 0.5 * (fluid + hu["stomach"]), within=room, fat=1.5)
    canvas.paint(stomach, bag, value("stomach"), within=room, fat=1.5)
    canvas.paint(spleen, hu["spleen"], value("spleen"), within=room, fat=1.0)
    canvas.paint(liver, hu["liver"], value("liver"), within=room, fat=1.0)
    _inside_liver(rng, canvas, hu)
    lumen = float(rng.choice([hu["esophagus"], -700.0], p=[0.65, 0.35]))

    def gullet(part: Canvas, depth: Floats) -> Floats:
        return np.where(depth < 4.5, hu["esophagus"], lumen).astype(np.float32)

    canvas.paint(organs.esophagus(rng), gullet, value("esophagus"), within=(frame.cavity,), fat=1.0)
    for name, side in (("right kidney", 1.0), ("left kidney", -1.0)):
        _kidney(rng, canvas, frame, hu, name, side)
    vein, joining, meet = organs.portal(rng)
    for tributary in joining:
        _vessel_in_liver(canvas, tributary, hu["portal"], frame)
    canvas.paint(
        organs.pancreas(rng, meet), hu["pancreas"], value("pancreas"), within=room, fat=1.5
    )
    canvas.paint(vein, hu["portal"], value("portal and splenic veins"), within=room)
    trunk, branches = organs.aorta(rng)
    for branch in branches:
        canvas.paint(branch, hu["aorta"], within=(frame.cavity,))
    canvas.paint(
        organs.vena_cava(rng),
        hu["vena cava"],
        value("inferior vena cava"),
        within=(frame.cavity,),
        fat=1.0,
    )
    plaque, amount = waves(rng, 3, 16, (8, 20)), rng.choice([9.0, 2.2, 1.4])

    def artery(part: Canvas, depth: Floats) -> Floats:
        calcium = (depth < 2.2) & (plaque(*part.grid) > amount)
        return np.where(calcium, 500, hu["aorta"]).astype(np.float32)

    canvas.paint(trunk, artery, value("aorta"), within=(frame.cavity,), fat=1.0)
    if rng.random() > 0.06:  # a few patients have lost their gallbladder
        canvas.paint(organs.gallbladder(rng), hu["gallbladder"], value("gallbladder"), within=room)
    for name, side in (("right adrenal", 1.0), ("left adrenal", -1.0)):
        canvas.paint(
            organs.adrenal(rng, side), hu["adrenal"], value(name), within=(frame.cavity,), fat=1.5
        )


def _vessel_in_liver(canvas: Canvas, vessel: Solid, hu: float, frame: Frame) -> None:
    """A vessel that keeps the label of the liver inside the liver, and has none outside."""
    box = canvas.box(vessel)
    if box is None:
        return
    part = canvas.part(box)
    inside = (vessel.depth(part.x, part.y, part.z) > 0) & (frame.abdomen[box] > 0)
    part.hu[inside] = hu
    part.label[inside & (part.label != CLASSES.index("liver"))] = 0


def _inside_liver(rng: np.random.Generator, canvas: Canvas, hu: dict[str, float]) -> None:
    """Hepatic veins, cysts and metastases; all of them are liver in the label."""
    liver = CLASSES.index("liver")
    filled = 0.3 * hu["vena cava"] + 0.7 * hu["portal"]
    spots = [(vein, filled) for vein in organs.hepatic_veins(rng)]
    kind = rng.choice([8.0, hu["liver"] - rng.uniform(25, 50), hu["liver"] + 40])
    for _ in range(int(rng.choice([0, 0, 0, 1, 3, 6]))):
        center = (rng.uniform(10, 140), rng.uniform(-20, 110), rng.uniform(-30, 85))
        spots.append(
            (ellipsoid(center, rng.uniform(4, 17) * rng.uniform(0.8, 1.2, 3)), float(kind))
        )
    for solid, value in spots:
        box = canvas.box(solid)
        if box is None:
            continue
        part = canvas.part(box)
        inside = (solid.depth(part.x, part.y, part.z) > 0) & (part.label == liver)
        part.hu[inside] = value


def _kidney(
    rng: np.random.Generator,
    canvas: Canvas,
    frame: Frame,
    hu: dict[str, float],
    name: str,
    side: float,
) -> None:
    """A kidney in its fat, with a bright cortex, medullary pyramids, a sinus, and cysts in some."""
    whole, sinus = organs.kidney(rng, side)
    pyramids = waves(rng, 3, 10, (16, 30))
    cyst = whole.low + rng.uniform(0.2, 0.8, 3) * (whole.high - whole.low)
    radius, sick = rng.uniform(5, 20), rng.random() < 0.25
    ball = ellipsoid(cyst, np.full(3, radius))

    def flesh(part: Canvas, depth: Floats) -> Floats:
        inner = smoothstep(depth + 1.5 * pyramids(*part.grid), 5.5, 8.0)
        value = hu["kidney"] + (hu["medulla"] - hu["kidney"]) * inner
        if sick:
            value = np.where(ball.depth(part.x, part.y, part.z) > 0, 6, value)
        return value.astype(np.float32)

    bounds = (frame.cavity + 14,)
    canvas.paint(whole, flesh, CLASSES.index(name), within=bounds, fat=float(rng.uniform(2, 8)))
    canvas.paint(sinus, -55.0, within=bounds)


def _couch(rng: np.random.Generator, canvas: Canvas) -> None:
    """The patient table: two thin curved sheets behind the back."""
    r, a = canvas.grid[0][:, None, None], canvas.grid[1][None, :, None]
    back = float(canvas.grid[1][0])
    solid = (canvas.hu > -900).any(axis=(0, 2))
    if solid.any():
        back = float(canvas.grid[1][int(np.argmax(solid))])
    sheet = a - (back - 5 + 0.0006 * r * r)
    thin = np.maximum(canvas.grid[1][1] - canvas.grid[1][0], 3.0) / 2
    top = (np.abs(sheet) < thin) & (canvas.hu < -900)
    canvas.hu[top] = rng.uniform(-700, -300)


def _scan(rng: np.random.Generator, image: Floats, step: Sequence[float]) -> Floats:
    """The finite resolution of the scanner."""
    sharpness = rng.uniform(0.35, 0.9)
    sigma = [max(0.35, sharpness / s) for s in step]
    return np.asarray(ndimage.gaussian_filter(image, sigma, truncate=3), np.float32)


def _grains(noise: np.random.Generator, size: Sequence[int], grain: float) -> Floats:
    """Noise of unit variance, correlated over a voxel whatever its size."""
    white = noise.standard_normal(size, dtype=np.float32)
    fine = ndimage.gaussian_filter(white, (grain, grain, 0.3), truncate=3)
    # Filtered back projection suppresses low frequencies: subtract them from the noise.
    fine -= 0.7 * ndimage.gaussian_filter(fine, (2 * grain, 2 * grain, 0.0), truncate=3)
    return np.asarray(fine / fine.std(), np.float32)


def _landmarks(
    label: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    affine: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    pose: Pose,
) -> dict[str, tuple[float, ...]]:
    """Centers of organs and of vertebral bodies in the field of view, in world coordinates."""
    found: dict[str, tuple[float, ...]] = {}
    for name, index in centroids(label, CLASSES).items():
        found[name] = tuple(float(v) for v in affine[:3, :3] @ index + affine[:3, 3])
    edge = np.abs(affine[:3, 3])
    for name, above in VERTEBRAE.items():
        z = above * PITCH
        place = pose.world((0.0, float(np.interp(z, SPINE[:, 0], SPINE[:, 1])), z))
        if np.all(np.abs(place) <= edge):
            found[f"vertebra {name}"] = tuple(float(v) for v in place)
    return found
