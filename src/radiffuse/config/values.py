"""A settings dataclass from plain values and back: what YAML and JSON can hold."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain values that YAML and JSON can hold (tuples become lists)."""
    values = plain(settings)
    assert isinstance(values, dict)
    return values


def from_dict(settings_type: type, values: Mapping[str, Any]) -> Any:
    """A settings dataclass from plain values that ``to_dict`` made; keys it lacks keep their defaults."""
    hints = typing.get_type_hints(settings_type)
    arguments = {}
    for field in dataclasses.fields(settings_type):
        if field.name not in values:
            continue
        value = values[field.name]
        if dataclasses.is_dataclass(hints[field.name]):
            value = from_dict(typing.cast(type, hints[field.name]), value)
        elif isinstance(value, list):
            value = tuple(value)
        arguments[field.name] = value
    return settings_type(**arguments)


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
