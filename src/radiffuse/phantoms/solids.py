"""Solids in a body's own frame, and a canvas of voxels to paint them on.

A solid is a function that is positive inside, in millimeters near its surface, with a box that
holds it. Only the voxels of that box are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .drawing import Floats, Waves, curve, soft_min, tube, waves

Point = NDArray[np.float64]
Vector = Sequence[float] | Point
Field = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class Solid:
    """A closed shape.

    Attributes:
        low: Lower corner of a box that holds it, mm.
        high: Upper corner.
        depth: Signed distance, positive inside, from arrays of x, y and z.
    """

    low: Point
    high: Point
    depth: Field

    def minus(self, other: Solid, rounding: float = 4.0) -> Solid:
        """This solid without ``other``."""
        return Solid(
            self.low,
            self.high,
            lambda x, y, z: soft_min(self.depth(x, y, z), -other.depth(x, y, z), rounding),
        )

    def plus(self, other: Solid, rounding: float = 4.0) -> Solid:
        """Both solids as one, with a smooth seam."""
        return Solid(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            lambda x, y, z: -soft_min(-self.depth(x, y, z), -other.depth(x, y, z), rounding),
        )

    def cut(self, point: Vector, normal: Vector, rounding: float = 10.0) -> Solid:
        """The part of this solid on the side of a plane that ``normal`` points to."""
        n = np.asarray(normal) / np.linalg.norm(normal)
        shift = float(n @ np.asarray(point))
        a, b, c, d = (np.float32(v) for v in (*n, shift))
        return Solid(
            self.low,
            self.high,
            lambda x, y, z: soft_min(self.depth(x, y, z), a * x + b * y + c * z - d, rounding),
        )


def ellipsoid(center: Vector, radii: Vector, turn: Point | None = None) -> Solid:
    """An ellipsoid, turned by the rotation matrix ``turn``."""
    middle, half = np.asarray(center, dtype=np.float64), np.asarray(radii, dtype=np.float64)
    matrix = ((np.eye(3) if turn is None else turn).T / half[:, None]).astype(np.float32)
    reach = np.full(3, half.max()) if turn is not None else half
    small = np.float32(half.min())
    cx, cy, cz = (np.float32(v) for v in middle)

    def depth(x: Floats, y: Floats, z: Floats) -> Floats:
        dx, dy, dz = x - cx, y - cy, z - cz
        square = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
        for row in matrix:
            square += (row[0] * dx + row[1] * dy + row[2] * dz) ** 2
        return np.asarray((1 - np.sqrt(square)) * small, dtype=np.float32)

    return Solid(middle - reach, middle + reach, depth)


def pipe(
    points: Sequence[Vector] | Point,
    radii: Vector,
    count: int = 12,
    squash: Sequence[float] = (1.0, 1.0, 1.0),
) -> Solid:
    """A tube along a smooth curve; ``squash`` widens its cross-section along each axis."""
    line = curve(np.asarray(points, dtype=np.float64), count)
    knots = np.linspace(0, 1, len(radii))
    width = np.interp(np.linspace(0, 1, count), knots, np.asarray(radii, dtype=np.float64))
    factor = np.asarray(squash, dtype=np.float64)
    scaled = line / factor
    reach = width[:, None] * factor
    fx, fy, fz = (np.float32(1 / f) for f in factor)
    return Solid(
        (line - reach).min(axis=0),
        (line + reach).max(axis=0),
        lambda x, y, z: tube((x * fx, y * fy, z * fz), scaled, width),
    )


def rotation(degrees: Vector) -> Point:
    """Rotation about x, then y, then z."""
    (a, b, c), s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, a, -s[0]], [0, s[0], a]])
    about_y = np.array([[b, 0, s[1]], [0, 1, 0], [-s[1], 0, b]])
    about_z = np.array([[c, -s[2], 0], [s[2], c, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


@dataclass(frozen=True)
class Pose:
    """How a body lies in the scanner: body = turn.T (world - shift) / scale + bend(world).

    Attributes:
        shift: World position of the body's origin, mm.
        scale: Size of the body along its own axes.
        turn: Rotation matrix.
        bend: One smooth field per axis.
        strength: Standard deviation of the bend along each axis, mm.
    """

    shift: Point
    scale: Point
    turn: Point
    bend: tuple[Waves, ...]
    strength: Point

    @staticmethod
    def random(rng: np.random.Generator, middle: Point, strength: float) -> Pose:
        """A pose that puts the body's point ``middle`` into the world's origin."""
        scale = rng.normal(1, 0.05) * rng.normal(1, 0.035, 3)
        turn = rotation(rng.normal(0, (1.5, 1.5, 3.5)))
        bend = tuple(waves(rng, 3, 6, (90, 260)) for _ in range(3))
        shift = -turn @ (np.asarray(middle) * scale)
        return Pose(shift, scale, turn, bend, strength * rng.uniform(0.5, 1.2, 3))

    def straight(self, grid: Sequence[Floats]) -> list[Floats]:
        """Body coordinates on the grid, before the bend."""
        x, y, z = np.meshgrid(*grid, indexing="ij", sparse=True)
        matrix = (self.turn.T / self.scale[:, None]).astype(np.float32)
        back = matrix @ self.shift.astype(np.float32)
        return [
            row[0] * x + row[1] * y + row[2] * z - b for row, b in zip(matrix, back, strict=True)
        ]

    def body(self, grid: Sequence[Floats]) -> list[Floats]:
        """Body coordinates of every voxel of the grid that the world's axes span."""
        return [
            part + np.float32(s) * wave(*grid)
            for part, s, wave in zip(self.straight(grid), self.strength, self.bend, strict=True)
        ]

    def world(self, point: Sequence[float]) -> Point:
        """Where a point of the body lies in the world; fixed-point iteration undoes the bend."""
        target = np.asarray(point, dtype=np.float64)
        here = self.turn @ (target * self.scale) + self.shift
        for _ in range(12):
            grid = [np.array([v], dtype=np.float32) for v in here]
            push = self.strength * [float(wave(*grid).item()) for wave in self.bend]
            here = self.turn @ ((target - push) * self.scale) + self.shift
        return np.asarray(here)


