"""``radiffuse doctor``: packages, devices, memory, disk and cache of this machine, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from .. import __version__, config
from ..system.installing import install

LOW_DISK = 5e9
LOW_MEMORY = 3e9
WORTH = 1.1
"""bfloat16 is called faster from this ratio on."""
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

Requirements = Mapping[str, Sequence[Requirement]]
"""Packages by the extra that asks for them; those that are always needed under the empty name."""


class Problem(NamedTuple):
    """Something that keeps radiffuse from working, or is worth knowing."""

    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.problem}. {self.remedy}."


@dataclass
class Diagnosis:
    """The state of a machine.

    Attributes:
        facts: Plain values by name, as ``--json`` writes them.
        problems: What keeps radiffuse from working; any makes the exit code 2.
        notes: What is worth knowing, and keeps nothing from working.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def doctor(settings: config.Doctor) -> int:
    """Print what this machine can do.

    Returns:
        Exit code: 0 if radiffuse can work here, 2 if it cannot.
    """
    state = diagnose(settings.cache)
    if settings.json:
        lists = {
            name: [p._asdict() for p in getattr(state, name)] for name in ("problems", "notes")
        }
        print(json.dumps({"ok": not state.problems} | state.facts | lists, indent=2))
    else:
        print("\n".join(lines(state)))
    return 2 if state.problems else 0


def diagnose(cache: str | None = None) -> Diagnosis:
    """Look at Python, packages, torchvision, devices, memory, disk and cache.

    Args:
        cache: Folder of the cache; None: the usual one.
    """
    state = Diagnosis({"radiffuse": __version__})
    _look_at_packages(state)
    _look_at_torchvision(state)
    if installed_version("torch"):
        _look_at_devices(state)
        _look_at_room(state, cache)
    return state


def lines(state: Diagnosis) -> Iterator[str]:
    """The diagnosis as text."""
    facts = state.facts
    yield f"radiffuse    {facts['radiffuse']}"
    yield f"Python       {facts['python']['version']} (wanted {facts['python']['wanted'] or 'any'})"
    torch = next((p for p in facts["packages"] if p["name"] == "torch"), None)
    if torch:
        yield f"torch        {torch['installed'] or 'missing'} (wanted {torch['wanted']})"
    good = sum(p["fits"] for p in facts["packages"])
    yield f"packages     {good} of {len(facts['packages'])} that are needed are here and in range"
    vision = facts["torchvision"]
    words = {None: "not installed, not needed", True: "loads, not needed", False: "does not load"}
    yield f"torchvision  {vision['installed'] or ''} {words[vision['loads']]}".replace("   ", "  ")
    for device in facts.get("devices", ()):
        yield f"{device['kind']:<12} {_device_line(device)}"
    if "precision" in facts:
        yield f"precision    --precision auto takes {facts['precision']}"
    if "memory" in facts:
        memory, disk, cache = facts["memory"], facts["disk"], facts["cache"]
        limit = memory["limit"]
        limited = "" if limit is None else f", of which the container may use {_size(limit)}"
        yield f"memory       {_size(memory['total'])}, {_size(memory['available'])} available{limited}"
        yield f"disk         {_size(disk['free'])} free for runs in {disk['folder']}"
        parts = [f"{name} {_size(size)}" for name, size in cache["parts"].items()]
        parts.append(f"{_size(cache['free'])} free")
        yield f"cache        {_size(cache['bytes'])} in {cache['folder']} ({', '.join(parts)})"
    yield "extras"
    width = max((len(e["name"]) for e in facts["extras"]), default=0)
    for extra in facts["extras"]:
        missing = ", ".join(extra["missing"])
        here = f"lacks {missing}: {install(extra['name'])}" if missing else "here"
        yield f"  {extra['name']:<{width}}  {extra['purpose']}{': ' if extra['purpose'] else ''}{here}"
    for title, several in (("note", state.notes), ("PROBLEM", state.problems)):
        for problem in several:
            yield f"{title}: {problem}"
    yield "something is in the way" if state.problems else "ready"


# ------------------------------------------------------------------------------------------------ packages


def requirements(project: Path | None = None) -> tuple[str, Requirements]:
    """The range of Python and the packages that this version needs.

    Args:
        project: The ``pyproject.toml`` of a clone; None: where it would lie beside this file. Where it is missing, the
            installed package says.
    """
    path = project or Path(__file__).parents[3] / "pyproject.toml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    table = tomllib.loads(text).get("project", {})
    if table.get("name") == "radiffuse":
        texts = {"": table["dependencies"]} | table.get("optional-dependencies", {})
        return table["requires-python"], {k: [*map(Requirement, v)] for k, v in texts.items()}
    try:
        about = metadata.metadata("radiffuse")
    except metadata.PackageNotFoundError:
        return "", {"": []}
    names = ("", *(about.get_all("Provides-Extra") or []))
    wanted: dict[str, list[Requirement]] = {name: [] for name in names}
    for requirement in map(Requirement, about.get_all("Requires-Dist") or []):
        asking = [name for name in names if _applies(requirement, name)]
        for name in [""] if "" in asking else asking:
            wanted[name].append(requirement)
    return str(about["Requires-Python"] or ""), wanted


