"""What type checkers and editors see of ``radiffuse``: ``python tools/stubs.py src/radiffuse/__init__.pyi [--check]``.

Each command has its settings as keyword-only arguments, by the names that Python takes; a test and ``make check`` hold
the file up to date.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from radiffuse.cli.names import ALIASES, members, short_names
from radiffuse.commands import COMMANDS
from radiffuse.config.values import is_group
from radiffuse.system.files import write_atomic

HEAD = '''"""Made by tools/stubs.py from the settings; edit those instead."""
# fmt: off
# ruff: noqa

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from torch import Tensor, nn

from . import config
from .commands._result import Run as Run
from .data.plan import Plan
from .release.segmenter import Segmenter as Segmenter

__version__: str
'''
RESULTS = {"pretrain", "fit", "classify", "synthesize"}
"""Commands that give a run."""
OWN = """    network: Callable[[Plan], nn.Module] | None = ...,
    loss: Callable[[Tensor, Tensor], Tensor] | None = ...,
"""


def stubs() -> str:
    """The text of the file."""
    parts = [HEAD]
    for name in COMMANDS:
        parts.append(_function(name, name))
    parts.append(_function("fit_custom", "fit", OWN))
    return "\n".join(parts)


def _function(name: str, command: str, more: str = "") -> str:
    result = "Run" if command in RESULTS else "Any"
    about = f'    """{COMMANDS[command].summary}"""'
    own = {line.partition(":")[0].strip() for line in more.splitlines()}
    arguments = (a for a in _arguments(command) if a.partition(":")[0] not in own)
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return f"def {name}(\n    *,\n{more}{lines}) -> {result}:\n{about}\n"


def _arguments(command: str) -> Iterator[str]:
    cls, words = COMMANDS[command].settings, {v: k for k, v in ALIASES.items() if k.endswith("_")}
    hints, given = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        group = f"config.{kind.__name__} | Mapping[str, Any]" if is_group(kind) else ""
        needed = field.default == "" and field.metadata.get("positional")
        needed = needed or (field.default == "" and field.name == "out")
        given[words.get(field.name, field.name)] = (group or _text(kind), bool(needed))
    for short, kinds in short_names(command).items():
        text = " | ".join(
            dict.fromkeys(part for kind in kinds for part in _text(kind).split(" | "))
        )
        given.setdefault(words.get(short, short), (text, False))
    for name, (text, needed) in given.items():
        yield f"{name}: {text}" + ("" if needed else " = ...")
    yield "config: str | PathLike[str] | Sequence[str | PathLike[str]] | None = ..."


def _text(kind: Any) -> str:
    """A type as it is written; where one text or number stands for several, as well."""
    texts: dict[str, None] = {}
    for member in members(kind):
        member = typing.get_args(member)[0] if hasattr(member, "__metadata__") else member
        if typing.get_origin(member) is tuple:
            inner = _text(typing.get_args(member)[0])
            texts |= dict.fromkeys(
                (f"Sequence[{inner}]".replace(" | ", "_OR_"), *inner.split(" | "))
            )
        elif typing.get_origin(member) is typing.Literal:
            texts[f"Literal[{', '.join(map(repr, typing.get_args(member)))}]"] = None
        elif member is type(None):
            texts["None"] = None
        else:
            texts |= dict.fromkeys(
                ("str", "PathLike[str]") if member is str else (member.__name__,)
            )
    return " | ".join(texts).replace("_OR_", " | ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the stubs: 0; with ``--check`` 1 where they are out of date."""
    parser = argparse.ArgumentParser(prog="tools/stubs.py", description=main.__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args(arguments)
    text = stubs()
    stale = not given.page.is_file() or given.page.read_text(encoding="utf-8") != text
    if stale and not given.check:
        write_atomic(given.page, text)
    if stale:
        print(f"{given.page}: {'out of date' if given.check else 'updated'}")
    return int(stale and given.check)


if __name__ == "__main__":
    sys.exit(main())
