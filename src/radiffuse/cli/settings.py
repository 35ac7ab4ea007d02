"""From flags, YAML or keyword arguments to a command's settings. One way serves all three.

Order of precedence: defaults of ``radiffuse.config``, which may depend on the method or objective; then each
``--config`` in turn; then flags or keyword arguments.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..commands import COMMANDS
from ..config.decay import refuse_early_decay
from ..config.effect import refuse_idle
from ..config.given import Base, typed_over
from ..config.values import completed, from_dict, plain, to_dict, verify_ranges
from ..errors import InputError, SettingError
from .names import flag_of, is_tuple, kinds, legal, nested, positionals
from .recipes import read_recipe
from .words import read_words


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a command line said.

    Attributes:
        settings: The command's settings object.
        base: What holds where nothing is typed.
        unheeded: Sentences about the values of files and recipes that take no effect.
        dry_run: Print plan and settings instead of running: ``"short"`` or ``"full"``; empty: run.
    """

    settings: Any
    base: Base
    unheeded: Sequence[str] = ()
    dry_run: str = ""


def from_arguments(command: str, arguments: Sequence[str]) -> Parsed:
    """Settings of a command from its command line.

    Raises:
        InputError: An unknown flag or a value that is not legal; names its neighbors or the legal values.
    """
    given, chosen = _twice(command, functools.partial(_of_arguments, command, arguments))
    words = read_words(command, arguments, chosen)
    return Parsed(*_settings(command, given, chosen, words.configs), dry_run=words.dry_run)


def from_values(command: str, values: Mapping[str, Any]) -> Any:
    """Settings of a command from keyword arguments.

    Raises:
        InputError: As ``from_arguments``.
    """
    return parsed_values(command, values).settings


def parsed_values(command: str, values: Mapping[str, Any]) -> Parsed:
    """What keyword arguments said; ``config`` names a YAML file or a recipe.

    Raises:
        InputError: As ``from_arguments``.
    """
    given, chosen = _twice(command, functools.partial(_of_values, command, values))
    return Parsed(*_settings(command, given, chosen, _configs(values)))


def help_of(command: str, arguments: Sequence[str] = ()) -> str:
    """The help of a command, with the defaults of the method or objective that the other words choose.

    ``--help all`` shows every setting, ``--help`` those that a user sets.
    """
    from .help import help_text

    words = list(arguments)
    place = next((i for i, w in enumerate(words) if w in ("-h", "--help")), len(words))
    full = words[place + 1 : place + 2] == ["all"]
    words[place : place + 1 + full] = []
    given, chosen = _twice(command, functools.partial(_of_arguments, command, words))
    variants = COMMANDS[command].variants
    own = variants is not None and given.get(variants.setting) == chosen
    defaults = _defaults(command, chosen)
    if variants and own:
        defaults = dataclasses.replace(defaults, **{variants.setting: chosen})
    return help_text(command, defaults, chosen, own=own, full=full)


# ------------------------------------------------------------------------------------------------ internal


def _of_arguments(command: str, arguments: Sequence[str], chosen: str | None) -> dict[str, Any]:
    words = read_words(command, arguments, chosen)
    return _laid_over(command, words.configs, words.values, chosen)


def _of_values(command: str, values: Mapping[str, Any], chosen: str | None) -> dict[str, Any]:
    rest = {name: plain(value) for name, value in values.items() if name != "config"}
    return _laid_over(command, _configs(values), rest, chosen)


def _configs(values: Mapping[str, Any]) -> list[Any]:
    configs = values.get("config")
    several = configs if isinstance(configs, list | tuple) else [configs]
    return [config for config in several if config is not None]


