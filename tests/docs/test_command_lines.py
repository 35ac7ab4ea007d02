"""Every command line in the README and the docs is one that the parser takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from code_blocks import PAGES, ROOT, command_lines

from radiffuse.cli.settings import from_arguments
from radiffuse.commands import COMMANDS
from radiffuse.errors import InputError

ADDED = Path("docs/readers/developer.md")
"""Its lines use what the page adds to the source; test_developer_page runs them."""
LINES = sorted(
    (page, line)
    for page, line in {
        (page.relative_to(ROOT), line) for page in PAGES for line in command_lines(page)
    }
    if page != ADDED
)
NUMBERS = {"labels", "SLURM_ARRAY_TASK_ID"}
"""Variables of shell that stand where a number must."""


def words_of(line: str) -> list[str]:
    """A command line as the shell would pass it on: no comment, no redirection, variables filled in."""
    line = re.sub(r"\$\{?(\w+)\}?", lambda m: "1" if m[1] in NUMBERS else m[1].lower(), line)
    words = shlex.split(line, comments=True)
    stop = next((i for i, word in enumerate(words) if re.fullmatch(r"\d?>+|\||&&|;", word)), None)
    return words[:stop]


@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda v: str(v)[:60])
def test_it_parses(page: Path, line: str) -> None:
    _, command, *words = words_of(line)
    if command == "COMMAND" or command.startswith("-"):  # the form of a command line
        return
    assert command in COMMANDS, f"{page}: {line}"
    if "--help" in words or "..." in words:
        return
    try:
        from_arguments(command, words)
    except InputError as error:
        pytest.fail(f"{page}: {line}\n{error}")


def test_lines_are_found_and_wrong_ones_would_fail(tmp_path: Path) -> None:
    page = tmp_path / "p.md"
    page.write_text(
        "radiffuse in a sentence\n\n    radiffuse check A  # note\n\n"
        "```bash\nradiffuse pretrain B \\\n  --out C\n```\n\n"
        "- item\n\n      radiffuse info D\n"
    )
    found = [words_of(line) for line in command_lines(page)]
    assert sorted(found) == [
        ["radiffuse", "check", "A"],
        ["radiffuse", "info", "D"],
        ["radiffuse", "pretrain", "B", "--out", "C"],
    ]
    assert len(LINES) > 100
    with pytest.raises(InputError, match="stepz"):
        from_arguments("pretrain", ["B", "--out", "C", "--stepz", "3"])