def look_at(requirement: Requirement) -> dict[str, Any]:
    """A package: its name, the range that is wanted, the version that is installed, and whether it fits."""
    installed = installed_version(requirement.name)
    return {
        "name": requirement.name,
        "wanted": str(requirement.specifier),
        "installed": installed,
        "fits": installed is not None
        and requirement.specifier.contains(installed, prereleases=True),
    }


def missing(wanted: Requirements, extra: str) -> Iterator[str]:
    """Packages of an extra, and of the extras that it includes, that are not installed or not in their range."""
    for requirement in wanted.get(extra, ()):
        if requirement.name == "radiffuse":
            for included in sorted(requirement.extras):
                yield from missing(wanted, included)
        elif _applies(requirement, extra) and not look_at(requirement)["fits"]:
            yield requirement.name


def installed_version(name: str) -> str | None:
    """The installed version of a package; None: it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _look_at_packages(state: Diagnosis) -> None:
    python, wanted = requirements()
    version = platform.python_version()
    state.facts["python"] = {"version": version, "wanted": python}
    if python and not SpecifierSet(python).contains(version, prereleases=True):
        state.problems.append(
            Problem(f"Python {version}", f"is outside of {python}", "Use one inside")
        )
    state.facts["packages"] = [look_at(requirement) for requirement in wanted[""]]
    for package in state.facts["packages"]:
        if not package["fits"]:
            name, here, range_ = package["name"], package["installed"], package["wanted"]
            problem = f"is outside of {range_}" if here else "is not installed"
            remedy = f"pip install '{name}{range_}'"
            state.problems.append(Problem(f"{name} {here or ''}".strip(), problem, remedy))
    names = [name for name in PURPOSES if name in wanted]
    names += sorted(set(wanted) - {"", *names})
    state.facts["extras"] = []
    for name in names:
        lacks = list(missing(wanted, name))
        extra = {"name": name, "purpose": PURPOSES.get(name, ""), "missing": lacks}
        state.facts["extras"].append(extra | {"installed": not lacks})


def _look_at_torchvision(state: Diagnosis) -> None:
    """A torchvision that does not fit torch makes libraries that look for one fail on import."""
    version = installed_version("torchvision")
    loads = None if version is None else True
    if version is not None:
        try:
            importlib.import_module("torchvision")
        except Exception as error:  # whatever a foreign build raises
            loads = False
            problem = f"does not load beside this torch ({type(error).__name__})"
            remedy = "radiffuse does not need it: pip uninstall torchvision"
            state.problems.append(Problem(f"torchvision {version}", problem, remedy))
    state.facts["torchvision"] = {"installed": version, "loads": loads}


# ------------------------------------------------------------------------------------------------ the machine


def _look_at_devices(state: Diagnosis) -> None:
    import torch

    from ..system.hardware import devices
    from ..train.device import resolve_precision

    everything = devices()
    state.facts["devices"] = [dataclasses.asdict(d) | {"gain": d.gain} for d in everything]
    state.facts["threads"] = threads = torch.get_num_threads()
    state.facts["precision"] = resolve_precision(config.Machine())
    for device in everything:
        if "float32" not in device.milliseconds:
            where, problem = (
                f"{device.kind} {device.name}",
                "is there, and cannot run a convolution",
            )
            remedy = "Look at its driver and at the build of torch"
            state.problems.append(Problem(where, problem, remedy))
    cores, limit = everything[0].count, os.environ.get("OMP_NUM_THREADS")
    if threads < cores and limit is not None:
        where, problem = f"OMP_NUM_THREADS={limit}", f"keeps torch from {cores} cores"
        state.notes.append(Problem(where, problem, "Unset it, or give --machine.threads"))


def _look_at_room(state: Diagnosis, cache: str | None) -> None:
    from ..data.prepare import cache_folder
    from ..system.hardware import folder_size, free_disk, memory

    main = memory()
    state.facts["memory"] = dataclasses.asdict(main)
    usable = min(main.total, main.limit or main.total)
    if usable < LOW_MEMORY:
        little = f"{_size(usable)} is little"
        state.notes.append(Problem("memory", little, "Stay with the preset tiny and films"))
    here = Path.cwd()
    state.facts["disk"] = {"folder": str(here), "free": free_disk(here)}
    folder = cache_folder(cache)
    parts = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    sizes = {part.name: folder_size(part) for part in parts}
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    state.facts["cache"] = {
        "folder": str(folder),
        "bytes": sum(sizes.values()),
        "parts": sizes,
        "free": free_disk(folder),
        "writable": writable,
    }
    if not writable:
        remedy = "Set RADIFFUSE_CACHE to a folder of yours, or give --cache"
        state.problems.append(Problem(str(folder), "cannot be written to", remedy))
    for name in ("disk", "cache"):
        if (free := state.facts[name]["free"]) < LOW_DISK:
            little = f"{_size(free)} free is little"
            state.notes.append(Problem(name, little, "Make room before large sets"))


def _device_line(device: dict[str, Any]) -> str:
    about = str(device["name"])
    if device["kind"] == "cpu":
        about += f", {device['count']} cores"
    elif device["memory"]:
        about += f", {_size(device['memory'])}"
    times, gain = device["milliseconds"], device["gain"]
    if gain is None:
        return f"{about}; bfloat16 could not be measured"
    faster = f"{gain:.1f} times as fast" if gain >= WORTH else "no faster"
    return (
        f"{about}; a small convolution in {times['float32']:.1f} ms, "
        f"with bfloat16 in {times['bfloat16']:.1f} ms: {faster}"
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
