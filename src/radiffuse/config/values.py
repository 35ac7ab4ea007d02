"""Settings as the plain values that YAML and JSON can hold, and back; and the check of legal values."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .types import Spelled, Within


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain values that YAML and JSON can hold (tuples become lists)."""
    values = plain(settings)
    assert isinstance(values, dict)
    return values


def from_dict(settings_type: type, values: Mapping[str, Any], *, strict: bool = False) -> Any:
    """A dataclass from the plain values of ``to_dict``; missing keys keep their defaults.

    Args:
        settings_type: The dataclass; its groups are read in the same way.
        values: Plain values; lists become tuples.
        strict: Refuse unknown keys instead of ignoring them.

    Raises:
        ValueError: An unknown key, with ``strict``.
        TypeError: A value without default is missing.
    """
    kinds = typing.get_type_hints(settings_type)
    if strict and (unknown := sorted(set(values) - set(kinds))):
        raise ValueError(f"unknown settings {', '.join(unknown)}")
    arguments = {}
    for name in kinds.keys() & values.keys():
        value = values[name]
        if is_group(kinds[name]):
            value = from_dict(kinds[name], value, strict=strict)
        arguments[name] = tuple(value) if isinstance(value, list) else value
    return settings_type(**arguments)


def is_group(kind: Any) -> bool:
    """Whether a type is a dataclass, whose fields are settings of their own."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def walk(settings_type: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a dataclass and the groups inside it, by full name (``training.steps``), with its type."""
    for name, kind in typing.get_type_hints(settings_type).items():
        if is_group(kind):
            yield from walk(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def plain(value: Any) -> Any:
    """A value that YAML and JSON can hold: dataclasses as mappings, tuples as lists, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def completed(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values over defaults, group by group."""
    result = dict(defaults)
    for key, value in values.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = completed(result[key], value) if both else value
    return result


def verify_ranges(settings: Any, prefix: str = "") -> None:
    """Refuse numbers out of the range of their field, and texts of another form, in settings and their groups.

    Raises:
        InputError: Names the setting, its value and what is legal.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, mark = getattr(settings, field.name), _mark(hints[field.name])
        if dataclasses.is_dataclass(value):
            verify_ranges(value, f"{prefix}{field.name}.")
        elif mark is not None and value is not None:
            for item in value if isinstance(value, tuple) else (value,):
                if not is_legal(item, mark):
                    raise InputError(
                        f"--{prefix}{field.name} {item}",
                        "is out of range" if isinstance(mark, Within) else "is not legal",
                        f"Legal is {_words(mark)}",
                    )


def is_legal(value: Any, mark: Within | Spelled) -> bool:
    """Whether a number is in its range, or a text of its form."""
    if isinstance(mark, Spelled):
        return isinstance(value, str) and re.fullmatch(mark.pattern, value) is not None
    return mark.low <= value <= mark.high and math.isfinite(value)  # NaN is in no range


def _words(mark: Within | Spelled) -> str:
    if isinstance(mark, Spelled):
        return mark.legal
    return f"at least {mark.low}" if math.isinf(mark.high) else f"{mark.low} to {mark.high}"


def _mark(kind: Any) -> Within | Spelled | None:
    """The mark of a type: on a value itself, on the members of a tuple, or in a union."""
    for mark in getattr(kind, "__metadata__", ()):
        if isinstance(mark, Within | Spelled):
            return mark
    return next((found for k in typing.get_args(kind) if (found := _mark(k)) is not None), None)
