"""The command line. A command parses, then calls one function; nothing heavy is imported until then."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from ..commands import COMMANDS
from ..errors import RadiffuseError, from_surroundings
from .output import plain_output
from .stopping import Terminated, finished, stopped, terminated_as_interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``radiffuse ARGUMENTS`` and return the exit code.

    0: done; 2: bad input; 130: interrupted; 141: nobody reads the output any more; 143: stopped by SIGTERM.
    """
    try:
        with plain_output(), terminated_as_interrupted():
            code = _main(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read has seen enough, such as head
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141


def _main(words: Sequence[str]) -> int:
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
    except KeyboardInterrupt as asked:
        told = str(asked) or stopped(words[0], None)
        print(f"radiffuse: {told}", file=sys.stderr)
        return 143 if isinstance(asked, Terminated) else 130
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
        from ..commands._dry_run import describe
        from .functions import obeying

        with obeying(parsed):
            full = parsed.dry_run == "full"
            print(describe(name, parsed.settings, parsed.base.defaults, full=full))
        return 0
    from .functions import run

    try:
        result = run(name, parsed)
    except KeyboardInterrupt as asked:
        if not str(asked):
            asked.args = (stopped(name, getattr(parsed.settings, "out", None)),)
        raise
    if isinstance(result, int | None):
        return result or 0
    try:
        from ..commands._ending import ending
        from ..system.saying import say

        for line in ending(name, parsed.settings, result):
            say(line)
    except KeyboardInterrupt as asked:
        asked.args = (finished(name, result),)
        raise
    return 0


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
            "To begin, with labelled images in LABELLED and others in POOL:",
            "  radiffuse check LABELLED",
            "  radiffuse fit LABELLED --unlabelled POOL --hours 2 --out runs/seg",
            "",
            "radiffuse COMMAND --help lists its main settings, --help all every setting.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
