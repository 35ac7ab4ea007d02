"""What this machine can do: packages, devices, memory, disk, cache; and what is in the way."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import config
from ..system.requirements import Extra, Package, extras, needed, requirements

LOW_DISK = 5e9
LOW_MEMORY = 3e9
WORTH = 1.1
"""From how much faster bfloat16 has to be, before it is called faster."""


@dataclass(frozen=True)
class Problem:
    """Something in the way.

    Attributes:
        where: What is at fault.
        problem: What is wrong with it.
        remedy: What to do.
    """

    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.problem}. {self.remedy}."


@dataclass
class Diagnosis:
    """What was found.

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
        Exit code: 0 if radiffuse can work here, 2 if something is in the way.
    """
    found = diagnose(settings.cache)
    if settings.json:
        lists = {
            name: [dataclasses.asdict(p) for p in getattr(found, name)]
            for name in ("problems", "notes")
        }
        print(json.dumps({"ok": not found.problems} | found.facts | lists, indent=2))
    else:
        print("\n".join(lines(found)))
    return 2 if found.problems else 0


def diagnose(cache: str | None = None) -> Diagnosis:
    """Look at Python, packages, torchvision, devices, memory, disk and cache.

    Args:
        cache: Folder of the cache; None: the usual one.
    """
    from .. import __version__

    found = Diagnosis({"radiffuse": __version__})
    _look_at_packages(found)
    found.facts["torchvision"] = torchvision(found)
    if metadata_version("torch"):
        _look_at_devices(found)
        _look_at_room(found, cache)
    return found


def torchvision(found: Diagnosis) -> dict[str, Any]:
    """Whether a torchvision is here that does not fit torch: libraries that look for one then fail on import."""
    version = metadata_version("torchvision")
    if version is None:
        return {"installed": None, "loads": None}
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # whatever a foreign build raises
        found.problems.append(
            Problem(
                f"torchvision {version}",
                f"does not load beside this torch ({type(error).__name__})",
                "radiffuse does not need it: pip uninstall torchvision",
            )
        )
        return {"installed": version, "loads": False}
    return {"installed": version, "loads": True}


def metadata_version(name: str) -> str | None:
    """The installed version of a package; None: it is not here."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def lines(found: Diagnosis) -> Iterator[str]:
    """The diagnosis as text."""
    facts = found.facts
    yield f"radiffuse    {facts['radiffuse']}"
    yield f"Python       {facts['python']['version']} (wanted {facts['python']['wanted'] or 'any'})"
    torch = next((p for p in facts["packages"] if p["name"] == "torch"), None)
    if torch:
        yield f"torch        {torch['installed'] or 'missing'} (wanted {torch['wanted']})"
    good = sum(p["fits"] for p in facts["packages"])
    yield f"packages     {good} of {len(facts['packages'])} that are needed are here and in range"
    vision = facts["torchvision"]
    state = {None: "not installed, not needed", True: "loads, not needed", False: "does not load"}
    yield f"torchvision  {vision['installed'] or ''} {state[vision['loads']]}".replace("   ", "  ")
    for device in facts.get("devices", ()):
        yield f"{device['kind']:<12} {_device_line(device)}"
    if "precision" in facts:
        yield f"precision    --precision auto takes {facts['precision']}"
    if "memory" in facts:
        yield f"memory       {_memory_line(facts['memory'])}"
        yield f"disk         {_size(facts['disk']['free'])} free for runs in {facts['disk']['folder']}"
        cache = facts["cache"]
        parts = ", ".join(f"{name} {_size(size)}" for name, size in cache["parts"].items())
        free = f"{_size(cache['free'])} free"
        yield f"cache        {_size(cache['bytes'])} in {cache['folder']} ({', '.join(filter(None, [parts, free]))})"
    yield "extras"
    width = max((len(e["name"]) for e in facts["extras"]), default=0)
    for extra in facts["extras"]:
        missing = ", ".join(extra["missing"])
        here = f'lacks {missing}: pip install "radiffuse[{extra["name"]}]"' if missing else "here"
        yield f"  {extra['name']:<{width}}  {extra['purpose']}{': ' if extra['purpose'] else ''}{here}"
    for title, several in (("note", found.notes), ("PROBLEM", found.problems)):
        for problem in several:
            yield f"{title}: {problem}"
    yield "something is in the way" if found.problems else "ready"


