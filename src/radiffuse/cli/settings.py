"""From flags, YAML or keyword arguments to a command's settings. One parser serves all three.

Order of precedence: defaults of ``radiffuse.config``, then each ``--config`` in turn, then flags. A setting inside a
group goes by its full name (``--training.steps``) or, where it is unique, by its own (``--steps``); some groups go by
full names alone (``config.types.FULL_NAMES``). Lists are written with commas (``--labels 1,2,5``); a boolean flag alone
means true.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..commands import COMMANDS
from ..config.values import completed, from_dict, plain, verify_ranges
from ..errors import InputError
from ..system.files import read_yaml

RECIPES = Path(__file__).parents[1] / "config" / "recipes"
ALIASES = {"from": "from_run", "from_": "from_run", "with": "with_run", "with_": "with_run"}


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
    dry_run = "--dry-run" in arguments
    rest = [argument for argument in arguments if argument not in ("--dry-run",)]
    parser = _parser(command)
    try:
        namespace = parser.parse_args(_normalize(command, rest))
    except (
        Exception
    ) as error:  # jsonargparse raises several types, all of them about the user's words
        raise _explain(command, error) from None
    return Parsed(_finish(command, namespace.as_dict()), dry_run)


def from_values(command: str, values: Mapping[str, Any]) -> Any:
    """Settings of a command from keyword arguments; ``config`` names a YAML file or a recipe.

    Raises:
        InputError: As ``from_arguments``.
    """
    given: dict[str, Any] = {}
    for config in _as_list(values.get("config")):
        given = completed(given, _read_settings(command, config))
    leaves, types_ = _leaves(command), dict(_walk(COMMANDS[command].settings))
    for key, value in values.items():
        if key == "config":
            continue
        name = ALIASES.get(key, key)
        dotted = name if name in _groups(command) else leaves.get(name, name)
        nested: Any = plain(value)
        if isinstance(nested, str) and _is_tuple(types_.get(dotted)):
            nested = [nested]
        for part in reversed(dotted.split(".")):
            nested = {part: nested}
        given = completed(given, nested)
    try:
        namespace = _parser(command).parse_object(given)
    except Exception as error:
        raise _explain(command, error) from None
    return _finish(command, namespace.as_dict())


def read_recipe(name_or_file: str | Path) -> dict[str, Any]:
    """The settings of a shipped recipe (by name) or a YAML file.

    Raises:
        InputError: There is no such recipe or file, or it is not a mapping of settings.
    """
    path = recipe_path(name_or_file)
    return read_yaml(path)


def recipe_path(name_or_file: str | Path) -> Path:
    """Where a recipe or settings file is."""
    path = Path(name_or_file)
    if path.is_file():
        return path
    shipped = RECIPES / f"{name_or_file}.yaml"
    if "/" not in str(name_or_file) and shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
    raise InputError(str(name_or_file), "is neither a file nor a recipe", f"Recipes are: {known}")


def flags(command: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every flag of a command: its names, the full one first, and the type of its value. Not those of all commands."""
    cls = COMMANDS[command].settings
    positional = {f.name for f in dataclasses.fields(cls) if f.metadata.get("positional")}
    short = {dotted: leaf for leaf, dotted in _leaves(command).items()}
    words = {name: word for word, name in ALIASES.items() if not word.endswith("_")}
    for dotted, kind in _walk(cls):
        if dotted in positional:
            continue
        names = [words.get(dotted, dotted)]
        if dotted in short and dotted != short[dotted]:
            names.append(short[dotted])
        yield tuple(f"--{name.replace('_', '-')}" for name in names), kind


# ------------------------------------------------------------------------------------------------ internal


def _read_settings(command: str, source: str | Path) -> dict[str, Any]:
    """A recipe for a command; refuses a word in place of a group, which the parser would take for a file to read."""
    content = read_recipe(source)

    def verify(cls: type, values: Mapping[str, Any], prefix: str) -> None:
        hints = typing.get_type_hints(cls)
        for name, value in values.items():
            kind = hints.get(ALIASES.get(str(name), str(name)))
            if not dataclasses.is_dataclass(kind):
                continue
            if not isinstance(value, Mapping):
                problem = f"{prefix}{name} is a group of settings, not {str(value)[:60]!r}"
                raise InputError(str(source), problem, "Write its settings below it, indented")
            verify(typing.cast(type, kind), value, f"{prefix}{name}.")

    verify(COMMANDS[command].settings, content, "")
    return content


@functools.cache
def _parser(command: str) -> Any:
    from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    cls = COMMANDS[command].settings
    parser = ArgumentParser(
        prog=f"radiffuse {command}",
        description=COMMANDS[command].summary,
        exit_on_error=False,
    )
    positional = [f.name for f in dataclasses.fields(cls) if f.metadata.get("positional")]
    types_ = dict(_walk(cls))
    for name in positional:
        several = (
            {"nargs": "*", "default": []}
            if _is_tuple(types_[name])
            else {"nargs": "?", "default": ""}
        )
        parser.add_argument(name, type=str, help=_help(cls, name), **several)
    parser.add_argument(
        "--config",
        action=ActionConfigFile,
        help="YAML file with settings, or the name of a recipe.",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="Print settings and plan; run nothing."
    )
    parser.add_class_arguments(cls, as_group=False, skip=set(positional))
    return parser


