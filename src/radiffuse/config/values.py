"""Settings as the plain values that YAML and JSON can hold, and back; and the check of legal values."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import SettingError
from .types import Spelled, Within


@functools.cache
def hints_of(kind: type, *, marked: bool = False) -> Mapping[str, Any]:
    """Types of the fields by name; ``marked`` with their marks of legal values."""
    return typing.get_type_hints(kind, include_extras=marked)


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain values that YAML and JSON can hold (tuples become lists)."""
    values = plain(settings)
    assert isinstance(values, dict)
    return values


def from_dict(
    settings_type: type, values: Mapping[str, Any], *, strict: bool = False, checked: bool = True
) -> Any:
    """A dataclass from the plain values of ``to_dict``; missing keys keep their defaults.

    Args:
        settings_type: The dataclass; its groups are read in the same way.
        values: Plain values; lists become tuples.
        strict: Refuse unknown keys instead of ignoring them.
        checked: Refuse values of another type or out of their range; else the caller does.

    Raises:
        ValueError: An unknown key, with ``strict``; a value of another type or out of its range.
        TypeError: A value without default is missing.
    """
    if checked and (fault := misfit(values, settings_type)):
        raise ValueError(fault)
    kinds = hints_of(settings_type)
    if strict and (unknown := sorted(set(values) - set(kinds))):
        raise ValueError(f"unknown settings {', '.join(unknown)}")
    arguments = {}
    for name in kinds.keys() & values.keys():
        value = values[name]
        group = next(filter(is_group, (kinds[name], *typing.get_args(kinds[name]))), None)
        if group is not None and isinstance(value, Mapping):
            value = from_dict(group, value, strict=strict, checked=False)
        arguments[name] = _tuples(value)
    return settings_type(**arguments)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def is_group(kind: Any) -> bool:
    """Whether a type is a dataclass, whose fields are settings of their own."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


@functools.cache
def groups_in(settings_type: type) -> tuple[str, ...]:
    """Fields of a dataclass that hold a group, or may hold one."""
    kinds = hints_of(settings_type).items()
    return tuple(n for n, k in kinds if any(map(is_group, (k, *typing.get_args(k)))))


def walk_settings(settings_type: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a dataclass and the groups inside it, by full name (``training.steps``), with its type."""
    for name, kind in hints_of(settings_type).items():
        if is_group(kind):
            yield from walk_settings(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def plain(value: Any) -> Any:
    """A value that YAML and JSON can hold: tuples and arrays as lists, numbers of NumPy as Python's, paths as text.

    Dataclasses become mappings.
    """
    if value is None or type(value) in (str, int, float, bool):  # nearly all are
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist") and not isinstance(value, type):
        return value.tolist()
    return value


def dated(settings_type: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of an older record, with what held before a setting was there where it is missing (``before``)."""
    kinds, result = hints_of(settings_type), dict(values)
    for field in dataclasses.fields(settings_type):
        inner = result.get(field.name)
        if is_group(kind := kinds[field.name]) and isinstance(inner, Mapping):
            result[field.name] = dated(kind, inner)
        elif "before" in field.metadata:
            result.setdefault(field.name, field.metadata["before"])
    return result


def completed(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values over defaults, group by group."""
    result = dict(defaults)
    for key, value in values.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = completed(result[key], value) if both else value
    return result


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by full name (``training.steps``), tuples as lists."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def misfit(value: Any, kind: Any, name: str = "") -> str | None:
    """What is wrong with plain values from JSON or YAML for a type, in a few words; None: they fit.

    Args:
        value: Of any type, from a file.
        kind: A type as annotations write it: a dataclass or ``TypedDict``, of which keys that are missing or unknown
            fit, or one built of ``int``, ``float`` (finite), ``str``, ``bool``, ``None``, ``Any``, ``list``, ``tuple``,
            ``dict``, ``Literal``, unions and marks of legal values.
        name: Of the value, for the words.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    fault = f"{name or 'it'} is {_short(value)}"
    if kind is Any:
        return None
    if origin is typing.NotRequired:
        return misfit(value, inner[0], name)
    if origin is typing.Annotated:
        if found := misfit(value, inner[0], name):
            return found
        mark = _mark(kind)
        return None if mark is None or is_legal(value, mark) else f"{fault}, not {_words(mark)}"
    if origin in (typing.Union, types.UnionType):
        faults = [misfit(value, one, name) for one in inner]
        return None if None in faults else faults[0]
    if typing.is_typeddict(kind):
        kind, hints = dict[str, Any], hints_of(kind, marked=True)
        origin, inner = dict, (str, Any)
    else:
        hints = hints_of(kind, marked=True) if is_group(kind) else {}
    if origin is typing.Literal:
        fits = any(type(value) is type(one) and value == one for one in inner)
        return None if fits else f"{fault}, not one of {', '.join(map(str, inner))}"
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return f"{fault}, not a list"
        same = origin is list or inner[-1:] == (...,)
        if not same and len(value) != len(inner):
            return f"{fault}, not {len(inner)} values"
        pairs = enumerate(zip(value, inner[:1] * len(value) if same else inner, strict=True))
        return _first(misfit(v, k, f"{name}[{i}]") for i, (v, k) in pairs)
    if origin is dict or is_group(kind):
        if not isinstance(value, Mapping):
            return f"{fault}, not a group of values"
        known = ((k, v, hints.get(k, Any) if hints else inner[1]) for k, v in value.items())
        return _first(misfit(v, t, f"{name}.{k}".lstrip(".")) for k, v, t in known)
    if kind is float and type(value) in (int, float):
        return None if math.isfinite(value) else f"{fault}, not finite"
    return None if type(value) is kind or kind not in _KINDS else f"{fault}, not {_KINDS[kind]}"


def _first(faults: Iterator[str | None]) -> str | None:
    return next((fault for fault in faults if fault is not None), None)


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return repr(text[:60] + "...") if len(text) > 60 else repr(value) if value == "" else text


_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "empty",
}


def verify_ranges(settings: Any, prefix: str = "") -> None:
    """Refuse numbers out of the range of their field, and texts of another form, in settings and their groups.

    So are more or fewer numbers than a setting has, see ``types.numbers``.

    Raises:
        InputError: Names the setting, its value and what is legal.
    """
    kind: type = type(settings)
    hints = hints_of(kind, marked=True)
    for field in dataclasses.fields(settings):
        value, mark = getattr(settings, field.name), _mark(hints[field.name])
        if dataclasses.is_dataclass(value):
            verify_ranges(value, f"{prefix}{field.name}.")
            continue
        count = field.metadata.get("numbers")
        if count and value is not None and len(value) != count:
            where = f"--{prefix}{field.name} {','.join(f'{item:g}' for item in value)}"
            raise SettingError(where, f"takes {count} numbers, not {len(value)}", "")
        if mark is not None and value is not None:
            for item in value if isinstance(value, tuple) else (value,):
                # A text stands in a union with numbers.
                named = isinstance(item, str) and isinstance(mark, Within)
                if not named and not is_legal(item, mark):
                    typed = str(item).removesuffix(".0")
                    raise SettingError(
                        f"--{prefix}{field.name}".replace("_", "-") + f" {typed}",
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
