"""Which settings were given: those that differ from the defaults of their command, and of the recipes that it names."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ..errors import InputError
from .data import Data
from .values import flatten, to_dict

_DEFAULTS: ContextVar[Any] = ContextVar("defaults", default=None)
"""The defaults of the command that runs, with what its recipes say."""


@contextmanager
def defaults_are(defaults: Any) -> Iterator[None]:
    """Within the block a setting as in ``defaults``, of any group of its type, counts as one that nobody gave."""
    token = _DEFAULTS.set(defaults)
    try:
        yield
    finally:
        _DEFAULTS.reset(token)


def refuse_given(
    settings: Any, defaults: Any, names: str, why: str, group: str = "", obeyed: Any = None
) -> None:
    """Refuse any of the settings that differs from its default, because it takes no effect.

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
    for full in given(settings, defaults, names, obeyed):
        raise refusal(f"{group}{full}", why)


def given(settings: Any, defaults: Any, names: str, obeyed: Any = None) -> Iterator[str]:
    """The full name of the first setting that differs from its default, of each of the settings or groups.

    See ``refuse_given``.
    """
    usual = [defaults, *_groups(_DEFAULTS.get(), type(settings)), *([obeyed] if obeyed else [])]
    for name in names.split():
        value, *others = map(operator.attrgetter(name), (settings, *usual))
        if value not in others:
            yield _difference(name, value, others[0])


def refusal(name: str, why: str) -> InputError:
    """The error about a setting, by its full name, that takes no effect."""
    problem = why if why.startswith("is for ") else f"takes no effect, since {why}"
    return InputError(f"--{flag(name)}", problem, "Leave it out, or change what rules it out")


def flag(name: str) -> str:
    """The name of a setting on the command line."""
    return {"from_run": "from", "with_run": "with"}.get(name, name).replace("_", "-")


# ------------------------------------------------------------------------------------------------ internal


def reader_flags(values: Mapping[str, Any]) -> list[str]:
    """The words of a command line that say how a path becomes cases, as far as they are not the usual ones.

    Args:
        values: Settings of ``Data`` as plain values; others are passed over.
    """
    usual, words = dict(flatten(to_dict(Data()))), []
    for name, value in flatten(values).items():
        if name in usual and value != usual[name] and value not in (None, (), []):
            text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            word = text.lower() if isinstance(value, bool) else text
            words += [f"--reader.{name.replace('_', '-')}", word]
    return words


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