def _help(cls: type, name: str) -> str:
    from docstring_parser import parse_from_object

    return next(
        (p.description or "" for p in parse_from_object(cls).params if p.arg_name == name), ""
    )


def _normalize(command: str, arguments: Sequence[str]) -> list[str]:
    """Spell out short flags, bare booleans, comma lists and recipe names."""
    leaves, types_ = _leaves(command), dict(_walk(COMMANDS[command].settings))
    result: list[str] = []
    configs: list[str] = []  # first, so that flags win wherever they stand
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--") or word == "--":
            result.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        name = ALIASES.get(name, name)
        dotted = name if name in types_ else leaves.get(name, name)
        if name == "config":
            source = value if equals else (queue.pop(0) if queue else "")
            _read_settings(command, source)
            configs += ["--config", str(recipe_path(source))]
            continue
        if dotted not in types_:
            result.append(word if name in ("help", "print_config") else f"--{name}{equals}{value}")
            continue
        kind = types_[dotted]
        if not equals:
            bare = not queue or queue[0].startswith("--")
            if kind is bool and (bare or queue[0].lower() not in ("true", "false")):
                value = "true"
            elif queue and not (bare and not _is_number(queue[0])):
                value = queue.pop(0)
            else:
                raise InputError(f"--{dotted}", "has no value", f"Give one: --{dotted} VALUE")
        if _is_tuple(kind) and not value.startswith("[") and value.lower() not in ("none", "null"):
            value = f"[{value}]"
        if value.lower() == "none" and type(None) in typing.get_args(kind):
            value = "null"
        result += [f"--{dotted}={value}"]
    return configs + result


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_tuple(kind: Any) -> bool:
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return any(typing.get_origin(member) is tuple for member in members)


def _walk(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _walk(typing.cast(type, kind), f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", kind


def _groups(command: str) -> set[str]:
    return {f.name for f in dataclasses.fields(COMMANDS[command].settings)}


def _leaves(command: str) -> dict[str, str]:
    """Settings inside groups that their own name alone identifies."""
    cls = COMMANDS[command].settings
    long = {f.name for f in dataclasses.fields(cls) if f.metadata.get("full_names")}
    found: dict[str, list[str]] = {}
    for dotted, _ in _walk(cls):
        if dotted.partition(".")[0] in long:
            continue
        found.setdefault(dotted.rsplit(".", 1)[-1], []).append(dotted)
    return {leaf: dotted[0] for leaf, dotted in found.items() if len(dotted) == 1}


def _explain(command: str, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    text = " ".join(str(error).split())
    names = [dotted for dotted, _ in _walk(COMMANDS[command].settings)]
    for word in text.replace("=", " ").replace('"', " ").replace("'", " ").split():
        flag = word.lstrip("-").rstrip(".,:")
        if (
            word.startswith("--") or "not expected" in text or "no parser key" in text.lower()
        ) and (flag not in names and flag.isidentifier()):
            leaf = {name.rsplit(".", 1)[-1]: name for name in names}
            close = difflib.get_close_matches(flag, [*leaf, *names], n=3, cutoff=0.5)
            if word.startswith("--") or close:
                hint = (
                    " or ".join(f"--{leaf.get(c, c)}" for c in close) or "radiffuse COMMAND --help"
                )
                return InputError(
                    f"--{flag}", "is not a setting of this command", f"Did you mean {hint}?"
                )
    return InputError(f"radiffuse {command}", text.rstrip("."), f"See radiffuse {command} --help")


def _finish(command: str, values: dict[str, Any]) -> Any:
    cls = COMMANDS[command].settings
    _part_positionals(cls, values)
    settings = from_dict(cls, values)
    for field in dataclasses.fields(cls):
        positional = field.metadata.get("positional")
        needed = field.default == "" or (positional and field.default == ())
        if needed and not getattr(settings, field.name):
            flag = field.name.upper() if positional else f"--{field.name.removesuffix('_run')}"
            raise InputError(
                f"radiffuse {command}", f"{flag} is missing", f"See radiffuse {command} --help"
            )
    verify_ranges(settings)
    return settings


def _part_positionals(cls: type, values: dict[str, Any]) -> None:
    """Of words without a flag the list takes all but the last, which belongs to the setting after it."""
    names = [f.name for f in dataclasses.fields(cls) if f.metadata.get("positional")]
    for several, single in itertools.pairwise(names):
        words = values.get(several)
        if isinstance(words, list | tuple) and words and not values.get(single):
            values[several], values[single] = list(words[:-1]), words[-1]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
