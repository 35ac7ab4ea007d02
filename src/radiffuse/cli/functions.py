"""The commands as Python functions with keyword-only arguments, and how a command runs once its settings are read."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..commands import COMMANDS, load_act

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.plan import Plan
    from ..train.run import Run


def function_of(name: str) -> Callable[..., Any]:
    """The public function of a command: keyword-only arguments, the same names as flags and YAML keys.

    Settings of a group are given by their own name where it is unique (``steps=500``), as a dict
    (``training={"steps": 500}``) or as the dataclass of ``radiffuse.config``.
    """
    settings = COMMANDS[name].settings

    def call(**values: Any) -> Any:
        from .settings import from_values

        return run(name, from_values(name, values))

    parameters = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=f.type,
            default=inspect.Parameter.empty if f.default == "" else f.default,
        )
        for f in dataclasses.fields(settings)
    ]
    call.__name__ = call.__qualname__ = name
    call.__doc__ = settings.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def fit_custom(
    *,
    network: Callable[[Plan], nn.Module] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    **values: Any,
) -> Run:
    """``radiffuse.fit`` with a network or a loss of one's own; see ``commands.fit.fit_custom``."""
    from ..commands.fit import fit_custom
    from .settings import from_values

    return fit_custom(from_values("fit", values), network=network, loss=loss)


def run(name: str, settings: Any) -> Any:
    """Run a command. A script for completion describes the command line itself, so it is printed from here."""
    if shell := getattr(settings, "completion", None):
        from .completion import script

        print(script(shell))
        return None
    return load_act(name)(settings)
