"""The code blocks of a Markdown page, as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<kind>[\w{}-]*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S
)
INDENTED = re.compile(r"^(?: {4,}\S[^\n]*\n(?:[ \t]*\n(?= {4}))?)+", re.M)


def fenced(page: Path) -> Iterator[tuple[str, str]]:
    """Kind and body of every fenced block, in order."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield found["kind"], found["body"]


def command_lines(page: Path) -> Iterator[str]:
    """Every line ``radiffuse ...`` of a code block; lines that end in a backslash are joined."""
    text = page.read_text(encoding="utf-8")
    blocks = [body for kind, body in fenced(page) if kind in ("", "bash", "sh", "shell", "console")]
    blocks += [found[0] for found in INDENTED.finditer(FENCE.sub("", text))]
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            bare = line.strip().removeprefix("$ ").removeprefix("srun ")
            if bare.startswith("radiffuse "):
                yield bare
