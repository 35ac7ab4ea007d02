"""The teeth of one jaw in projection: outline, enamel, dentine, pulp, caries and fillings.

Sizes follow dental anatomy: molars are 10 to 11 mm and premolars 7 mm wide, crowns 6 to 8 mm high,
enamel is 1 to 1.5 mm thick. Path lengths through elliptic cross-sections make enamel bright at the
rim, as in a film.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drawing import Bools, Floats, dome, smoothstep, soft_min

REACH = 14.0
"""How far from the middle of the film a tooth with caries may stand, mm."""
# Attenuation per millimeter, in units where 8 mm of dentine are 1.
MU_DENTINE, MU_ENAMEL, MU_PULP = 0.12, 0.3, 0.02


@dataclass(frozen=True)
class Row:
    """The teeth of one jaw, lengths in millimeters.

    Parameters are ``(T, 1, 1)``, fields ``(T, rows, columns)``.

    Attributes:
        number: Which tooth of the table it is.
        present: False where a tooth was lost.
        center: Position of the tooth's axis along the jaw.
        width: Half of the tooth's largest width.
        crown: Distance from the cusp tips to the neck.
        multi: Whether the tooth has several cusps (molars).
        enamel: Largest thickness of the enamel.
        contact: Height at which neighbors touch, from the cusp tips.
        depth: Extent from cheek to tongue.
        root: Length of the root.
        pulp: Relative size of the pulp, which shrinks with age.
        across: Position from the axis of the tooth.
        down: Position from the cusp tips toward the root.
        half: Half-width of the outline at that height.
        top: Height of the chewing surface there.
        inside: Signed distance to the outline, positive inside.
    """

    number: tuple[int, ...]
    present: NDArray[np.bool_]
    center: Floats
    width: Floats
    crown: Floats
    multi: NDArray[np.bool_]
    enamel: Floats
    contact: Floats
    depth: Floats
    root: Floats
    pulp: Floats
    across: Floats
    down: Floats
    half: Floats
    top: Floats
    inside: Floats


def place(
    rng: np.random.Generator,
    table: NDArray[np.float64],
    x: Floats,
    depth: Floats,
    start: float,
    lean: float,
) -> Row:
    """Set the teeth of a jaw side by side, each a little different from the textbook.

    Args:
        rng: Source of the variation.
        table: Width, crown height, cusps and roots of the teeth, from the front to the back of the mouth.
        x: ``(rows, columns)`` position along the jaw, mm.
        depth: ``(rows, columns)`` distance from the chewing plane, positive toward the roots, mm.
        start: Where the first tooth begins, mm.
        lean: Mean tilt of the teeth, degrees.
    """
    drawn = _vary(rng, table, start, lean)
    center, width = drawn["center"], drawn["width"]
    # Teeth beyond the film are drawn from the generator all the same, but not computed.
    near = (center > x.min() - width / 2 - 4) & (center < x.max() + width / 2 + 4)
    near |= np.abs(center) < REACH
    each = {
        name: np.asarray(values[near], dtype=np.float32).reshape(-1, 1, 1)
        for name, values in (
            drawn | {"width": width / 2, "end": drawn["crown"] + drawn["root"]}
        ).items()
    }
    present, multi = each["present"] > 0, each["multi"] > 0
    v = depth - each["sink"]
    u = x - each["center"] - each["tilt"] * (v - each["contact"])
    shaping = ("width", "crown", "contact", "neck", "root", "fork", "wear")
    half, notch, top = _profile(u, v, multi, *(each[name] for name in shaping))
    size = np.abs(u)
    side = np.minimum(half - size, np.where(v > each["fork"], size - notch, 9))
    inside = np.minimum(soft_min(side, v - top, 1.5), each["end"] - v)
    kept = ("center", "width", "crown", "enamel", "contact", "depth", "root", "pulp")
    return Row(
        number=tuple(int(i) for i in np.flatnonzero(near)),
        present=present,
        multi=multi,
        across=u,
        down=v,
        half=half,
        top=top,
        inside=np.where(present, inside, np.float32(-9)),
        **{name: each[name] for name in kept},
    )


def _vary(
    rng: np.random.Generator, table: NDArray[np.float64], start: float, lean: float
) -> dict[str, NDArray[Any]]:
    """What is drawn of each tooth of a jaw ``(count)``; see ``Row``."""
    count = len(table)
    several = table[:, 2] > 1
    width = table[:, 0] * rng.normal(1, 0.05) * rng.normal(1, 0.035, count)
    crown = table[:, 1] * rng.normal(1, 0.05) * rng.normal(1, 0.04, count)
    # Negative spaces: neighbors overlap because the beam did not pass between them.
    spaces = rng.normal(-0.2, 0.2, count)
    spaces += np.where(rng.random(count) < 0.06, rng.uniform(0.3, 1.8, count), 0)
    forking = np.where(table[:, 3] == 2, 2.8, 4.6)
    return {  # the order is that of the draws
        "width": width,
        "crown": crown,
        "multi": several,
        "center": start + np.cumsum(width + spaces) - width / 2,
        "tilt": np.tan(np.radians(rng.normal(0, 3, count) + lean + np.linspace(-1, 4, count))),
        "sink": np.clip(rng.normal(0.25, 0.3, count), -0.4, 1.2),
        "contact": crown * rng.uniform(0.3, 0.42, count),
        "wear": rng.uniform(0.2, 1.0) * rng.uniform(0.7, 1.3, count) * np.where(several, 1.0, 1.3),
        "neck": rng.uniform(0.72, 0.85, count),
        "fork": np.where(table[:, 3] == 1, 99.0, crown + forking + rng.uniform(0, 1.5, count)),
        "root": rng.uniform(11.5, 15, count),
        "present": rng.random(count) > np.where(np.arange(count) == 5, 0.3, 0.045),
        "enamel": rng.uniform(1.05, 1.5) * rng.normal(1, 0.06, count),
        "depth": np.where(several, 10.4, 8.6) * rng.normal(1, 0.05, count),
        "pulp": rng.uniform(0.55, 1.25) * rng.uniform(0.8, 1.2, count),
    }


def _profile(
    u: Floats,
    v: Floats,
    several: Bools,
    half: Floats,
    crown: Floats,
    contact: Floats,
    neck: Floats,
    root: Floats,
    fork: Floats,
    wear: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Half-widths of the outline and the notch between the roots, and the chewing surface."""
    upper = np.clip((contact - v) / contact, 0, 1.2)
    below = np.clip((v - crown) / root, 0, 1)
    narrowing = 1 - 0.2 * upper * upper - (1 - neck) * smoothstep(v, contact * 0.9, crown * 1.06)
    square = below * below
    taper = np.where(
        several, 1 - 0.1 * below - 0.5 * square * square, 1 - 0.4 * below - 0.35 * square
    )
    notch = half * 0.4 * np.sqrt(np.clip((v - fork) / 6, 0, 1))
    t = np.clip(u / half, -1.1, 1.1)
    two = 0.5 + 0.5 * np.cos(np.float32(3.7 * np.pi) * t)
    top = wear * np.where(several, two * (0.75 + 0.25 * t * t), t * t)
    return half * narrowing * taper, notch, top


