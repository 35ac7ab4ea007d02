"""The commands as Python functions with keyword-only arguments, and how a command runs once its settings are read."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commands import COMMANDS, load_act
from ..config.given import typed_over
from ..errors import InputError
from ..system.leftovers import leaves_nothing_empty
from ..system.privacy import private
from ..system.saying import first, hush, say, soon
from .keywords import in_python, keyword
from .output import plain_output

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.plan import Plan
    from ..train.run import Run
    from .settings import Parsed


@functools.cache
def function_of(name: str) -> Callable[..., Any]:
    """The public function of a command: keyword-only arguments, the same names as flags and YAML keys.

    Settings of a group are given by their own name where it is unique (``steps=500``), as a dict
    (``training={"steps": 500}``) or as the dataclass of ``radiffuse.config``.
    """
    settings = COMMANDS[name].settings

    def call(**values: Any) -> Any:
        from .settings import parsed_values

        with plain_output(), in_python(name):
            return _as_run(run(name, parsed_values(name, values)))

    parameters = [
        inspect.Parameter(
            keyword(f.name),
            inspect.Parameter.KEYWORD_ONLY,
            annotation=f.type,
            default=inspect.Parameter.empty if f.default == "" else _default(f),
        )
        for f in dataclasses.fields(settings)
    ]
    call.__name__ = call.__qualname__ = name
    call.__doc__ = documentation(name)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _default(field: dataclasses.Field[Any]) -> Any:
    """A default as it is read; of a group ``...``, since its settings have theirs, and some depend on the method."""
    return ... if dataclasses.is_dataclass(field.default) else field.default


def documentation(name: str) -> str:
    """What a command does, and every argument with its unit and default, for Python's ``help``."""
    from .help import settings_of

    lines = [COMMANDS[name].summary, "", "Args:"]
    for one in settings_of(name):
        word = one.flag.removeprefix("--").replace("-", "_").lower()
        word = f"{word}_" if word in ("from", "with", "for") else word
        group, _, last = word.rpartition(".")
        default = "required" if one.default == "" else f"default {one.shown_default or None}"
        where = f" (in {group})" if group else ""
        lines.append(f"    {last}{where}: {one.about} ({default})")
    return "\n".join(lines)


def fit_custom(
    *,
    network: Callable[[Plan], nn.Module] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    **values: Any,
) -> Run:
    """``radiffuse.fit`` by finetune or scratch, with a network or a loss of one's own; see ``commands.fit``."""
    from ..commands.fit import fit_custom
    from .settings import parsed_values

    started = any(values.get(name) for name in ("from_", "from_run", "from"))
    usual = {"method": "finetune" if started else "scratch"}
    with plain_output(), in_python("fit"):
        parsed = parsed_values("fit", usual | values)
        with private(), obeying(parsed):
            made: Run = _as_run(fit_custom(parsed.settings, network=network, loss=loss))
            return made


def _as_run(result: Any) -> Any:
    """A run folder as the object that Python's users get."""
    from ..commands._result import Run
    from ..train.run import Run as RunFolder

    return Run(result.folder) if isinstance(result, RunFolder) else result


IMAGES = ("data", "unlabelled", "with_run", "real", "fake", "truth")
"""Settings that are folders of images."""


def _expect_folders(settings: Any) -> None:
    """Refuse runs and folders of images that do not exist before anything else is loaded.

    Raises:
        InputError: One does not exist.
    """
    from ..data.layouts import existing
    from ..train.run import Run as RunFolder
    from ..train.run import find_run

    def given(name: str) -> tuple[str, ...]:
        value = getattr(settings, name, None)
        return (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()

    for folder in given("runs"):
        RunFolder.open(folder)
    for folder in (folder for name in IMAGES for folder in given(name)):
        existing(folder)
    for name in given("encoder"):
        path = Path(name).expanduser()
        if name.startswith((".", "/", "~")) and not path.exists():  # others may be public names
            raise InputError(
                f"--encoder {name}", "does not exist", "Check the spelling of the path"
            )
    for run in (*given("run"), *(run for run in given("from_run") if not Path(run).is_dir())):
        find_run(run)  # a folder to start from may be a model alone, which the command tells


@contextmanager
def obeying(parsed: Parsed) -> Iterator[None]:
    """Within the block what was typed is obeyed or refused; what a file gives in vain is told."""

    def tell(*sentences: str) -> None:
        if first():
            say(f"{parsed.base.files}: {'; '.join(sentences)}")

    if parsed.unheeded:
        tell(*parsed.unheeded)
    with typed_over(parsed.base, tell):
        yield


def run(name: str, parsed: Parsed) -> Any:
    """Run a command. A script for completion describes the command line itself, so it is printed from here."""
    if shell := getattr(parsed.settings, "completion", None):
        from .completion import script

        print(script(shell))
        return None
    if name != "info":  # which also tells of what is no run
        _expect_folders(parsed.settings)
    if COMMANDS[name].together or name in ("study", "augment"):
        soon(f"reading {parsed.settings.data}")
    out = getattr(parsed.settings, "out", None)
    try:
        made = leaves_nothing_empty(Path(out)) if out else nullcontext()
        with made, obeying(parsed):
            return load_act(name)(parsed.settings)
    finally:
        hush()
