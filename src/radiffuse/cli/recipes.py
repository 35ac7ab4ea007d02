"""Recipes: files of settings, the shipped ones by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system.files import read_yaml

RECIPES = Path(__file__).parents[1] / "config" / "recipes"


def read_recipe(name_or_file: str | Path) -> dict[str, Any]:
    """The settings of a shipped recipe (by name) or a YAML file.

    Raises:
        InputError: There is no such recipe or file, or it is not a mapping of settings.
    """
    path = Path(name_or_file)
    if not path.is_file():
        path = RECIPES / f"{name_or_file}.yaml"
        if "/" in str(name_or_file) or not path.is_file():
            known = f"Recipes are: {', '.join(names())}"
            raise InputError(str(name_or_file), "is neither a file nor a recipe", known)
    return read_yaml(path)


def names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))