@dataclass(frozen=True)
class Substance:
    """What the teeth are made of; every array ``(T, rows, columns)``.

    Attributes:
        attenuation: Sum of path length times attenuation per millimeter.
        shell: Thickness of the enamel at this height, mm.
        core: Signed distance into the dentine, positive inside, mm.
        pulp: Signed distance into the pulp, positive inside, mm.
    """

    attenuation: Floats
    shell: Floats
    core: Floats
    pulp: Floats


def fill(row: Row) -> Substance:
    """Enamel, dentine and pulp of every tooth, and their attenuation in projection."""
    v = row.down
    # Enamel thins out toward the neck of the tooth and ends there.
    shell = row.enamel * (1 - smoothstep(v, row.crown * 0.5, row.crown))
    core = row.inside - shell
    pulp = np.minimum(_pulp(row), core)
    slope = 1 / (row.depth * 0.16)
    outer = row.depth * np.sqrt(np.clip(row.inside * slope, 0, 1))
    outer *= np.maximum(dome(row.across / np.maximum(row.half, 0.1), 4), 0.3)
    inner = (row.depth - 2 * shell) * np.sqrt(np.clip(core * slope, 0, 1))
    inner *= np.maximum(dome(row.across / np.maximum(row.half - shell, 0.1), 4), 0.3)
    dentine = np.minimum(inner, outer)
    canal = np.clip(pulp * 2.5, 0, 1.3) * 2.6
    attenuation = MU_ENAMEL * (outer - dentine) + MU_DENTINE * (dentine - canal) + MU_PULP * canal
    attenuation = np.where(row.inside > 0, attenuation, 0).astype(np.float32)
    return Substance(attenuation, shell, core, pulp)


def _pulp(row: Row) -> Floats:
    """Signed distance to the pulp: a chamber with horns under the cusps, canals in the roots."""
    size, v = np.abs(row.across), row.down
    young = np.minimum(row.pulp, 1.2)
    width = row.width
    below = np.clip((v - row.crown) / row.root, 0, 1)
    roof = row.crown * (1.02 - 0.4 * young) + 0.7 * row.top
    floor = row.crown + np.where(row.multi, 1.6, 99.0) - v
    wide = width * np.where(row.multi, 0.42, 0.27) * young
    narrow = np.where(row.multi, wide, np.maximum(wide * (1 - 2.4 * below), 0.38))
    chamber = soft_min(soft_min(narrow - size, v - roof, 0.5), floor, 0.5)
    axis = width * (0.28 + 0.24 * below)
    canal = 0.48 * np.sqrt(row.pulp) * (1 - 0.5 * below) - np.abs(size - axis)
    canal = np.where(row.multi & (v > row.crown + 0.8), canal, -9)
    return np.asarray(np.maximum(chamber, canal), dtype=np.float32)


