"""Completion in the shell: the commands, their flags and legal values, as a script that shtab writes."""

from __future__ import annotations

import argparse
import typing
from typing import Any

from ..commands import COMMANDS
from ..errors import InputError
from . import recipes
from .names import flags, kinds, members, positionals

SHELLS = ("bash", "zsh", "fish")
CONFIG = "_radiffuse_recipes_and_files"
"""Name of the function of bash that completes ``--config``."""


def script(shell: str) -> str:
    """The script for a shell.

    Args:
        shell: One of ``SHELLS``.

    Raises:
        InputError: Another shell, or the package shtab is missing.
    """
    if shell not in SHELLS:
        raise InputError(shell, "is no shell that can be served", f"Choose {', '.join(SHELLS)}")
    try:
        import shtab
    except ImportError:
        raise InputError(
            "radiffuse doctor --completion",
            "needs the package shtab",
            'Install it: pip install "radiffuse[completion]"',
        ) from None
    known = " ".join(recipes.names())
    preamble = f'{CONFIG}() {{\n  compgen -W "{known}" -- "$1"\n  compgen -f -- "$1"\n}}\n'
    text: str = shtab.complete(
        _parser(shtab.FILE), shell, preamble=preamble if shell == "bash" else ""
    )
    return text


# ------------------------------------------------------------------------------------------------ internal


def _parser(file: dict[str, Any]) -> argparse.ArgumentParser:
    """The command line as a plain parser: names, legal values, and where a file may stand."""
    parser = argparse.ArgumentParser(prog="radiffuse")
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        summary = command.summary.replace("%", "%%")
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.add_argument("--config", metavar="FILE").complete = file | {"bash": CONFIG}  # type: ignore[attr-defined]
        sub.add_argument("--dry-run", action="store_true")
        taken: set[str] = set()
        for several, kind in flags(name):
            names = [flag for flag in several if flag not in taken]  # one may depend on the method
            taken.update(names)
            if kind is bool:
                sub.add_argument(*names, action="store_true", dest=names[0])
                continue
            action = sub.add_argument(*names, dest=names[0], choices=_choices(kind))
            if str in members(kind) and action.choices is None:
                action.complete = file  # type: ignore[attr-defined]
        if positionals(name):
            words = _words(name)
            action = sub.add_argument("words", nargs="*", choices=words)
            if words is None:
                action.complete = file  # type: ignore[attr-defined]
    return parser


def _words(command: str) -> list[str] | None:
    """Legal values of the words without a flag, where they have a few."""
    found = (_choices(kinds(command)[name]) for name in positionals(command))
    return next((values for values in found if values), None)


def _choices(kind: Any) -> list[str] | None:
    """The legal values of a setting that has a few."""
    for member in members(kind):
        if typing.get_origin(member) is typing.Literal:
            return [str(value) for value in typing.get_args(member)]
    return None
