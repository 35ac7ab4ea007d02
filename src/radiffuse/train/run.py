"""A run is a folder: settings, plan, data, model, the state to resume from, and the log.

config.yaml   everything needed to repeat it
plan.json     how a scan becomes the network's input
data.json     the data set, and how it was split
model/        config.json + model.safetensors (averaged weights), raw.safetensors (the last step's)
state/        checkpoints; the newest valid one wins
log.jsonl     one line per logged step
report.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..config import Machine
from ..config.values import completed, plain
from ..data.plan import Plan, read_plan
from ..errors import InputError, RunError
from ..system.distributed import leading, rank, wait_for_main
from ..system.files import locked, make_folder, read_json, read_yaml, write_atomic, write_json

RUN_VERSION = 2
WEIGHTS = Path(__file__).parent.parent / "weights"
"""Runs that ship with the package."""
WITHOUT_EFFECT = {
    "training.validate_every",
    "training.checkpoint_every",
    "training.log_every",
    "training.wandb",
    "training.mlflow",
    "machine.workers",
    "machine.devices",
    "machine.num_nodes",
    "machine.strategy",
    "machine.scheduler",
    "reader.cache",
    "reader.skip_bad",
    "regressor.landmarks",
    "out",
}
"""Settings that a resumed run may change, because the weights do not depend on them."""


class Run:
    """A run folder that exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
            raise RunError(folder, problem, "Give the folder of a run")
        run = cls(folder)
        version = run.config.get("run_version")
        if version != RUN_VERSION:
            problem = f"was written as run version {version}, this radiffuse reads {RUN_VERSION}"
            raise RunError(path, problem, "Use the radiffuse that wrote it, or train again")
        return run

    @property
    def config(self) -> dict[str, Any]:
        """Content of config.yaml: ``command``, ``run_version``, ``radiffuse``, ``settings``.

        Raises:
            RunError: Damaged.
        """
        path = self.folder / "config.yaml"
        try:
            content = read_yaml(path)
        except InputError as error:
            problem = f"is damaged ({error.problem})"
            raise RunError(path, problem, "Restore the file or train again") from None
        if not isinstance(content.get("settings"), dict):
            raise RunError(path, "is damaged", "Restore the file or train again")
        return content

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return read_plan(self.folder / "plan.json")

    @property
    def data(self) -> dict[str, Any]:
        """Content of data.json; empty if that was not written."""
        path = self.folder / "data.json"
        return dict(read_json(path)) if path.exists() else {}

    @property
    def model(self) -> Path:
        """Folder of the trained network."""
        return self.folder / "model"

    @property
    def state(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "state"

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return (self.model / "config.json").is_file()

    @property
    def ended(self) -> bool:
        """Whether its command came to its end: the report is written last."""
        return self.finished and (self.folder / "report.html").is_file()

    @property
    def main(self) -> bool:
        """Whether this process writes: rank 0 of those that train together, or the only one."""
        return rank() == 0

    def log(self) -> list[dict[str, Any]]:
        """Lines of log.jsonl; a line cut short by a kill is left out."""
        path = self.folder / "log.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def write_data(self, data: Mapping[str, Any]) -> None:
        """Write data.json."""
        write_json(self.folder / "data.json", dict(data))


def find_run(name: str) -> Run:
    """A run by folder, or shipped weights by name.

    Raises:
        InputError: Neither is there.
    """
    path = Path(name)
    if not path.exists() and "/" not in name and (WEIGHTS / name).is_dir():
        path = WEIGHTS / name
    if not path.exists():
        known = ", ".join(sorted(p.name for p in WEIGHTS.glob("*") if p.is_dir())) or "none"
        problem = "is neither a run nor shipped weights"
        raise InputError(name, problem, f"Shipped weights are: {known}")
    return Run.open(path)


@contextmanager
def start_run(
    folder: str | Path, command: str, settings: Any, more: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """Create a run folder, or resume the one that the same command began; locked while in use.

    Processes that train together are joined first. Rank 0 goes ahead; the others begin when it has prepared everything
    and starts to train, and end with it.

    Args:
        folder: The run folder.
        command: Name of the command.
        settings: Its settings: a dataclass, or plain values.
        more: Further entries of the recorded settings.

    Raises:
        InputError: The folder holds something else, a run of other settings, or is in use.
        SystemExit: This is not rank 0, and rank 0 has failed.
    """
    from .device import make_fabric

    make_fabric(getattr(settings, "machine", Machine()))
    if rank() > 0:
        wait_for_main()
        yield Run(Path(folder))
        wait_for_main()
        return
    # Of settings that an older version of the command did not have.
    defaults = plain(type(settings)())
    with leading(), _locked(Path(folder), command, plain(settings) | (more or {}), defaults) as run:
        yield run


@contextmanager
def _locked(
    folder: Path, command: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[Run]:
    from .. import __version__

    path = folder / "config.yaml"
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "is a file", "Choose another --out")
    ours = path.exists() or (folder / ".lock").exists()
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise InputError(folder, "is not empty and not a run", "Choose another --out")
    make_folder(folder)
    with locked(folder):
        if path.exists():
            _refuse_other(Run.open(folder), command, settings, defaults)
        content = {
            "command": command,
            "run_version": RUN_VERSION,
            "radiffuse": __version__,
            "settings": dict(settings),
        }
        write_atomic(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        yield Run(folder)


def _refuse_other(
    run: Run, command: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Refuse another command or other settings, unless nothing was trained yet: then they take over."""
    former, before = run.config.get("command"), run.config["settings"]
    # A run of several stages has their runs in subfolders.
    trained = any(run.state.glob("step-*")) or any(run.folder.glob("*/state/step-*"))
    if not run.finished and not trained:
        if former != command or flatten(before) != flatten(settings):
            (run.folder / "plan.json").unlink(missing_ok=True)
        return
    if former != command:
        raise InputError(run.folder, f"holds a run of 'radiffuse {former}'", "Choose another --out")
    old, new = flatten(completed(defaults, before)), flatten(settings)
    # With a constant learning rate a run may be extended: its earlier steps stay the same.
    free = set(WITHOUT_EFFECT)
    if new.get("training.decay") == "constant" or new.get("training.decay_steps") is not None:
        free.add("training.steps")
    for key in (*new, *(key for key in old if key.startswith("custom."))):
        if key not in free and old.get(key) != new.get(key):
            problem = f"holds a run with {key} = {old.get(key)}, not {new.get(key)}"
            remedy = "Choose another --out, or give the same settings to resume"
            raise InputError(run.folder, problem, remedy)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by full name (``training.steps``), tuples as lists."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
