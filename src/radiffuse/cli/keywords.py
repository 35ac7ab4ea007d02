"""What an error says to those who call a command from Python: ``labels=5`` instead of ``--labels 5``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..commands import COMMANDS
from ..errors import InputError, RadiffuseError
from .names import ALIASES, choices, full_name, is_tuple, kinds, positionals

_FLAG = r"(?<![\w/.=-])--([a-z][a-z0-9_-]*(?:\.[a-z][a-z0-9_-]*)*)"
_SHELL = rf"(?:radiffuse )?\b(?:{'|'.join(COMMANDS)})(?: [A-Z]+)*(?: --\S+(?: (?!--)\S+)?)+"
"""A command as a shell takes it, with its flags."""
_CONSTANTS = {"true": "True", "false": "False", "null": "None"}
_NUMBER = r"-?\d*\.?\d+(?:e-?\d+)?"


@contextmanager
def in_python(command: str) -> Iterator[None]:
    """Within the block an error that a user can mend names the settings of a command as Python takes them.

    Paths stay as they are, and so does a whole command for a shell.
    """
    try:
        yield
    except RadiffuseError as error:
        parts = [_translated(command, p) if isinstance(p, str) else p for p in error.args]
        if isinstance(error, InputError):
            if isinstance(where := error.args[0], str):
                parts[0] = _where(command, where)
            error.where, error.problem, error.remedy = str(parts[0]), *map(str, parts[1:])
        error.args = tuple(parts)
        raise


def keyword(name: str) -> str:
    """A setting as Python takes it: ``from_`` for ``from_run``."""
    return next((word for word, one in ALIASES.items() if one == name and word.endswith("_")), name)


# ------------------------------------------------------------------------------------------------ internal


def _where(command: str, where: str) -> str:
    """Where an error is: of a flag, all that follows is its value."""
    if (found := re.fullmatch(rf"{_FLAG} (.+)", where)) and " --" not in found[2]:
        return _given(command, found[1], found[2])
    return _translated(command, where)


def _translated(command: str, text: str) -> str:
    """A text whose flags become keyword arguments, with their values where it is plain that they are such."""

    def spoken(found: re.Match[str]) -> str:
        if found["help"]:
            asked = found["help"] if found["help"] in COMMANDS else command
            return f"help(radiffuse.{asked})"
        if found["place"]:
            return found["place"].lower()
        if not (flag := found["flag"]):
            return found[0]
        word = found["word"] or ""
        if word and _is_value(word, _kind(command, flag)):
            return _given(command, flag, word)
        return f"{_given(command, flag)}{word and ' '}{word}"

    places = "|".join(name.upper() for name in positionals(command)) or "(?!)"
    flag = _FLAG.replace("--(", "--(?P<flag>")
    known = (
        r"radiffuse (?P<help>\w+) --help",
        _SHELL,
        rf"(?<![\w/.-])(?P<place>{places})(?![\w/-])",
        rf"{flag}(?: (?P<word>\w(?:[\w.,:+-]*\w)?))?",
    )
    return re.sub("|".join(known), spoken, text)


def _given(command: str, flag: str, value: str | None = None) -> str:
    """``labels`` and ``labels=5``; of a group ``training={"steps": ...}`` and ``training={"steps": 5}``."""
    group, dot, last = flag.replace("-", "_").partition(".")
    name = keyword(ALIASES.get(group, group))
    shown = "..." if value is None else _literal(value, _kind(command, flag))
    if dot:
        return f'{name}={{"{last}": {shown}}}'
    return name if value is None else f"{name}={shown}"


def _kind(command: str, flag: str) -> Any:
    """The type of a setting; None for a group, or the setting of another command."""
    with suppress(InputError):
        return kinds(command).get(full_name(command, flag))
    return None


def _is_value(word: str, kind: Any) -> bool:
    """Whether a word after a flag can only be its value."""
    parts = word.split(",")
    known = {*_CONSTANTS, *map(str, choices(kind) if kind is not None else ())}
    return all(part in known or re.fullmatch(_NUMBER, part) for part in parts)


def _literal(value: str, kind: Any) -> str:
    """A value as Python writes it."""
    if kind is not None and is_tuple(kind) and "," in value:
        return f"({', '.join(_literal(part, None) for part in value.split(','))})"
    plain = value in _CONSTANTS or re.fullmatch(_NUMBER, value)
    return _CONSTANTS.get(value, value) if plain else f'"{value}"'
