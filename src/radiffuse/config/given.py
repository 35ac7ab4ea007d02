"""Which settings were given: those that differ from the defaults of their command; typed, or by ``--config``."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..errors import InputError
from .data import Data
from .values import flatten, to_dict


@dataclasses.dataclass(frozen=True)
class Base:
    """What holds where nothing is typed.

    Attributes:
        defaults: The defaults of the command that runs.
        laid: Of the same type: with what the files and recipes of ``--config`` say.
        files: Their names.
    """

    defaults: Any = None
    laid: Any = None
    files: str = ""


_BASE: ContextVar[tuple[Base, Callable[[str], object]]] = ContextVar("base", default=(Base(), str))


@contextmanager
def typed_over(base: Base, tell: Callable[[str], object]) -> Iterator[None]:
    """Within the block a setting as in ``base``, of any group of its type, counts as one that nobody typed.

    Args:
        base: Its defaults are passed over without a word where they take no effect.
        tell: Takes a sentence, once, about each value of a file that takes no effect.
    """
    told = set[str]()

    def once(sentence: str) -> None:
        if sentence not in told:
            told.add(sentence)
            tell(sentence)

    token = _BASE.set((base, once))
    try:
        yield
    finally:
        _BASE.reset(token)


@contextmanager
def as_typed() -> Iterator[None]:
    """Within the block what a file gives counts as typed, as where one of several that may be tried must obey it."""
    base, tell = _BASE.get()
    token = _BASE.set((dataclasses.replace(base, laid=None), tell))
    try:
        yield
    finally:
        _BASE.reset(token)


def refuse_given(
    settings: Any, defaults: Any, names: str, why: str, group: str = "", obeyed: Any = None
) -> None:
    """Refuse any of the settings that was given, because it takes no effect; one that a file gives is told instead.

    A file may serve several commands or methods; what is typed is meant for this one.

    Args:
        settings: Of a command, or one of its groups.
        defaults: Of the same type.
        names: Names of settings or groups, separated by spaces.
        why: What rules them out: other settings, the data, or a run.
        group: The name of the group with a dot behind it, for the message.
        obeyed: What takes effect instead, of the same type; a setting that agrees with it is fine.

    Raises:
        InputError: Names the setting.
    """
    for full, typed in given(settings, defaults, names, obeyed):
        refuse(f"{group}{full}", why, typed=typed)


def refuse(name: str, why: str, *, typed: bool) -> None:
    """Refuse a setting, by its full name, that takes no effect; tell it where it stands in a file.

    Raises:
        InputError: It was typed.
    """
    problem = why if why.startswith("is for ") else f"takes no effect, since {why}"
    if typed:
        raise InputError(f"--{flag(name)}", problem, "Leave it out, or change what rules it out")
    _BASE.get()[1](f"{name} {problem}")


def given(
    settings: Any, defaults: Any, names: str, obeyed: Any = None
) -> Iterator[tuple[str, bool]]:
    """Of each of the settings or groups that was given: its full name, and whether it was typed.

    Of a group the name of the first setting that was typed. See ``refuse_given``.
    """
    base, _ = _BASE.get()
    usual = [defaults, *_groups(base.defaults, type(settings)), *([obeyed] if obeyed else [])]
    laid = [*_groups(base.laid, type(settings))]
    below = base.laid if isinstance(base.laid, type(settings)) else defaults
    for name in names.split():
        read = operator.attrgetter(name)
        value = read(settings)
        if value in map(read, usual):
            continue
        if value in map(read, laid):
            yield name, False
        else:
            yield _difference(name, value, read(below)), True


def flag(name: str) -> str:
    """The name of a setting on the command line."""
    return {"from_run": "from", "with_run": "with"}.get(name, name).replace("_", "-")


def written(value: object) -> str:
    """A value as it is written on the command line: ``1,2`` for several, ``1x2x2,2x2x2`` for several per level."""
    if isinstance(value, list | tuple):
        inner = (
            "x".join(map(written, v)) if isinstance(v, list | tuple) else written(v) for v in value
        )
        return ",".join(inner) or "[]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def reader_flags(values: Mapping[str, Any]) -> list[str]:
    """The words of a command line that say how a path becomes cases, as far as they are not the usual ones.

    Args:
        values: Settings of ``Data`` as plain values; others are passed over.
    """
    usual, words = dict(flatten(to_dict(Data()))), []
    for name, value in flatten(values).items():
        if name in usual and value != usual[name] and value not in (None, (), []):
            words += [f"--reader.{name.replace('_', '-')}", written(value)]
    return words


# ------------------------------------------------------------------------------------------------ internal


def _groups(settings: Any, kind: type) -> Iterator[Any]:
    """The settings themselves and all groups in them, as far as they are of a type."""
    if isinstance(settings, kind):
        yield settings
    for field in dataclasses.fields(settings) if dataclasses.is_dataclass(settings) else ():
        yield from _groups(getattr(settings, field.name), kind)


def _difference(name: str, value: Any, default: Any) -> str:
    """The full name of the first setting that differs, of two values that do."""
    for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        one, other = getattr(value, field.name), getattr(default, field.name)
        if one != other:
            return _difference(f"{name}.{field.name}", one, other)
    return name
