"""The house as a picture: floors, rooms, and the path of one scan and of one batch through them.

``python tools/house.py docs/images/house.svg`` draws it, ``--check`` says whether the file is up to date. The floors
are also the rule that ``tests/test_imports.py`` holds; what a room is for is the first sentence of its package.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

SOURCE = Path(__file__).parents[1] / "src" / "radiffuse"
FLOORS = (
    ("cli",),
    ("commands",),
    ("automatic", "studies", "synthesis"),
    ("objectives",),
    ("inference",),
    ("train", "evaluation"),
    ("nets", "data"),
    ("core",),
    ("config", "system"),
)
"""From the top. An import goes down; rooms of one floor do not import each other."""
APART = ("viewer", "reports", "release", "phantoms")
"""Rooms that only commands import. They import what lies below commands, and not each other."""
SCAN = (
    ("cli", "flags become settings"),
    ("commands", "predict opens the run and goes through the scans"),
    ("data", "a reader decodes the file, the plan brings it to the network's grid"),
    ("inference", "windows slide over it, members vote, samplers draw masks"),
    ("nets", "logits of every window"),
    ("data", "the plan is undone, the mask is written on the scan's own grid"),
)
BATCH = (
    ("data", "batches(step): which cases, which patches, which changes"),
    ("train", "one optimizer step asks the task for its loss"),
    ("objectives", "the loss of the method, from network, batch and random numbers"),
    ("core", "noise is added, targets and weights are computed"),
    ("nets", "the U-Net predicts"),
    ("train", "gradient, average of the weights, log, checkpoint"),
)
WIDTH, HEIGHT, GAP, MAIN, SIDE = 1000, 62, 10, 700, 250
COLORS = {"scan": "#b4531a", "batch": "#1a5fb4"}


def purpose(room: str) -> str:
    """First sentence of a room's docstring."""
    tree = ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8"))
    text = (ast.get_docstring(tree) or "").splitlines()[0].replace("``", "")
    return text.split(". ")[0].removesuffix(".")


def draw() -> str:
    """The picture as SVG."""
    foot = GAP + len(FLOORS) * (HEIGHT + GAP)
    legend = 34 + 20 * max(len(SCAN), len(BATCH))
    places = dict(_places(foot))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {foot + legend}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{foot + legend}" fill="#ffffff"/>',
    ]
    for room, (x, y, width, height) in places.items():
        parts += _room(room, x, y, width, height)
    for way, steps in (("scan", SCAN), ("batch", BATCH)):
        parts += _badges(way, steps, places)
        left = 20 if way == "scan" else WIDTH // 2 + 10
        parts.append(
            f'<text x="{left}" y="{foot + 16}" font-weight="600" fill="{COLORS[way]}">'
            f"The path of one {way}</text>"
        )
        for number, (room, text) in enumerate(steps, start=1):
            y = foot + 18 + 20 * number
            parts.append(
                f'<text x="{left}" y="{y}" fill="#222"><tspan fill="{COLORS[way]}" '
                f'font-weight="600">{number} {room}</tspan> {escape(text)}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: list[str] | None = None) -> int:
    """Write the picture, or with ``--check`` compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args(arguments)
    picture = draw()
    if not chosen.check:
        chosen.file.write_text(picture, encoding="utf-8")
    elif not chosen.file.is_file() or chosen.file.read_text(encoding="utf-8") != picture:
        print(f"{chosen.file} is out of date: python tools/house.py {chosen.file}", file=sys.stderr)
        return 1
    return 0


# ------------------------------------------------------------------------------------------------ internal


def _places(foot: int) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    for number, rooms in enumerate(FLOORS):
        width = (MAIN - GAP * (len(rooms) - 1)) // len(rooms)
        for place, room in enumerate(rooms):
            x = 20 + place * (width + GAP)
            yield room, (x, GAP + number * (HEIGHT + GAP), width, HEIGHT)
    top = GAP + 2 * (HEIGHT + GAP)
    height = (foot - top - GAP * len(APART)) // len(APART)
    for number, room in enumerate(APART):
        yield room, (WIDTH - SIDE - 10, top + number * (height + GAP), SIDE, height)


def _room(room: str, x: int, y: int, width: int, height: int) -> Iterator[str]:
    apart = room in APART
    fill, dash = ("#f3f0fa", ' stroke-dasharray="4 3"') if apart else ("#f4f7f4", "")
    yield (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{fill}" '
        f'stroke="#667"{dash}/>'
    )
    yield f'<text x="{x + 10}" y="{y + 19}" font-weight="600" font-size="14">{room}/</text>'
    for number, line in enumerate(textwrap.wrap(purpose(room), width // 7)[:3]):
        yield f'<text x="{x + 10}" y="{y + 36 + 15 * number}" fill="#444">{escape(line)}</text>'


def _badges(
    way: str, steps: tuple[tuple[str, str], ...], places: dict[str, tuple[int, int, int, int]]
) -> Iterator[str]:
    left = [room for room, _ in steps]
    for number, (room, _) in enumerate(steps, start=1):
        x, y, width, _ = places[room]
        left.remove(room)
        center = x + width - 14 - 20 * left.count(room) - (46 if way == "scan" else 0)
        yield f'<circle cx="{center}" cy="{y + 14}" r="9" fill="{COLORS[way]}"/>'
        yield (
            f'<text x="{center}" y="{y + 18}" text-anchor="middle" fill="#fff" '
            f'font-size="11">{number}</text>'
        )


if __name__ == "__main__":
    sys.exit(main())
