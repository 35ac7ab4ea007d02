"""Each promise of the pages on security and on run folders has a test: ``tools/promises.toml`` says which."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = tomllib.loads((ROOT / "tools" / "promises.toml").read_text())
LEFT_OUT = ("What is not promised", "Report a vulnerability")
"""Sections that promise nothing."""


def units(page: str) -> list[str]:
    """Sentences of a page, and rows of its tables but their heads; leads in bold stay out."""
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text()
    found: list[str] = []
    for section in re.split(r"^## ", text.partition("\n")[2], flags=re.MULTILINE):
        title, _, body = section.partition("\n")
        for block in re.split(r"\n\s*\n|\n(?=- |\| )", "" if title in LEFT_OUT else body):
            plain = " ".join(block.split()).removeprefix("- ")
            if plain.startswith("|"):
                found += [plain] if "|---" not in plain else []
            else:
                found += re.split(r"(?<=[.:]) (?=[A-Z`*\[])", re.sub(r"\*\*.*?\*\* ?", "", plain))
    return [unit for unit in found if unit]


@pytest.mark.parametrize("page", PROMISES)
def test_every_sentence_is_held_by_a_test_or_promises_nothing(page: str) -> None:
    words = [*(key for key in PROMISES[page] if key != "none"), *PROMISES[page]["none"]]
    sentences = units(page)
    assert len(sentences) > 60
    missing = [each for each in sentences if not any(word in each for word in words)]
    assert not missing, "\n".join(missing)
    stale = [word for word in words if not any(word in each for each in sentences)]
    assert not stale, f"no sentence of {page} holds these any more: {stale}"


@pytest.mark.parametrize("page", PROMISES)
def test_the_tests_are_there(page: str) -> None:
    named = {test for key, tests in PROMISES[page].items() if key != "none" for test in tests}
    for each in sorted(named):
        file, _, function = each.partition("::")
        assert (ROOT / "tests" / file).is_file(), each
        assert not function or f"def {function}(" in (ROOT / "tests" / file).read_text(), each


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    pytest.importorskip("fastapi", reason="needs the extra 'view': pip install 'radiffuse[view]'")
    from radiffuse.data import arrays, tables
    from radiffuse.data.readers import common, dicomfile
    from radiffuse.system import files
    from radiffuse.viewer import uploads

    text = " ".join((ROOT / "docs" / "reference" / "security.md").read_text().split())
    powers = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

    def power(number: int) -> str:
        assert number & (number - 1) == 0
        return f"2{str(number.bit_length() - 1).translate(powers)}"

    for words in (
        f"at most {files.MOST_YAML // 2**10} KiB",
        f"A film may have at most {power(common.MAX_PIXELS)} pixels",
        f"a volume {power(common.MAX_VOXELS)} voxels",
        f"more than {dicomfile.MOST_FRAMES:,} frames",
        f"more than {dicomfile.MOST_ITEMS:,} items",
        f"at most {arrays.MOST_BYTES // 2**30} GiB",
        f"{power(tables.MOST_TEXT)} bytes, unpacked, and {power(tables.MOST_CELLS)} cells",
        f"more than {uploads.MAX_MEMBERS:,} members",
        "`dinov2`, `dinov2_with_registers`, `dinov3_vit`, `vit`",
    ):
        assert words in text, words
