"""The names of a command's settings, as flags, YAML keys and keyword arguments give them.

A setting inside a group goes by its full name (``training.steps``), or by its own (``steps``) where that says which one
is meant: settings of methods that were not chosen come last, then the outermost group wins, then the chosen method's.
Some groups go by full names alone (``config.types.FULL_NAMES``).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ..commands import COMMANDS
from ..config.effect import never
from ..config.values import walk_settings
from ..data.issues import some
from ..errors import InputError, SettingError

_ONE = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_SEVERAL = {int: "whole numbers", float: "numbers", str: "texts"}
ALIASES = {f"{word}{end}": f"{word}_run" for word in ("from", "with", "for") for end in ("", "_")}


@functools.cache
def kinds(command: str) -> dict[str, Any]:
    """The type of every setting of a command by its full name; a group is no setting."""
    return dict(walk_settings(COMMANDS[command].settings))


@functools.cache
def groups(command: str) -> frozenset[str]:
    """The full names of all groups, those inside groups as well."""
    parts = (name.split(".") for name in kinds(command))
    return frozenset(".".join(p[:end]) for p in parts for end in range(1, len(p)))


@functools.cache
def positionals(command: str) -> tuple[str, ...]:
    """The settings that are given without a flag, in order."""
    fields = dataclasses.fields(COMMANDS[command].settings)
    return tuple(field.name for field in fields if field.metadata.get("positional"))


def full_name(command: str, name: str, chosen: str | None = None, where: str = "") -> str:
    """The full name of a setting or group.

    Args:
        command: Name of the command.
        name: As a person gives it.
        chosen: The method or objective, on which the short names depend; None: not known yet, any will do.
        where: The file that holds the name, for the message; empty: a flag or keyword.

    Raises:
        InputError: There is no such setting, or a short name stands for several.
    """
    name = name.replace("-", "_")
    name = ALIASES.get(name, name)
    if name in kinds(command) or name in groups(command):
        return name
    place = f"{where}: {name}" if where else f"--{name.replace('_', '-')}"
    found = _short_names(command, chosen).get(name, ())
    if len(found) == 1 or (found and chosen is None):
        return found[0]
    if found:
        several = " or ".join(flag_of(command, full, chosen) for full in found)
        raise SettingError(place, "stands for several settings", f"Give {several}")
    last = {full.rsplit(".", 1)[-1]: full for full in reversed(kinds(command))}
    last |= {name: full[0] for name, full in _short_names(command, chosen or "").items()}
    group, _, word = name.rpartition(".")  # as finetune.steps for finetune.training.steps
    inside = [
        full
        for full in sorted(kinds(command), key=lambda full: full.count("."))
        if _listed(command, full) and full.endswith(f".{word}") and full.startswith(group)
    ]
    known = [c for c in [*last, *kinds(command)] if _listed(command, last.get(c, c))]
    close = inside[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    problem = "is not a setting of this command"
    meant = last.get(name.removeprefix("no_"), "")
    if name.startswith("no_") and bool in members(kinds(command).get(meant)):
        yes = flag_of(command, meant, chosen)
        raise SettingError(place, problem, f"Did you mean {yes} false?")
    elsewhere = [c for c in COMMANDS if _listed(c, name) and name in {*kinds(c), *short_names(c)}]
    if elsewhere and not where and not any(name in c for c in close):
        problem, close = f"{problem}, but of {some(elsewhere, 3)}", []
    hint = [f"Did you mean {flag_of(command, last.get(c, c), chosen)}?" for c in close]
    if command == "check" and not close and "fit" in elsewhere:
        hint = [
            f"To see the plan of fit with it: radiffuse fit DATA {place} VALUE --out RUN --dry-run"
        ]
    remedy = [*hint, f"See radiffuse {command} --help"][0]
    raise SettingError(place, problem, remedy)


def flag_of(command: str, name: str, chosen: str | None = None) -> str:
    """A setting as a person types it: ``--batch-size`` where that says which one is meant, else its full name."""
    last = name.rsplit(".", 1)[-1]
    others = kinds(command).keys() | groups(command)
    short = last not in others and _short_names(command, chosen).get(last) == (name,)
    shown = last if short else name
    words = {full: word for word, full in ALIASES.items() if not word.endswith("_")}
    return f"--{words.get(shown, shown)}".replace("_", "-")


def nested(
    command: str, values: Mapping[str, Any], chosen: str | None = None, where: str = ""
) -> dict[str, Any]:
    """Settings by any of their names as groups within groups, by the names of the fields.

    Raises:
        InputError: As ``full_name``; or a group is no mapping, or holds what it has not.
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = full_name(command, str(key), chosen, where)
        target = result
        *path, last = name.split(".")
        for part in path:
            target = target.setdefault(part, {})
        if name not in groups(command):
            alone = isinstance(value, str | int | float) and is_tuple(kinds(command)[name])
            whole = not alone or value == "null" or str(value).startswith("[")
            target[last] = value if whole else [value]
            continue
        if not isinstance(value, Mapping):
            problem = f"{name} is a group of settings, not {str(value)[:60]!r}"
            example = next(full for full in kinds(command) if full.startswith(f"{name}."))
            raise InputError(where or command, problem, f"Give its settings, such as {example}")
        inner = nested(command, {f"{name}.{k}": v for k, v in value.items()}, chosen, where)
        for part in name.split("."):
            inner = inner.get(part, {})
        target[last] = target.get(last, {}) | inner
    return result


