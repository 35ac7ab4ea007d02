"""The words of a command line as settings: flags with their values, and words without a flag."""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, SettingError
from .names import flag_of, full_name, is_tuple, kinds, members, positionals


@dataclass
class Words:
    """What a command line says.

    Attributes:
        values: What is given by the full names of settings, as YAML spells it.
        configs: Files and recipes, in order.
        dry_run: ``"short"`` for ``--dry-run``, ``"full"`` for ``--dry-run full``, else empty.
    """

    values: dict[str, Any] = field(default_factory=dict)
    configs: list[str] = field(default_factory=list)
    dry_run: str = ""


def read_words(command: str, arguments: Sequence[str], chosen: str | None = None) -> Words:
    """Read a command line.

    Lists are written with commas (``--labels 1,2,5``); a boolean flag alone means true.

    Args:
        command: Name of the command.
        arguments: The words after it.
        chosen: The method or objective, see ``names.full_name``.

    Raises:
        InputError: An unknown flag, a flag without value, or a word too many.
    """
    result, queue = Words(), deque(arguments)
    bare: list[str] = []
    while queue:
        word = queue.popleft()
        if word == "--":
            bare += queue
            break
        if word in ("-h", "--help"):
            continue
        if word == "--dry-run":
            full = bool(queue) and queue[0] == "full"
            result.dry_run = queue.popleft() if full else "short"
        elif not word.startswith("--"):
            bare.append(word)
        else:
            name, equals, value = word[2:].partition("=")
            if name == "config":
                result.configs.append(value if equals or not queue else queue.popleft())
                continue
            name = full_name(command, name, chosen)
            kind = kinds(command).get(name)
            text = value if equals else _value(flag_of(command, name, chosen), kind, queue)
            result.values[name] = _spelled(text, kind)
    result.values |= _by_place(command, bare)
    return result


def _value(flag: str, kind: Any, queue: deque[str]) -> str:
    """The value of a flag that is written without an equals sign."""
    last = not queue or (queue[0].startswith("--") and not _is_number(queue[0]))
    if kind is bool and (last or queue[0].lower() not in ("true", "false")):
        return "true"
    if last:
        raise SettingError(flag, "has no value", f"Give one: {flag} VALUE")
    return queue.popleft()


def _spelled(text: str, kind: Any) -> Any:
    """A value as YAML spells it; several texts as a list, so that 0 stays a text."""
    if text.lower() == "none" and type(None) in getattr(kind, "__args__", ()):
        return "null"
    if kind is not None and is_tuple(kind) and not text.startswith("["):
        if text.lower() == "null":
            return text
        texts = any(typing.get_args(member)[:1] == (str,) for member in members(kind))
        return [word.strip() for word in text.split(",") if word] if texts else f"[{text}]"
    return text


def _by_place(command: str, words: list[str]) -> dict[str, Any]:
    """Words without a flag by the settings they belong to; one that holds several takes all that the others leave."""
    names = positionals(command)
    values: dict[str, Any] = {}
    for i, name in enumerate(names):
        if is_tuple(kinds(command)[name]):
            end = max(len(words) - (len(names) - i - 1), 0)
            if taken := words[:end]:
                values[name] = taken
            words = words[end:]
        elif words:
            values[name], *words = words
    if words:
        raise InputError(words[0], "is a word too many", f"See radiffuse {command} --help")
    return values


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