Box = tuple[slice, slice, slice]


@dataclass
class Canvas:
    """Voxels being painted.

    Attributes:
        hu: ``(R, A, S)`` CT numbers in HU.
        label: ``(R, A, S)`` label values.
        x: Body coordinate of every voxel, left to right.
        y: Posterior to anterior.
        z: Inferior to superior.
        grid: World coordinates along each axis, mm.
    """

    hu: Floats
    label: NDArray[np.uint8]
    x: Floats
    y: Floats
    z: Floats
    grid: tuple[Floats, Floats, Floats]

    @cached_property
    def ranges(self) -> list[tuple[Floats, Floats]]:
        """Lowest and highest body coordinate in each slab of voxels, per axis."""
        found = []
        for axis, values in enumerate((self.x, self.y, self.z)):
            others = tuple(a for a in range(3) if a != axis)
            found.append((values.min(axis=others), values.max(axis=others)))
        return found

    def part(self, box: Box) -> Canvas:
        """The voxels of ``box``; painting them paints this canvas."""
        r, a, s = box
        grid = (self.grid[0][r], self.grid[1][a], self.grid[2][s])
        return Canvas(self.hu[box], self.label[box], self.x[box], self.y[box], self.z[box], grid)

    def box(self, solid: Solid, margin: float = 0.0) -> Box | None:
        """The voxels that may lie within ``margin`` mm of ``solid``; None where there are none."""
        slices: list[slice] = []
        for (least, most), low, high in zip(self.ranges, solid.low, solid.high, strict=True):
            hit = np.flatnonzero((most >= low - margin) & (least <= high + margin))
            if not len(hit):
                return None
            slices.append(slice(int(hit[0]), int(hit[-1]) + 1))
        return slices[0], slices[1], slices[2]

    def paint(
        self,
        solid: Solid,
        value: float | Callable[[Canvas, Floats], Floats],
        label: int = 0,
        *,
        within: Sequence[Floats] = (),
        fat: float = 0.0,
    ) -> None:
        """Fill a solid.

        Args:
            solid: The shape.
            value: HU, or a function of (canvas cut to the box, signed distance) that gives them.
            label: Label value of the inside.
            within: Signed distances, ``(R, A, S)``, that bound the shape.
            fat: Thickness in mm of a layer of fat that keeps neighbors away.
        """
        box = self.box(solid, fat)
        if box is None:
            return
        part = self.part(box)
        depth = solid.depth(part.x, part.y, part.z)
        for bound in within:
            depth = np.minimum(depth, bound[box])
        if fat:
            halo = depth > -fat
            for bound in within:
                halo &= bound[box] > 0
            part.hu[halo] = -100.0
            part.label[halo] = 0
        inside = depth > 0
        if callable(value):
            part.hu[inside] = value(part, depth)[inside]
        else:
            part.hu[inside] = value
        part.label[inside] = label