def flags(command: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every flag of a command: its names, the full one first, and the type of its value. Not those of all commands."""
    variants = COMMANDS[command].variants
    choices = [value for value in variants.defaults if value] if variants else [""]
    short: dict[str, dict[str, None]] = {}
    for chosen in choices:
        for name, found in _short_names(command, chosen).items():
            if len(found) == 1:
                short.setdefault(found[0], {})[name] = None
    words = {name: word for word, name in ALIASES.items() if not word.endswith("_")}
    for name, kind in kinds(command).items():
        if name not in positionals(command) and _listed(command, name):
            names = (words.get(name, name), *short.get(name, ()))
            yield tuple(f"--{n.replace('_', '-')}" for n in names), kind


def short_names(command: str) -> dict[str, list[Any]]:
    """The types of what stands alone by the last part of its name, with any method or objective."""
    variants, found = COMMANDS[command].variants, dict[str, list[Any]]()
    for chosen in variants.defaults if variants else ("",):
        for name, full in _short_names(command, chosen).items():
            if len(full) == 1 and _listed(command, full[0]):
                found.setdefault(name, []).append(kinds(command)[full[0]])
    return found


def is_tuple(kind: Any) -> bool:
    """Whether a setting holds several values."""
    return any(typing.get_origin(member) is tuple for member in members(kind))


def choices(kind: Any) -> tuple[str, ...]:
    """The legal values of a setting that has a few, or of each of its members; empty where it has many."""
    first = members(kind)[0]
    if is_tuple(kind):
        return choices(typing.get_args(first)[0])
    return typing.get_args(first) if typing.get_origin(first) is typing.Literal else ()


def legal(kind: Any) -> str:
    """What a setting takes, in words such as ``a whole number``."""
    first, words = members(kind)[0], " or ".join(", ".join(choices(kind)).rsplit(", ", 1))
    if is_tuple(kind):
        one, *named = members(typing.get_args(first)[0])
        several = f"any of {words}" if words else _SEVERAL[one]
        return f"{' or '.join([several, *map(legal, named)])}, separated by commas"
    return f"one of {words}" if " or " in words else words or _ONE[first]


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union; of another type itself."""
    union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return typing.get_args(kind) if union else (kind,)


def _listed(command: str, full: str) -> bool:
    """Whether a setting is one that can take effect."""
    return not any(
        full == name or full.startswith(f"{name}.") for name in never(COMMANDS[command].settings)
    )


@functools.cache
def _short_names(command: str, chosen: str | None) -> dict[str, tuple[str, ...]]:
    """What the last part of a name stands for, where it may stand alone."""
    fields = {f.name: f.metadata for f in dataclasses.fields(COMMANDS[command].settings)}
    found: dict[str, list[tuple[tuple[Any, ...], str]]] = {}
    for full in kinds(command):
        group = full.partition(".")[0]
        if group == full or fields[group].get("full_names"):
            continue
        only = fields[group].get("only_for", ())
        foreign = bool(only) and chosen not in only
        rank = (foreign, full.count("."), not (only and not foreign))
        found.setdefault(full.rsplit(".", 1)[-1], []).append((rank, full))
    return {
        last: tuple(full for rank, full in several if rank == min(several)[0])
        for last, several in found.items()
    }