def _laid_over(
    command: str, configs: Sequence[Any], values: Mapping[str, Any], chosen: str | None
) -> dict[str, Any]:
    """Values over files, a later file over one before."""
    given: dict[str, Any] = {}
    for config in configs:
        given = _over(given, nested(command, read_recipe(config), chosen, str(config)))
    return _over(given, nested(command, values, chosen))


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values over those of a file. Hours and steps both say how long: the one above replaces the other below."""
    given = completed(below, above)
    steps = above.get("training", {}).get("steps"), below.get("training", {}).get("steps")
    if above.get("hours") is not None and steps[0] is None and steps[1] is not None:
        return completed(given, {"training": {"steps": None}})
    if steps[0] is not None and above.get("hours") is None and below.get("hours") is not None:
        return completed(given, {"hours": None})
    return given


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


def _settings(
    command: str, given: dict[str, Any], chosen: str | None, configs: Sequence[Any]
) -> tuple[Any, Base, list[str]]:
    """Check types, ranges, effect and what is missing; returns what ``Parsed`` holds."""
    cls, variants = COMMANDS[command].settings, COMMANDS[command].variants
    if variants and given.get(variants.setting) in (None, "null", "none"):
        given = given | {variants.setting: chosen}
    defaults = _defaults(command, chosen)
    settings = _typed(command, given, defaults, chosen)
    for field in dataclasses.fields(cls):
        positional = field.name in positionals(command)
        needed = field.default == "" or (positional and field.default == ())
        if needed and not getattr(settings, field.name):
            flag = field.name.upper() if positional else f"--{field.name.removesuffix('_run')}"
            problem = f"{flag} is missing"
            bare = positionals(command)
            if positional and (given_ := [v for v in (getattr(settings, n) for n in bare) if v]):
                only = given_[0] if isinstance(given_[0], str) else ", ".join(given_[0])
                problem = f"needs {' and '.join(map(str.upper, bare))}, but has only {only}"
            raise InputError(command, problem, f"See radiffuse {command} --help")
    verify_ranges(settings)
    refuse_early_decay(settings)
    laid = _typed(command, _laid_over(command, configs, {}, chosen), defaults, chosen)
    base = Base(defaults, laid, ", ".join(map(str, configs)))
    unheeded: list[str] = []
    with typed_over(base, unheeded.append):
        refuse_idle(settings, defaults)
    return settings, base, unheeded


def _typed(command: str, given: dict[str, Any], defaults: Any, chosen: str | None) -> Any:
    """Settings of the right types from what is given, over defaults."""
    try:
        typed = _parser(command).parse_object(given, defaults=False).as_dict()
    except Exception as error:  # jsonargparse raises several types, all of them about values
        raise _explained(command, error, given, chosen) from None
    # Ranges are verified by the caller, where the flag can be named.
    return from_dict(type(defaults), completed(to_dict(defaults), typed), checked=False)


@functools.cache
def _parser(command: str) -> Any:
    """The parser of jsonargparse: it turns texts into values of the right types."""
    from jsonargparse import ArgumentParser

    cls = COMMANDS[command].settings
    parser = ArgumentParser(exit_on_error=False)
    for name in positionals(command):
        many: dict[str, Any] = {"type": str, "nargs": "*", "default": []}
        one = {"type": kinds(command)[name], "nargs": "?"}
        parser.add_argument(name, **(many if is_tuple(kinds(command)[name]) else one))
    parser.add_class_arguments(cls, as_group=False, skip=set(positionals(command)))
    return parser


def _explained(
    command: str, error: Exception, given: dict[str, Any], chosen: str | None
) -> InputError:
    """One sentence for what jsonargparse says of a value."""
    text, remedy = " ".join(str(error).split()).rstrip("."), f"See radiffuse {command} --help"
    found = re.match(r'.*?Parser key "([\w.]+)"', text)
    if not found or found[1] not in kinds(command):
        return InputError(command, text, remedy)
    name = found[1]
    value: Any = functools.reduce(dict.__getitem__, name.split("."), given)
    if is_tuple(kinds(command)[name]):  # as it is written on the command line
        several = value if isinstance(value, list) else [value]
        value = ",".join(map(str, several)).strip("[]")
    where = name.upper() if name in positionals(command) else flag_of(command, name, chosen)
    return SettingError(where, f"takes {legal(kinds(command)[name])}, not {value!r}", "")
