"""Which packages radiffuse asks for, which of them are here, and what the optional ones are for."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PURPOSES = {
    "jpeg": "JPEG-LS and lossless JPEG inside DICOM",
    "view": "look at scans and masks in the browser",
    "browser": "test the page of view in a real browser",
    "export": "export trained networks to ONNX",
    "dicom-seg": "write masks as DICOM-SEG",
    "dask": "prepare data on many machines",
    "zarr": "prepared arrays in zarr and on object stores",
    "wandb": "mirror logs to Weights & Biases",
    "mlflow": "mirror logs to MLflow",
    "completion": "completion of commands in the shell",
    "docs": "build the documents",
    "dev": "tests, lint and types",
}
"""What each extra is for, in the order in which they are shown."""


@dataclass(frozen=True)
class Package:
    """A package that is asked for.

    Attributes:
        name: As on the package index.
        wanted: Its range, such as ``<3,>=2``; empty where any serves.
        installed: The version that is here; None: none.
        fits: It is here and in the range.
    """

    name: str
    wanted: str
    installed: str | None
    fits: bool


@dataclass(frozen=True)
class Extra:
    """An optional group of packages.

    Attributes:
        name: As in ``pip install "radiffuse[NAME]"``.
        purpose: What it is for; empty where nothing is known.
        missing: Packages of it that are not here, or not in their range.
    """

    name: str
    purpose: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Requirements:
    """What radiffuse asks for, by requirement strings of the packaging standard (PEP 508).

    Attributes:
        python: Range of Python.
        packages: What is always needed.
        extras: What each extra adds.
    """

    python: str
    packages: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]


def requirements(project: Path | None = None) -> Requirements:
    """What this version asks for: from ``pyproject.toml`` in a clone, else from the installed package.

    Args:
        project: The ``pyproject.toml`` of a clone; None: where it would lie beside this file.
    """
    path = project or Path(__file__).parents[3] / "pyproject.toml"
    if path.is_file():
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        if table.get("name") == "radiffuse":
            extras = table.get("optional-dependencies", {})
            return Requirements(
                table["requires-python"],
                tuple(table["dependencies"]),
                {name: tuple(wanted) for name, wanted in extras.items()},
            )
    return _installed_requirements()


def needed(wanted: Requirements) -> list[Package]:
    """Every package that is always needed, and whether it is here."""
    return [_look(text) for text in wanted.packages]


def extras(wanted: Requirements) -> list[Extra]:
    """Every extra, and what it lacks; those with a known purpose first."""
    names = [name for name in PURPOSES if name in wanted.extras]
    names += sorted(set(wanted.extras) - set(names))
    return [
        Extra(name, PURPOSES.get(name, ""), tuple(_missing(wanted, wanted.extras[name])))
        for name in names
    ]


# ------------------------------------------------------------------------------------------------ internal


def _missing(wanted: Requirements, texts: Sequence[str]) -> Iterator[str]:
    from packaging.requirements import Requirement

    for text in texts:
        requirement = Requirement(text)
        if requirement.name == "radiffuse":  # an extra that takes in another
            for name in sorted(requirement.extras):
                yield from _missing(wanted, wanted.extras.get(name, ()))
        elif (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and not (
            _look(text).fits
        ):
            yield requirement.name


def _look(text: str) -> Package:
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    try:
        here = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Package(requirement.name, str(requirement.specifier), None, False)
    fits = requirement.specifier.contains(here, prereleases=True)
    return Package(requirement.name, str(requirement.specifier), here, fits)


def _installed_requirements() -> Requirements:
    from packaging.requirements import Requirement

    try:
        found = metadata.metadata("radiffuse")
    except metadata.PackageNotFoundError:
        return Requirements("", (), {})
    always: list[str] = []
    optional: dict[str, list[str]] = {name: [] for name in found.get_all("Provides-Extra") or []}
    for text in found.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        plain = text.partition(";")[0].strip()
        inside = [
            name
            for name in optional
            if requirement.marker is not None and requirement.marker.evaluate({"extra": name})
        ]
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            always.append(plain)
        else:
            for name in inside:
                optional[name].append(plain)
    names = {name: tuple(texts) for name, texts in optional.items()}
    return Requirements(str(found["Requires-Python"] or ""), tuple(always), names)
