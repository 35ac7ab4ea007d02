"""A settings dataclass from plain values and back: what YAML and JSON can hold."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .types import Within


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain values that YAML and JSON can hold (tuples become lists)."""
    values = plain(settings)
    assert isinstance(values, dict)
    return values


def from_dict(settings_type: type, values: Mapping[str, Any], *, strict: bool = False) -> Any:
    """A dataclass from plain values that ``to_dict`` made; keys it lacks keep their defaults.

    Args:
        settings_type: The dataclass; groups inside it are read likewise.
        values: Plain values; lists become tuples.
        strict: Refuse keys that the dataclass does not have, instead of passing over them.

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
    """Plain values laid over defaults, group by group; what they lack keeps its default."""
    result = dict(defaults)
    for key, value in values.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = completed(result[key], value) if both else value
    return result


def verify_ranges(settings: Any, prefix: str = "") -> None:
    """Refuse a number outside the range on its field, in the settings and the groups inside them.

    Raises:
        InputError: Names the setting, its value and what is legal.
    """
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value, legal = getattr(settings, field.name), _legal(hints[field.name])
        if dataclasses.is_dataclass(value):
            verify_ranges(value, f"{prefix}{field.name}.")
        elif legal is not None and value is not None:
            numbers = value if isinstance(value, tuple) else (value,)
            # "not within" also catches NaN, which no comparison holds for.
            wrong = [n for n in numbers if not legal.low <= n <= legal.high or math.isinf(n)]
            if wrong:
                bounds = f"{legal.low} to {legal.high}"
                raise InputError(
                    f"--{prefix}{field.name} {wrong[0]}",
                    "is out of range",
                    f"Legal is {f'at least {legal.low}' if math.isinf(legal.high) else bounds}",
                )


def _legal(kind: Any) -> Within | None:
    """The range in a type: on a number itself, on the members of a tuple, or in a union."""
    for mark in getattr(kind, "__metadata__", ()):
        if isinstance(mark, Within):
            return mark
    return next((found for k in typing.get_args(kind) if (found := _legal(k)) is not None), None)
