"""The command line. A command parses, then calls one function; nothing heavy is imported until then."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..commands import COMMANDS
from ..errors import RadiffuseError, from_surroundings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``radiffuse ARGUMENTS`` and return the exit code.

    0: done; 2: bad input; 130: interrupted; 143: a training that SIGTERM stopped, with a checkpoint.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version", "version"):
        from .. import __version__

        print(f"radiffuse {__version__}")
        return 0
    try:
        return _run(words[0], words[1:])
    except RadiffuseError as error:
        print(f"radiffuse: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "radiffuse: stopped; the same command goes on from the last checkpoint", file=sys.stderr
        )
        return 130
    except Exception as error:
        known = from_surroundings(error)
        if known is None:
            raise
        print(f"radiffuse: {known}", file=sys.stderr)
        return known.exit_code


def _run(name: str, arguments: Sequence[str]) -> int:
    from .settings import from_arguments, help_of

    if name not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        print(
            f"radiffuse: there is no command '{name}'{hint or '.'} See radiffuse --help",
            file=sys.stderr,
        )
        return 2
    if {"-h", "--help"} & set(arguments):
        print(help_of(name, arguments), end="")
        return 0
    parsed = from_arguments(name, arguments)
    if parsed.dry_run:
        from .dry_run import describe

        print(describe(name, parsed.settings))
        return 0
    from .functions import run

    result = run(name, parsed.settings)
    return result if isinstance(result, int) else 0


def _overview() -> str:
    """The commands by purpose, on one screen."""
    width = max(map(len, COMMANDS))
    purposes = dict.fromkeys(command.purpose for command in COMMANDS.values())
    margin = max(map(len, purposes))
    lines = []
    for purpose in purposes:
        title = purpose
        for name, command in COMMANDS.items():
            if command.purpose == purpose:
                lines.append(f"{title:<{margin}}  {name:<{width}}  {command.about}")
                title = ""
    return "\n".join(
        [
            "radiffuse: many scans, few labels.",
            "",
            "usage: radiffuse COMMAND ... [--config FILE_OR_RECIPE] [--dry-run]",
            "",
            *lines,
            "",
            "radiffuse COMMAND --help lists the settings of a command.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