# ------------------------------------------------------------------------------------------------ internal


def _look_at_packages(found: Diagnosis) -> None:
    from packaging.specifiers import SpecifierSet

    wanted = requirements()
    version = platform.python_version()
    found.facts["python"] = {"version": version, "wanted": wanted.python}
    if wanted.python and not SpecifierSet(wanted.python).contains(version, prereleases=True):
        found.problems.append(
            Problem(f"Python {version}", f"is outside of {wanted.python}", "Use one inside")
        )
    packages = needed(wanted)
    found.facts["packages"] = [dataclasses.asdict(p) for p in packages]
    found.problems += [_package_problem(p) for p in packages if not p.fits]
    found.facts["extras"] = [_extra(e) for e in extras(wanted)]


def _package_problem(package: Package) -> Problem:
    problem = f"is outside of {package.wanted}" if package.installed else "is not installed"
    name = f"{package.name} {package.installed or ''}".strip()
    return Problem(name, problem, f"pip install '{package.name}{package.wanted}'")


def _extra(extra: Extra) -> dict[str, Any]:
    return dataclasses.asdict(extra) | {"installed": not extra.missing}


def _look_at_devices(found: Diagnosis) -> None:
    import torch

    from ..config import Machine
    from ..system.hardware import devices
    from ..train.device import resolve_precision

    everything = devices()
    found.facts["devices"] = [dataclasses.asdict(d) | {"gain": d.gain} for d in everything]
    found.facts["threads"] = torch.get_num_threads()
    found.facts["precision"] = resolve_precision(Machine())
    for device in everything:
        if "float32" not in device.milliseconds:
            found.problems.append(
                Problem(
                    f"{device.kind} {device.name}",
                    "is there, and cannot run a convolution",
                    "Look at its driver and at the build of torch",
                )
            )
    cores = everything[0].count
    if torch.get_num_threads() < cores and "OMP_NUM_THREADS" in os.environ:
        found.notes.append(
            Problem(
                f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}",
                f"keeps torch from {cores} cores",
                "Unset it, or give --machine.threads",
            )
        )


def _look_at_room(found: Diagnosis, cache: str | None) -> None:
    from ..data.prepare import cache_folder
    from ..system.hardware import folder_size, free_disk, memory

    main = memory()
    found.facts["memory"] = dataclasses.asdict(main)
    usable = min(main.total, main.limit or main.total)
    if usable < LOW_MEMORY:
        found.notes.append(
            Problem("memory", f"{_size(usable)} is little", "Stay with the preset tiny and films")
        )
    here = Path.cwd()
    found.facts["disk"] = {"folder": str(here), "free": free_disk(here)}
    folder = cache_folder(cache)
    parts = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    sizes = {part.name: folder_size(part) for part in parts}
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    free = free_disk(folder)
    found.facts["cache"] = {
        "folder": str(folder),
        "bytes": sum(sizes.values()),
        "parts": sizes,
        "free": free,
        "writable": writable,
    }
    if not writable:
        found.problems.append(
            Problem(
                str(folder),
                "cannot be written to",
                "Set RADIFFUSE_CACHE to a folder of yours, or give --cache",
            )
        )
    for name, left in (("disk", found.facts["disk"]["free"]), ("cache", free)):
        if left < LOW_DISK:
            found.notes.append(
                Problem(name, f"{_size(left)} free is little", "Make room before large sets")
            )


def _device_line(device: dict[str, Any]) -> str:
    if device["kind"] == "cpu":
        about = f"{device['name']}, {device['count']} cores"
    else:
        memory = f", {_size(device['memory'])}" if device["memory"] else ""
        about = f"{device['name']}{memory}"
    times, gain = device["milliseconds"], device["gain"]
    if gain is None:
        return f"{about}; bfloat16 could not be measured"
    faster = f"{gain:.1f} times as fast" if gain >= WORTH else "no faster"
    return (
        f"{about}; a small convolution in {times['float32']:.1f} ms, "
        f"with bfloat16 in {times['bfloat16']:.1f} ms: {faster}"
    )


def _memory_line(memory: dict[str, Any]) -> str:
    parts = [_size(memory["total"]), f"{_size(memory['available'])} available"]
    if memory["limit"] is not None:
        parts.append(f"of which the container may use {_size(memory['limit'])}")
    return ", ".join(parts)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
