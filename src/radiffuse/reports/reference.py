"""The reference of all commands, from the settings: ``python -m radiffuse.reports.reference PAGE [--check]``.

Everything after the line ``MARK`` of the page is generated; what stands before it is written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..commands import COMMANDS
from ..config import PRESETS
from ..errors import InputError, RadiffuseError
from ..system.files import write_atomic

MARK = "<!-- generated from here on by python -m radiffuse.reports.reference; edit the docstrings instead -->"


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


def _sections() -> Iterator[str]:
    for name, command in COMMANDS.items():
        cls = command.settings
        examples = "".join(f"    {example}\n" for example in command.examples)
        yield f"## `{name}`\n\n{command.summary}\n\n{examples}\n"
        fields = [f for f in dataclasses.fields(cls) if not _is_group(_hints(cls)[f.name])]
        fields.sort(key=lambda field: field.name not in vars(cls)["__annotations__"])
        yield _table(cls, fields, "", [("default", cls())])
        nested: list[str] = []
        groups: list[str] = []
        for field in dataclasses.fields(cls):
            kind = _hints(cls)[field.name]
            if _is_group(kind):
                (nested if _is_command(kind) else groups).append(field.name)
        if groups:
            yield f"\nGroups: {', '.join(f'[`{g}`](#{g})' for g in groups)}.\n"
        if nested:
            listed = ", ".join(f"`{g}`" for g in nested)
            yield f"\nGroups {listed}: every setting of those commands, such as `--finetune.training.steps`.\n"
        yield "\n"
    yield "## Groups of settings\n\nWhere commands have different defaults, each has a column.\n\n"
    for name, cls, defaults in _shared():
        yield f"### `{name}`\n\n{_first_line(cls)}\n\n"
        yield _table(cls, dataclasses.fields(cls), f"{name}.", defaults)
        if name == "network":
            yield _presets()
        yield "\n"


def _shared() -> list[tuple[str, type, list[tuple[str, Any]]]]:
    """Name and class of every group, and its defaults by the commands that share them."""
    found: dict[str, tuple[type, list[tuple[str, Any]]]] = {}
    for command, entry in COMMANDS.items():
        for field in dataclasses.fields(entry.settings):
            kind = _hints(entry.settings)[field.name]
            if not _is_group(kind) or _is_command(kind):
                continue
            defaults = found.setdefault(field.name, (kind, []))[1]
            for i, (commands, value) in enumerate(defaults):
                if value == field.default:
                    defaults[i] = (f"{commands}, {command}", value)
                    break
            else:
                defaults.append((command, field.default))
    return [
        (name, cls, defaults if len(defaults) > 1 else [("default", defaults[0][1])])
        for name, (cls, defaults) in found.items()
    ]


def _table(
    cls: type,
    fields: Sequence[dataclasses.Field[Any]],
    prefix: str,
    defaults: list[tuple[str, Any]],
) -> str:
    meanings = _meanings(cls)
    columns = [name for name, _ in defaults]
    rows = [["setting", *columns, "meaning"], ["---"] * (len(columns) + 2)]
    for field in fields:
        hint = _hints(cls)[field.name]
        meaning = " ".join(meanings[field.name].split()).replace("``", "`").replace("|", "\\|")
        if legal := _legal(hint):
            meaning += f" One of {', '.join(f'`{value}`' for value in legal)}."
        if _is_group(hint):
            heading = _heading(field.name, hint)
            meaning += f" Its settings are those of [`{heading}`](#{heading})."
        meaning = meaning.removeprefix("`--from`: ")
        rows.append([_flag(field, prefix), *(_default(field, v) for _, v in defaults), meaning])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _heading(name: str, cls: type) -> str:
    """Under which a group stands: its own name, or that of another group of the same settings."""
    shared = {group: kind for group, kind, _ in _shared()}
    return name if name in shared else next(g for g, kind in shared.items() if kind is cls)


def _flag(field: dataclasses.Field[Any], prefix: str) -> str:
    if field.metadata.get("positional"):
        return field.name.upper()
    short = {"from_run": "from", "with_run": "with"}
    name = short.get(field.name, field.name.replace("_", "-"))
    return f"`--{prefix}{name}`"


def _default(field: dataclasses.Field[Any], values: Any) -> str:
    value = getattr(values, field.name)
    if field.default == "" or (field.metadata.get("positional") and field.default == ()):
        return "required"
    return _plain(value)


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
        f"{_plain(p['attention_factors'])} | {p['head_channels']} |\n"
        for name, p in PRESETS.items()
    )
    return (
        "\n| preset | width | multipliers | blocks | attention at 1/ | head channels |\n"
        f"|---|--:|---|--:|---|--:|\n{lines}"
    )


def _meanings(cls: type) -> dict[str, str]:
    from docstring_parser import parse_from_object

    bases = [base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)]
    found = (p for base in bases for p in parse_from_object(base).params)
    return {p.arg_name: p.description or "" for p in found}


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _is_command(kind: type) -> bool:
    return kind in {command.settings for command in COMMANDS.values()}


def _legal(kind: Any) -> list[str]:
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return [
        str(value)
        for member in members
        if typing.get_origin(member) is typing.Literal
        for value in typing.get_args(member)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the reference of all commands.

    Returns:
        0; with ``--check`` 1 where the page is out of date; 2 for unusable input.
    """
    parser = argparse.ArgumentParser(
        prog="python -m radiffuse.reports.reference", description=main.__doc__
    )
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
