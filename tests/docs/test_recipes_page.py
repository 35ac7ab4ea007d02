"""The page of recipes lists all that are shipped, each with a command line that takes it."""

from __future__ import annotations

import re
import shlex

from code_blocks import ROOT

from radiffuse.cli.recipes import RECIPES, names
from radiffuse.cli.settings import from_arguments

PAGE = ROOT / "docs" / "reference" / "recipes.md"
ROW = re.compile(r"^\| `([\w-]+)` \| .+ \| `radiffuse (\w+) (.+)` \|$", re.MULTILINE)


def test_every_recipe_has_a_row_and_its_own_command_line() -> None:
    rows = ROW.findall(PAGE.read_text())
    assert sorted(name for name, _, _ in rows) == names()
    for name, command, words in rows:
        given = shlex.split(words)
        assert given[given.index("--config") + 1] == name
        from_arguments(command, given)
        own = (RECIPES / f"{name}.yaml").read_text()
        assert f"#   radiffuse {command} {words}\n" in own, name
