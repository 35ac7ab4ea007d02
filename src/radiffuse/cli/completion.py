"""Completion in the shell: the commands, their flags and legal values, as a script that shtab writes."""

from __future__ import annotations

import argparse
from typing import Any

from ..commands import COMMANDS
from ..errors import InputError
from ..system.installing import install
from . import recipes
from .names import choices, flags, is_tuple, kinds, members, positionals

CONFIG = "_radiffuse_recipes_and_files"
"""Name of the function of bash that completes ``--config``."""


def script(shell: str) -> str:
    """The script for bash, zsh or fish.

    Raises:
        InputError: The package shtab is missing.
    """
    try:
        import shtab
    except ImportError:
        raise InputError(
            "radiffuse doctor --completion",
            "needs the package shtab",
            f"Install it: {install('completion')}",
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
            if not names:
                continue
            if kind is bool:
                sub.add_argument(*names, action="store_true", dest=names[0])
                continue
            few = None if is_tuple(kind) else choices(kind) or None
            action = sub.add_argument(*names, dest=names[0], choices=few)
            if str in members(kind):
                action.complete = file  # type: ignore[attr-defined]
        if positionals(name):
            few = next((c for p in positionals(name) if (c := choices(kinds(name)[p]))), None)
            action = sub.add_argument("words", nargs="*", choices=few)
            if few is None:
                action.complete = file  # type: ignore[attr-defined]
    return parser
