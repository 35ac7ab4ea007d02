"""Links between the documents lead somewhere, also where Sphinx does not look: README, results, files of the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from code_blocks import FENCE, PAGES, ROOT

LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)")
PLACE = re.compile(r"\]\((?!https?:)([^)\s#]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.M)
ALL = [*PAGES, *(ROOT / "results").glob("*.md")]


def targets(page: Path) -> list[str]:
    """Files that a page links to, as it writes them."""
    return LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


def places(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    plain = [re.sub(r"\]\([^)]*\)|[^\w\- ]", "", head.lower()) for head in heads]
    return {head.replace(" ", "-") for head in plain}


def lost(page: Path) -> list[str]:
    """Links of a page to headings that are not there."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = [(page.parent / to if to else page, place) for to, place in PLACE.findall(text)]
    return [f"{to}#{at}" for to, at in found if to.suffix == ".md" and at not in places(to)]


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page: Path) -> None:
    assert not lost(page)


def test_lost_headings_are_found(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("# A, b `c`\n[a](#a-b-c) [d](p.md#d) ![e](e.svg#e)\n```text\n# d\n```\n")
    assert lost(page) == [f"{page}#d"]


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    missing = [to for to in targets(page) if not (page.parent / to).exists()]
    assert not missing
    out = [to for to in targets(page) if not (page.parent / to).resolve().is_relative_to(ROOT)]
    assert not out


def test_links_out_of_the_documents_are_written_as_sphinx_leads_them() -> None:
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        for to in targets(page):
            if not (page.parent / to).resolve().is_relative_to(docs):
                assert to.startswith("../../")
                assert page.parent.parent == docs


def test_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text("[a](b.md#c) [d](https://e) ![f](g.png)\n```text\n[h](i)\n```\n[j](#k)\n")
    assert targets(page) == ["b.md", "g.png"]
