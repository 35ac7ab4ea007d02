"""The page of all commands is what the settings say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from radiffuse.cli.settings import from_arguments
from radiffuse.commands import COMMANDS
from radiffuse.config import FIT
from radiffuse.errors import InputError
from reference import MARK, main, render_reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"


def test_the_page_is_up_to_date() -> None:
    command = "python tools/reference.py docs/reference/commands.md"
    assert not render_reference(PAGE, check=True), f"out of date: run {command}"


def test_every_setting_of_every_command_is_on_it() -> None:
    text = PAGE.read_text()
    for title, command in COMMANDS.items():
        assert f"## `{title}`" in text
        for field in dataclasses.fields(command.settings):
            name = field.name.removesuffix("_run").replace("_", "-")
            nested = type(field.default) in {c.settings for c in COMMANDS.values()}
            shown = (f"`--{name}`", f"| {field.name.upper()} |", f"(#{name})", f"(#{title}-{name})")
            assert nested or any(words in text for words in shown), field.name


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_command_lines_of_the_command(name: str) -> None:
    assert COMMANDS[name].examples
    for example in COMMANDS[name].examples:
        program, command, *words = example.split()
        assert (program, command) == ("radiffuse", name)
        from_arguments(name, words)


def test_what_stands_before_the_mark_is_kept_and_the_rest_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "p.md"
    page.write_text(f"by hand\n\n{MARK}\nold")
    assert main([str(page), "--check"]) == 1
    assert page.read_text().endswith("old")
    assert main([str(page)]) == 0
    assert page.read_text().startswith(f"by hand\n\n{MARK}\n\n## `check`")
    assert main([str(page), "--check"]) == 0
    page.write_text("no mark")
    assert main([str(page)]) == 2
    assert "has no mark" in capsys.readouterr().err
    with pytest.raises(InputError, match="not readable"):
        render_reference(tmp_path / "absent.md")


def test_defaults_of_a_method_have_a_column_of_their_own() -> None:
    training = PAGE.read_text().partition("### `training`")[2].partition("### ")[0]
    rows = [[cell.strip() for cell in line.split("|")] for line in training.splitlines()]
    header = next(row for row in rows if "setting" in row)
    rates = next(row for row in rows if "`--training.learning-rate`" in row)
    for label, value in (
        ("fit", FIT[None]),
        ("fit probe", FIT["probe"]),
        ("fit diffusion", FIT["diffusion"]),
    ):
        column = next(i for i, cell in enumerate(header) if label in cell.split(", "))
        assert rates[column] == str(value.training.learning_rate)
