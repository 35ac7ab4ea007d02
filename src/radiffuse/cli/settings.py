"""From flags, YAML or keyword arguments to a command's settings. One way serves all three.

Order of precedence: defaults of ``radiffuse.config``, which may depend on the method or objective; then each
``--config`` in turn; then flags or keyword arguments.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..commands import COMMANDS
from ..config.values import completed, from_dict, plain, to_dict, verify_ranges
from ..errors import InputError
from .names import groups, is_tuple, kinds, legal, nested, positionals
from .recipes import read_recipe
from .words import read_words


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a command line said.

    Attributes:
        settings: The command's settings object.
        dry_run: Print settings and plan instead of running.
    """

    settings: Any
    dry_run: bool = False


def from_arguments(command: str, arguments: Sequence[str]) -> Parsed:
    """Settings of a command from its command line.

    Raises:
        InputError: An unknown flag or a value that is not legal; names its neighbors or the legal values.
    """
    given, chosen = _twice(command, functools.partial(_of_arguments, command, arguments))
    dry_run = read_words(command, arguments, chosen).dry_run
    return Parsed(_settings(command, given, chosen), dry_run)


def from_values(command: str, values: Mapping[str, Any]) -> Any:
    """Settings of a command from keyword arguments; ``config`` names a YAML file or a recipe.

    Raises:
        InputError: As ``from_arguments``.
    """
    return _settings(command, *_twice(command, functools.partial(_of_values, command, values)))


def help_of(command: str, arguments: Sequence[str] = ()) -> str:
    """The help of a command, with the defaults of the method or objective that the other words choose."""
    given, chosen = _twice(command, functools.partial(_of_arguments, command, arguments))
    parser = _parser(command)
    defaults = plain(_defaults(command, chosen))
    variants = COMMANDS[command].variants
    if variants and variants.setting in given:
        defaults[variants.setting] = chosen
    parser.set_defaults(
        {
            name: functools.reduce(dict.__getitem__, name.split("."), defaults)
            for name in kinds(command)
        }
    )
    text: str = parser.format_help()
    return text


# ------------------------------------------------------------------------------------------------ internal


def _of_arguments(command: str, arguments: Sequence[str], chosen: str | None) -> dict[str, Any]:
    words = read_words(command, arguments, chosen)
    return _laid_over(command, words.configs, words.values, chosen)


def _of_values(command: str, values: Mapping[str, Any], chosen: str | None) -> dict[str, Any]:
    configs = values.get("config")
    several = configs if isinstance(configs, list | tuple) else [configs]
    rest = {name: plain(value) for name, value in values.items() if name != "config"}
    return _laid_over(command, [c for c in several if c is not None], rest, chosen)


def _laid_over(
    command: str, configs: Sequence[Any], values: Mapping[str, Any], chosen: str | None
) -> dict[str, Any]:
    """Values over files, a later file over one before."""
    given: dict[str, Any] = {}
    for config in configs:
        given = completed(given, nested(command, read_recipe(config), chosen, str(config)))
    return completed(given, nested(command, values, chosen))


def _twice(
    command: str, read: Callable[[str | None], dict[str, Any]]
) -> tuple[dict[str, Any], str | None]:
    """What is given, and the method or objective, on which short names depend: so it is read twice."""
    variants = COMMANDS[command].variants
    if variants is None:
        return read(""), ""
    chosen = variants.choose(read(None))
    return read(chosen), chosen


def _defaults(command: str, chosen: str | None) -> Any:
    variants = COMMANDS[command].variants
    return variants.defaults[chosen] if variants else COMMANDS[command].settings()


