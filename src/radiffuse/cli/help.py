"""The help of a command: what a user sets, grouped; or everything."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ..commands import COMMANDS
from ..config.effect import never
from ..config.values import is_group, plain
from .names import choices, flag_of, is_tuple, kinds, members, positionals

USUAL = (
    *("plan.size", "plan.spacing", "training.steps", "training.batch_size", "training.seed"),
    *("split.test", "split.validation", "reader.group", "reader.label_values", "reader.skip_bad"),
    "machine.accelerator",
)
"""Beside the settings of the command itself, what a user sets in its groups."""
RARE = ("encoder", "weights")
"""Settings of the command itself that are shown with their method, or with everything."""
FEW = 20
"""A command with no more settings shows them all."""
WORDS = {int: "N", float: "X", bool: "", str: "TEXT"}
COLUMN = 26


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting as the help, the stubs and Python's ``help`` explain it.

    Attributes:
        name: Its full name.
        flag: As it is typed: ``--batch-size``, or ``DATA`` where it has no flag.
        kind: Its type.
        default: Its default with the chosen method; '' where it must be given.
        about: What it is, with its unit.
    """

    name: str
    flag: str
    kind: Any
    default: Any
    about: str

    @property
    def needed(self) -> bool:
        """Whether it must be given."""
        return self.default == "" or (self.default in ((), []) and not self.flag.startswith("--"))

    @property
    def shown_default(self) -> str:
        """The default as it is typed; empty where there is none."""
        if self.default in (None, "", (), []):
            return ""
        several = isinstance(self.default, list | tuple)
        text = ",".join(map(str, self.default)) if several else str(self.default)
        return text.lower() if isinstance(self.default, bool) else text


def settings_of(command: str, defaults: Any = None, chosen: str | None = "") -> list[Setting]:
    """Every setting of a command that it may take, in order.

    Args:
        command: Its name.
        defaults: Settings; None: those of the command without a method.
        chosen: The method or objective, on which the short names depend.
    """
    cls = COMMANDS[command].settings
    values, about = plain(defaults if defaults is not None else cls()), explained(cls)
    found = []
    for name, kind in kinds(command).items():
        if name in never(cls):
            continue
        default = functools.reduce(dict.__getitem__, name.split("."), values)
        bare = name in positionals(command)
        flag = name.upper() if bare else flag_of(command, name, chosen)
        found.append(Setting(name, flag, kind, default, about[name]))
    return found


@functools.cache
def explained(cls: type, prefix: str = "") -> Mapping[str, str]:
    """What each setting of a dataclass and of its groups is, by full name; a group has the first line of its class."""
    from docstring_parser import parse_from_object

    bases = [base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)]
    found = {}
    own = {p.arg_name: p.description or "" for b in bases for p in parse_from_object(b).params}
    for name, kind in typing.get_type_hints(cls).items():
        if is_group(kind):
            found[f"{prefix}{name}"] = (kind.__doc__ or "").strip().splitlines()[0]
            found |= explained(kind, f"{prefix}{name}.")
        else:
            text = " ".join(own[name].split()).replace("``", "")
            head, colon, rest = text.partition(": ")
            text = rest[:1].upper() + rest[1:] if colon and head.startswith("--") else text
            found[f"{prefix}{name}"] = text
    return types.MappingProxyType(found)


def help_text(command: str, defaults: Any, chosen: str | None, *, own: bool, full: bool) -> str:
    """The help of a command.

    Args:
        command: Its name.
        defaults: Its settings by default, with the chosen method.
        chosen: The method or objective.
        own: Whether it was chosen by name: then its own settings are shown as well.
        full: Show every setting.
    """
    settings = settings_of(command, defaults, chosen)
    full = full or len(settings) <= FEW
    about = explained(COMMANDS[command].settings)
    bare = [s for s in settings if not s.flag.startswith("--")]
    settings = sorted(settings, key=lambda s: (s not in bare, not s.needed))
    shown = [s for s in settings if full or _is_usual(command, s.name, chosen if own else None)]
    words = " ".join(_placed(s) for s in settings if s in bare or s.needed)
    groups: dict[str, list[Setting]] = {}
    for setting in shown:
        groups.setdefault(setting.name.rpartition(".")[0], []).append(setting)
    lines = [f"usage: radiffuse {command} {words} [--SETTING VALUE ...]".replace("  ", " "), ""]
    lines += [*_wrapped(COMMANDS[command].summary, ""), ""]
    for group, members_ in groups.items():
        title = _wrapped(f"{group}: {about[group]}", "") if group else []
        lines += [*title, *(line for s in members_ for line in _lines(s)), ""]
    lines += [
        *_entry("None", "What applies if a setting is left out."),
        *_entry("[VALUE]", "Its default. The source of a value: [paper], its [code], [related] "
                "work, or [ours]."),
        *_entry("--config FILE", "YAML file with settings, or the name of a recipe."),
        *_entry("--dry-run", "Print the plan and the settings that differ from the defaults; run nothing. "
                "--dry-run full: every setting."),
        *_entry("--help all", f"Every setting of the command ({len(settings)})."),
    ]  # fmt: skip
    examples = [f"  {example}" for example in COMMANDS[command].examples]
    return "\n".join([*lines, "", "examples:", *examples]) + "\n"


# ------------------------------------------------------------------------------------------------ internal


def _is_usual(command: str, name: str, chosen: str | None) -> bool:
    if name not in RARE and ("." not in name or name in USUAL):
        return True
    fields = {f.name: f.metadata for f in dataclasses.fields(COMMANDS[command].settings)}
    first, _, rest = name.partition(".")
    return chosen is not None and chosen in fields[first].get("only_for", ()) and "." not in rest


def _placed(setting: Setting) -> str:
    """A setting in the line of usage: in brackets what can be left out."""
    word = f"{setting.flag}{' ...' * is_tuple(setting.kind)}"
    if setting.flag.startswith("--"):
        return f"{word} {word.lstrip('-').upper()}"
    return word if setting.needed else f"[{word}]"


def _lines(setting: Setting) -> Iterator[str]:
    few = choices(setting.kind)
    first = members(setting.kind)[0]
    word = "true|false" if setting.default is True else "|".join(map(str, few))
    word = word or WORDS.get(_kind(first), "TEXT")
    if is_tuple(setting.kind):
        word = f"{word},..."
    head = setting.flag if not setting.flag.startswith("--") else f"{setting.flag} {word}".strip()
    default = f" [{setting.shown_default}]" if setting.shown_default else ""
    if setting.needed:
        default = " (required)"
    yield from _entry(head, setting.about + default)


def _kind(kind: Any) -> Any:
    if typing.get_origin(kind) is tuple:
        return _kind(typing.get_args(kind)[0])
    return typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _entry(head: str, text: str) -> list[str]:
    lines = _wrapped(text, " " * COLUMN)
    if len(head) + 4 <= COLUMN:
        return [f"  {head}".ljust(COLUMN) + lines[0][COLUMN:], *lines[1:]]
    return [f"  {head}", *lines]


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(max(shutil.get_terminal_size().columns, 60), 100)
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    ) or [""]  # fmt: skip
