"""The list of commands. Torch-free, so that ``--help`` answers at once; an act is imported when it runs."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import config


@dataclass(frozen=True)
class Command:
    """A command: the dataclass of its settings, and ``module:function`` that takes one such object."""

    settings: type
    target: str

    @property
    def summary(self) -> str:
        """First line of the settings' docstring."""
        return (self.settings.__doc__ or "").strip().splitlines()[0]


COMMANDS: dict[str, Command] = {
    "check": Command(config.Check, "radiffuse.acts:check"),
    "anatomy": Command(config.Anatomy, "radiffuse.acts:anatomy"),
    "pretrain": Command(config.Pretrain, "radiffuse.methods.pretrain:pretrain"),
    "sample": Command(config.Sample, "radiffuse.methods.pretrain:sample"),
    "finetune": Command(config.Finetune, "radiffuse.methods.finetune:finetune"),
    "diffseg": Command(config.DiffSeg, "radiffuse.methods.diffseg:diffseg"),
    "predict": Command(config.Predict, "radiffuse.inference.predict:predict"),
    "evaluate": Command(config.Evaluate, "radiffuse.acts:evaluate"),
    "study": Command(config.Study, "radiffuse.studies:study"),
    "report": Command(config.Report, "radiffuse.acts:report"),
    "info": Command(config.Info, "radiffuse.acts:info"),
}


def load_act(name: str) -> Callable[[Any], Any]:
    """The function behind a command; it takes the command's settings object."""
    module, _, function = COMMANDS[name].target.partition(":")
    act: Callable[[Any], Any] = getattr(importlib.import_module(module), function)
    return act


def load_command(name: str) -> Callable[..., Any]:
    """The public function of a command: keyword-only arguments, the same names as flags and YAML keys.

    Settings of a group are given by their own name where it is unique (``steps=500``), as a dict
    (``training={"steps": 500}``) or as the dataclass of ``radiffuse.config``.
    """
    command = COMMANDS[name]

    def call(**values: Any) -> Any:
        from .settings import from_values

        return load_act(name)(from_values(name, values))

    parameters = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=f.type,
            default=inspect.Parameter.empty if f.default == "" else f.default,
        )
        for f in dataclasses.fields(command.settings)
    ]
    call.__name__ = call.__qualname__ = name
    call.__doc__ = command.settings.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
