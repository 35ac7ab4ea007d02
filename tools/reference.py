"""The reference of all commands, from the settings: ``python tools/reference.py PAGE [--check]``.

Everything after the line ``MARK`` of the page is generated; what stands before it is written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from docstring_parser import parse_from_object

from radiffuse.cli.names import ALIASES, members
from radiffuse.commands import COMMANDS
from radiffuse.config import PRESETS
from radiffuse.config.values import is_group
from radiffuse.errors import InputError, RadiffuseError
from radiffuse.system.files import write_atomic

MARK = "<!-- generated from here on by python tools/reference.py; edit the docstrings instead -->"
SHORT = {name: word for word, name in ALIASES.items() if not word.endswith("_")}


@dataclasses.dataclass
class Group:
    """A group of settings that the page explains once, for all commands that have it.

    Attributes:
        name: What the page calls it.
        prefix: How its flags begin.
        columns: Defaults, by the commands, methods and objectives that share them.
    """

    name: str
    prefix: str
    columns: list[tuple[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, label: str, value: Any) -> None:
        """Take defaults in; those that are there already get one more label."""
        for i, (labels, known) in enumerate(self.columns):
            if known == value:
                self.columns[i] = (labels if label == labels else f"{labels}, {label}", known)
                return
        self.columns.append((label, value))


def render_reference(page: Path, *, check: bool = False) -> bool:
    """Write the generated part of the page anew.

    Args:
        page: Markdown file that holds ``MARK``.
        check: Only look, write nothing.

    Returns:
        Whether the page was out of date.

    Raises:
        InputError: The page cannot be read, or lacks the mark.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(page, f"not readable ({error})", "Give the page of commands") from error
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise InputError(page, "has no mark where the generated part begins", f"Add {MARK}")
    rendered = f"{head}{MARK}\n\n{''.join(_sections())}".rstrip() + "\n"
    if rendered != text and not check:
        write_atomic(page, rendered)
    return rendered != text


# ------------------------------------------------------------------------------------------------ internal


def _sections() -> Iterator[str]:
    shared = _groups()
    for name, command in COMMANDS.items():
        cls = command.settings
        examples = "".join(f"    {example}\n" for example in command.examples)
        yield f"## `{name}`\n\n{command.summary}\n\n{examples}\n"
        kinds = typing.get_type_hints(cls)
        fields = [f for f in dataclasses.fields(cls) if not is_group(kinds[f.name])]
        fields.sort(key=lambda field: field.name not in vars(cls)["__annotations__"])
        yield _table(cls, fields, "", [("default", cls())], shared)
        groups = [kind for kind in kinds.values() if is_group(kind) and kind in shared]
        nested = [n for n, kind in kinds.items() if is_group(kind) and kind not in shared]
        if groups:
            listed = ", ".join(f"[`{shared[g].name}`](#{shared[g].name})" for g in groups)
            yield f"\nGroups: {listed}.\n"
        if nested:
            listed = ", ".join(f"`{g}`" for g in nested)
            yield f"\nGroups {listed}: every setting of those commands, such as `--{nested[0]}.training.steps`.\n"
        yield "\n"
    yield "## Groups of settings\n\n"
    yield "Where commands, methods or objectives have different defaults, each has a column.\n\n"
    for cls, group in shared.items():
        yield f"### `{group.name}`\n\n{(cls.__doc__ or '').strip().splitlines()[0]}\n\n"
        alone = len(group.columns) == 1
        columns = [("default", group.columns[0][1])] if alone else group.columns
        yield _table(cls, dataclasses.fields(cls), group.prefix, columns, shared)
        if group.name == "network":
            yield _presets()
        yield "\n"


