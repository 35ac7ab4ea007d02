"""A run is a folder: settings, plan, data, model, the state to resume from, and the log.

config.yaml   everything needed to repeat it
plan.json     how a scan becomes the network's input
data.json     the data set, and how it was split
cases.json    what its cases are, which stands once anything was trained
model/        config.json + model.safetensors (averaged weights), raw.safetensors (the last step's)
state/        checkpoints; the newest valid one wins
log.jsonl     one line per logged step
report.html
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import yaml

from ..config import Classify, Fit, Pretrain, Synthesize
from ..config.effect import effective
from ..config.values import completed, dated, flatten, from_dict, misfit, plain
from ..data.plan import Plan, read_plan
from ..errors import InputError, RunError
from ..system.distributed import rank
from ..system.files import MOST_YAML, read_json, read_yaml, write_atomic, write_json
from .open_settings import is_open

RUN_VERSION = 2
MARKS = ("config.yaml",)
"""Files of which a folder that is not empty has one, if it may become a run."""
CHOICE = "choice.json"
"""Record of an automatic choice, see ``automatic.record``."""
WEIGHTS = Path(__file__).parent / "weights"
"""Runs that ship with the package."""

SETTINGS: dict[str, type] = {
    kind.__name__.lower(): kind for kind in (Pretrain, Fit, Classify, Synthesize)
}
"""Of the commands that train."""


DataFile = TypedDict(
    "DataFile",
    {
        "root": str,
        "layout": str,
        "licence": str,
        "pretrained": str,
        "cases": int,
        "patients": int,
        "synthetic": int,
        "with_cases": int,
        "labels_with": dict[str, dict[str, str]],
        "classes": list[str],
        "with": list[str],
        "unlabelled": list[str],
        "unlabelled_cases": int,
        "skipped": list[dict[str, str]],
        "split": dict[str, list[str]],
    },
    total=False,
)
"""Content of data.json."""


class Run:
    """A run folder that exists."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __fspath__(self) -> str:
        """The folder: a run can be given wherever a path can."""
        return str(self.folder)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a run that was written before.

        Raises:
            RunError: Not a run, or written by another version.
        """
        folder = Path(folder)
        path = folder / "config.yaml"
        if not folder.is_dir():
            raise RunError(folder, "does not exist", "Give the folder of a run")
        if not path.is_file():
            problem = "is not a run: config.yaml is missing"
            inside = min(folder.glob("*/config.yaml"), default=None)
            such = f", such as {inside.parent}" if inside else ""
            raise RunError(folder, problem, f"Give the folder of a run{such}")
        run = cls(folder)
        if (version := run.config.get("run_version")) != RUN_VERSION:
            problem = f"was written as run version {version}, this radiffuse reads {RUN_VERSION}"
            raise RunError(path, problem, "Use the radiffuse that wrote it, or train again")
        return run

    @property
    def config(self) -> dict[str, Any]:
        """Content of config.yaml: ``command``, ``run_version``, ``radiffuse``, ``settings``: what took effect.

        Raises:
            RunError: Damaged, or a value of a type or range that its setting does not have.
        """
        path = self.folder / "config.yaml"
        text = None
        with contextlib.suppress(OSError, ValueError):
            text = path.read_text(encoding="utf-8") if path.stat().st_size <= MOST_YAML else None
        find = _config.__wrapped__ if text is None else _config
        return copy.deepcopy(find(path, text))

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return read_plan(self.folder / "plan.json")

    @property
    def data(self) -> dict[str, Any]:
        """Content of data.json; empty if that was not written.

        Raises:
            InputError: Damaged, or a value of another type.
        """
        path = self.folder / "data.json"
        return dict(read_json(path, DataFile)) if path.exists() else {}

    @property
    def model(self) -> Path:
        """Folder of the trained network."""
        return self.folder / "model"

    @property
    def state(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "state"

    @property
    def reached(self) -> int | None:
        """The step of the newest checkpoint, by its name; None where there is none."""
        names = (path.name.removeprefix("step-") for path in self.state.glob("step-*"))
        return max((int(name) for name in names if name.isdecimal()), default=None)

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return (self.model / "config.json").is_file()

    @property
    def ended(self) -> bool:
        """Whether its command came to its end: the report is written last."""
        return self.finished and (self.folder / "report.html").is_file()

    @property
    def trained(self) -> bool:
        """Whether anything was: there is a checkpoint or a model, its own or of a stage in a subfolder."""
        made = (
            "state/step-*",
            "*/state/step-*",
            "model/config.json",
            "*/model/config.json",
            CHOICE,
        )
        return any(any(self.folder.glob(pattern)) for pattern in made)

    @property
    def main(self) -> bool:
        """Whether this process writes: rank 0 of those that train together, or the only one."""
        return rank() == 0

    def log(self) -> list[dict[str, Any]]:
        """Lines of log.jsonl: ``step``, numbers, and mappings of numbers; one that a kill cut short is left out.

        Raises:
            RunError: A line before the last is no such line.
        """
        path = self.folder / "log.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        rows = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                if number == len(lines):
                    break
                raise RunError(path, f"line {number} is not JSON", "Remove the line") from None
            if not _is_logged(row):
                problem = f"line {number} is not a step with numbers"
                raise RunError(path, problem, "Remove the line")
            rows.append(row)
        return rows

    def write_data(self, data: Mapping[str, Any]) -> None:
        """Write data.json."""
        write_json(self.folder / "data.json", dict(data))

    def record(self, given: Any, settings: Any) -> None:
        """Write what was decided into config.yaml, where the ``given`` settings left it open.

        Raises:
            InputError: The plan was edited after training began.
        """
        content, asked = self.config, flatten(plain(given))
        now, before = flatten(effective(settings)), flatten(content["settings"])
        names = [name for name in now if is_open(name, asked.get(name))]
        for name in names if self.trained else ():
            if name in content.get("decided", ()) and now[name] != before.get(name):
                problem = f"was edited after training began: {name} = {now[name]}"
                remedy = f"Put {before.get(name)} back, or choose another --out"
                raise InputError(self.folder / "plan.json", problem, remedy)
        content["settings"] = completed(content["settings"], effective(settings))
        content["decided"] = [name for name in names if not is_open(name, now[name])]
        text = yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True)
        write_atomic(self.folder / "config.yaml", text)


@functools.lru_cache(maxsize=64)
def _config(path: Path, text: str | None) -> dict[str, Any]:
    """What a text in config.yaml says, see ``Run.config``; one command asks for it a dozen times."""
    try:
        content = read_yaml(path, text)
        settings, command = content.get("settings"), content.get("command")
        kind = SETTINGS.get(command) if isinstance(command, str) else None
        fault = misfit(settings, kind or dict[str, Any]) or misfit(command, str)
    except InputError as error:
        fault = error.problem
    if fault:
        raise RunError(path, f"is damaged ({fault})", "Restore the file or train again")
    given: dict[str, Any] = content["settings"]
    return content | {"settings": taken(kind, given)}


def taken(kind: type | None, given: dict[str, Any]) -> dict[str, Any]:
    """The settings that take effect, missing ones by default, and what is no setting of the command.

    Args:
        kind: Of the settings; None: they are values of a command that has no class of settings.
        given: Their values by name.
    """
    if kind is None:
        return given
    known, given = vars(kind()), dated(kind, given)
    more = {name: value for name, value in given.items() if name not in known}
    return effective(from_dict(kind, given)) | more


def _is_logged(row: Any) -> bool:
    """Whether a row of the log has a step, and numbers or mappings of numbers (which need not be finite)."""
    if not isinstance(row, dict) or type(row.get("step")) is not int or row["step"] < 0:
        return False
    inner = [v for value in row.values() if isinstance(value, dict) for v in value.values()]
    values = [value for value in row.values() if not isinstance(value, dict)]
    return all(type(v) is float or (type(v) is int and abs(v) < 2**63) for v in [*values, *inner])


def find_run(name: str) -> Run:
    """A run by folder, or shipped weights by name, also where a folder of that name, such as ``films``, is no run.

    Raises:
        InputError: Neither is there.
    """
    path = Path(name)
    run = any((path / mark).is_file() for mark in MARKS)
    if not run and "/" not in name and (WEIGHTS / name).is_dir():
        path = WEIGHTS / name
    if not path.exists():
        known = ", ".join(sorted(p.name for p in WEIGHTS.glob("*") if p.is_dir())) or "none"
        problem = "is neither a run nor shipped weights"
        raise InputError(name, problem, f"Shipped weights are: {known}")
    return Run.open(path)