def _settings(command: str, given: dict[str, Any], chosen: str | None) -> Any:
    """Check types, ranges and what is missing; what is not given takes its default."""
    cls, variants = COMMANDS[command].settings, COMMANDS[command].variants
    if variants and given.get(variants.setting) in (None, "null", "none"):
        given = given | {variants.setting: chosen}
    try:
        typed = _parser(command).parse_object(given, defaults=False).as_dict()
    except Exception as error:  # jsonargparse raises several types, all of them about values
        raise _explained(command, error, given) from None
    defaults = _defaults(command, chosen)
    settings = from_dict(cls, completed(to_dict(defaults), typed))
    for field in dataclasses.fields(cls):
        positional = field.name in positionals(command)
        needed = field.default == "" or (positional and field.default == ())
        if needed and not getattr(settings, field.name):
            flag = field.name.upper() if positional else f"--{field.name.removesuffix('_run')}"
            problem = f"{flag} is missing"
            raise InputError(f"radiffuse {command}", problem, f"See radiffuse {command} --help")
    _verify_foreign(settings, defaults, (chosen,))
    verify_ranges(settings)
    return settings


def _verify_foreign(
    settings: Any, defaults: Any, chosen: tuple[str | None, ...], prefix: str = ""
) -> None:
    """Refuse what was given for another method or objective than those chosen, in groups of a study as well."""
    for field in dataclasses.fields(settings):
        value, default = getattr(settings, field.name), getattr(defaults, field.name)
        if used_for := field.metadata.get("used_for"):
            _verify_foreign(value, default, used_for, f"{prefix}{field.name}.")
        only = field.metadata.get("only_for", chosen)
        if set(only) & set(chosen):
            continue
        name = _difference(f"{prefix}{field.name}", value, default)
        if name is not None:
            kind = next(c for c in COMMANDS.values() if c.settings is type(settings))
            assert kind.variants
            wanted = " or ".join(f"--{kind.variants.setting} {value}" for value in only)
            problem = f"is for {wanted}, not for {', '.join(map(str, chosen))}"
            remedy = "give it in another group" if prefix else "choose that one"
            raise InputError(f"--{name}", problem, f"Leave it out, or {remedy}")


def _difference(name: str, value: Any, default: Any) -> str | None:
    """The full name of the first setting that differs."""
    if value == default:
        return None
    for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        one, other = getattr(value, field.name), getattr(default, field.name)
        if (found := _difference(f"{name}.{field.name}", one, other)) is not None:
            return found
    return name


@functools.cache
def _parser(command: str) -> Any:
    """The parser of jsonargparse: it turns texts into values of the right types, and writes the help."""
    from docstring_parser import parse_from_object
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    cls = COMMANDS[command].settings
    words = [
        f"[{name.upper()}{' ...' * is_tuple(kinds(command)[name])}]"
        for name in positionals(command)
    ]
    parser = ArgumentParser(
        usage=" ".join(["radiffuse", command, *words, "[--SETTING VALUE ...]"]),
        description=COMMANDS[command].summary,
        exit_on_error=False,
    )
    about = {p.arg_name: p.description or "" for p in parse_from_object(cls).params}
    for name in positionals(command):
        many: dict[str, Any] = {"type": str, "nargs": "*", "default": []}
        one = {"type": kinds(command)[name], "nargs": "?"}
        several = is_tuple(kinds(command)[name])
        parser.add_argument(name, help=about[name], **(many if several else one))
    parser.add_argument("--config", help="YAML file with settings, or the name of a recipe.")
    parser.add_argument(
        "--dry-run", action="store_true", help="Print settings and plan; run nothing."
    )
    parser.add_class_arguments(cls, as_group=False, skip=set(positionals(command)))
    for action in parser._actions:
        if action.dest in groups(command):  # it would take the name of a file
            action.help = argparse.SUPPRESS
    return parser


def _explained(command: str, error: Exception, given: dict[str, Any]) -> InputError:
    """One sentence for what jsonargparse says of a value."""
    text, remedy = " ".join(str(error).split()).rstrip("."), f"See radiffuse {command} --help"
    found = re.match(r'.*?Parser key "([\w.]+)"', text)
    if not found or found[1] not in kinds(command):
        return InputError(f"radiffuse {command}", text, remedy)
    name = found[1]
    value: Any = functools.reduce(dict.__getitem__, name.split("."), given)
    if is_tuple(kinds(command)[name]):  # as it is written on the command line
        several = value if isinstance(value, list) else [value]
        value = ",".join(map(str, several)).strip("[]")
    where = name.upper() if name in positionals(command) else f"--{name}"
    return InputError(where, f"takes {legal(kinds(command)[name])}, not {value!r}", remedy)