def visible(row: Row) -> list[int]:
    """Teeth that are present and whose axis is near the middle of the film."""
    near = row.present.ravel() & (np.abs(row.center.ravel()) < REACH)
    return [int(i) for i in np.flatnonzero(near)]


def decay(rng: np.random.Generator, row: Row, made: Substance, count: int) -> Bools:
    """Caries: lesions below contact points and under fissures. Thins ``made.attenuation`` in place.

    A proximal lesion is a wedge in the enamel, its base at the surface, and, when it has got through, an ellipse that
    spreads in the dentine below. There are ``count`` lesions, fewer where fewer teeth are visible.

    Returns:
        ``(rows, columns)`` where there is caries.
    """
    mask = np.zeros(row.inside.shape[1:], dtype=bool)
    teeth = visible(row)
    for _ in range(count if teeth else 0):
        i = teeth[int(rng.integers(len(teeth)))]
        side = float(rng.choice([-1.0, 1.0]))
        strength = rng.uniform(0.12, 0.5)
        stage = float(rng.choice([0.75, 1.3, 2.2, 3.6], p=[0.2, 0.25, 0.35, 0.2]))
        reach_in = stage * rng.uniform(0.85, 1.2)
        height = rng.uniform(0.7, 1.2) * (0.75 + 0.28 * reach_in)
        offset, skew = rng.uniform(0.1, 1.2), rng.normal(0, 0.15)
        occlusal = rng.random() < 0.2 and bool(row.multi[i, 0, 0])
        shell = made.shell[i]
        if occlusal:
            lesion = 1 - ((row.across[i] - side * 0.8) / (0.8 * height + 0.5)) ** 2
            lesion -= ((row.down[i] - shell - 1.0) / (0.45 * reach_in + 0.3)) ** 2
        else:
            inward = row.half[i] - side * row.across[i]
            up = row.down[i] - row.contact[i] - np.float32(offset) - np.float32(skew) * inward
            wedge = 1 - np.abs(up) / height - np.clip(inward, 0, None) / (min(reach_in, 1.5) * 1.15)
            deep = max(reach_in - float(row.enamel[i, 0, 0]), 0.0)
            spread = 1 - (up / (1.1 * height)) ** 2 - ((inward - shell * 0.9) / (deep + 1e-3)) ** 2
            spread = np.where((inward > shell * 0.9) & (deep > 0.2), spread, -1)
            lesion = np.maximum(wedge, spread)
        lesion = np.where(row.inside[i] > 0, lesion, -1)
        soft = smoothstep(lesion, -0.35, 0.75)
        made.attenuation[i] *= 1 - np.float32(strength) * soft
        mask |= (lesion > 0) & (made.pulp[i] < 0)
    return mask


def restore(rng: np.random.Generator, row: Row, made: Substance, rate: float) -> Bools:
    """Fillings and crowns of a share ``rate`` of the teeth: opaque metal, or plastic close to enamel.

    Changes ``made.attenuation`` in place.

    Returns:
        ``(rows, columns)`` where there is a restoration.
    """
    mask = np.zeros(row.inside.shape[1:], dtype=bool)
    # One generator per tooth of the table: a tooth beyond the film changes nothing on it.
    sources = rng.spawn(max(row.number) + 1)
    for i, number in enumerate(row.number):
        rng = sources[number]
        restored, kind, side = rng.random() < rate, rng.random(), rng.choice([-1.0, 1.0])
        metal = rng.random() < 0.5
        opacity = (
            rng.uniform(2.2, 5.0)
            if metal
            else float(rng.choice([0.72, 1.25]) + rng.normal(0, 0.08))
        )
        depth, wide, shift = rng.uniform(1.5, 3.2), rng.uniform(0.3, 0.6), rng.normal(0, 0.5)
        angle, box, canal = rng.normal(0, 0.15), rng.uniform(1.2, 2.6), rng.random() < 0.25
        if not (restored and row.present[i, 0, 0]):
            continue
        half = float(row.width[i, 0, 0])
        u, v, inside = row.across[i], row.down[i], row.inside[i]
        shape = soft_min(wide * half - np.abs(u - shift), depth - (v - row.top[i]) + angle * u, 0.8)
        if kind > 0.45:  # reaches a contact surface
            slot = soft_min(side * u - (half - box), row.contact[i] + 1.6 - v, 0.6)
            shape = np.maximum(shape, slot)
        if kind > 0.9:  # a full crown
            shape = row.crown[i] - 0.4 + 0.1 * u * u - v
            opacity, metal = max(opacity, 2.4), True
        if canal and metal:
            shape = np.maximum(shape, np.where(v > row.crown[i] * 0.8, made.pulp[i] + 0.05, -9))
        here = np.minimum(shape, inside) > 0
        tooth = made.attenuation[i]
        made.attenuation[i] = np.where(here, opacity if metal else opacity * tooth, tooth)
        mask |= here
    return mask
