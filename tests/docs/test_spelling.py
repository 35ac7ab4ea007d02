"""One spelling of words that have two: labelled, unlabelled, licence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from code_blocks import PAGES, ROOT

OTHER = re.compile(r"(?i)(?<![\w-])(un)?label(ed|ing)\b|\blicens(e|es)\b")
FOREIGN = (
    "`license`",
    "FLARE22_UnlabeledCase",
    '"license", "citation"',
    'get("license")',
    '"license": licences',
    "(?m)^license:",
)
"""Keys of formats, and names, of others."""
TEXTS = [
    *PAGES,
    *(ROOT / "results").glob("*.md"),
    *(p for kind in ("py", "html") for p in (ROOT / "src").rglob(f"*.{kind}")),
]


@pytest.mark.parametrize("kind", [".md", ".py", ".html"])
def test_words_are_spelled_one_way(kind: str) -> None:
    texts = [path for path in TEXTS if path.suffix == kind and "vendor" not in path.parts]
    assert texts
    found = [f"{path.relative_to(ROOT)}: {line}" for path in texts for line in other(path)]
    assert not found, "\n".join(found)


def other(path: Path) -> list[str]:
    """Lines with another spelling."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [x for x in lines if OTHER.search(x) and not any(word in x for word in FOREIGN)]


def test_other_spellings_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("unlabeled films\nits License\nlabelled, licence, LICENSE-2.txt\n`license`\n")
    assert other(page) == ["unlabeled films", "its License", "labelled, licence, LICENSE-2.txt"]