def _groups() -> dict[type, Group]:
    """Every group of settings that is no command itself, by its class."""
    shared: dict[type, Group] = {}
    commands = {command.settings for command in COMMANDS.values()}

    def add(label: str, path: str, kind: Any, value: Any) -> None:
        if kind in commands:
            return
        name = path.replace(".", "-")
        if any(g.name == name for k, g in shared.items() if k is not kind):
            name = f"{label.partition(' ')[0]}-{name}"
        shared.setdefault(kind, Group(name, f"{path}.")).add(label, value)

    for label, settings in _variants():
        for name, kind in typing.get_type_hints(type(settings)).items():
            if is_group(kind):
                add(label, name, kind, getattr(settings, name))
    for cls, group in list(shared.items()):
        for name, kind in typing.get_type_hints(cls).items():
            if is_group(kind) and kind not in shared:
                add("", group.prefix + name, kind, getattr(group.columns[0][1], name))
    return shared


def _variants() -> Iterator[tuple[str, Any]]:
    """The defaults of every command; those of a method or objective where they differ from the command's own."""
    for name, command in COMMANDS.items():
        own, variants = command.settings(), command.variants
        yield name, own
        for value, settings in variants.defaults.items() if variants else ():
            assert variants is not None
            itself = {variants.setting: getattr(own, variants.setting)}
            if dataclasses.replace(settings, **itself) != own:
                yield f"{name} {value}", settings


def _table(
    cls: type,
    fields: Sequence[dataclasses.Field[Any]],
    prefix: str,
    columns: list[tuple[str, Any]],
    shared: dict[type, Group],
) -> str:
    bases = [base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)]
    about = {p.arg_name: p.description or "" for b in bases for p in parse_from_object(b).params}
    kinds = typing.get_type_hints(cls)
    rows = [["setting", *(name for name, _ in columns), "meaning"], ["---"] * (len(columns) + 2)]
    for field in fields:
        kind = kinds[field.name]
        meaning = " ".join(about[field.name].split()).replace("``", "`").replace("|", "\\|")
        legal = [
            v for m in members(kind) if typing.get_origin(m) is typing.Literal for v in m.__args__
        ]
        if legal:
            meaning += f" One of {', '.join(f'`{value}`' for value in legal)}."
        if is_group(kind) and kind in shared:
            heading = shared[kind].name
            meaning += f" Its settings are those of [`{heading}`](#{heading})."
        if meaning.startswith("`--"):  # the flag, which this table gives anyway
            meaning = meaning.partition(": ")[2]
            meaning = meaning[:1].upper() + meaning[1:]
        flag = f"`--{prefix}{SHORT.get(field.name, field.name.replace('_', '-'))}`"
        word = field.name.upper() if field.metadata.get("positional") else flag
        rows.append([word, *(_default(field, value) for _, value in columns), meaning])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _default(field: dataclasses.Field[Any], values: Any) -> str:
    if field.default == "" or (field.metadata.get("positional") and field.default == ()):
        return "required"
    return _plain(getattr(values, field.name))


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = [f for f in dataclasses.fields(value) if getattr(value, f.name) != f.default]
        return ", ".join(f"{f.name} {_plain(getattr(value, f.name))}" for f in own) or "defaults"
    if isinstance(value, tuple):
        return ",".join(map(_plain, value)) or "empty"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _presets() -> str:
    lines = "".join(
        f"| `{name}` | {p['width']} | {_plain(p['multipliers'])} | {p['blocks']} | "
        f"{_plain(p['attention_factors'])} | {p['head_channels']} | {p['unshuffle']} |\n"
        for name, p in PRESETS.items()
    )
    return (
        "\n| preset | width | multipliers | blocks | attention at 1/ | head channels | unshuffle |\n"
        f"|---|--:|---|--:|---|--:|--:|\n{lines}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the reference of all commands.

    Returns:
        0; with ``--check`` 1 where the page is out of date; 2 for unusable input.
    """
    parser = argparse.ArgumentParser(prog="tools/reference.py", description=main.__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    try:
        stale = render_reference(given.page, check=given.check)
    except RadiffuseError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if stale:
        print(f"{given.page}: {'out of date' if given.check else 'updated'}")
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
