"""Where the log of a run is shown as well: TensorBoard, and on request Weights & Biases and MLflow.

``log.jsonl`` stays the truth. A tracker that fails on the way is dropped with a line; training goes on. Paths and names
of cases are not sent anywhere.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..config import Training
from ..errors import InputError
from ..system.files import read_json, write_json
from .run import Run

PATHS = {"data", "out", "from_run", "coordinates", "landmarks", "file", "cache", "unlabelled"}
"""Settings that are paths, which may hold names."""
LONGEST = 250
"""Characters of a setting that a tracker is told."""


class Mirror(Protocol):
    """Something that shows numbers by step."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step, by name."""

    def close(self) -> None:
        """No more will come."""


def open_mirrors(run: Run, training: Training, start: int) -> list[Mirror]:
    """The mirrors of a run.

    Args:
        run: The run.
        training: Names the trackers.
        start: Step that the run goes on from.

    Raises:
        InputError: A tracker was asked for and is not installed, or refuses.
    """
    mirrors: list[Mirror] = []
    if (board := _tensorboard(run.folder / "tensorboard", start)) is not None:
        mirrors.append(_Careful("TensorBoard", board))
    for name, where, make in (
        ("wandb", training.wandb, _WandB),
        ("mlflow", training.mlflow, _MLflow),
    ):
        if where is None:
            continue
        try:
            mirrors.append(_Careful(name, make(run, where)))
        except ImportError:
            remedy = f"Install it: pip install 'radiffuse[{name}]'"
            raise InputError(f"--training.{name}", "is not installed", remedy) from None
        except Exception as error:  # network, access, folders: trackers raise many kinds
            words = (str(error).strip().splitlines() or [""])[0][:160].rstrip(".")
            problem = f"cannot be used ({type(error).__name__}: {words})"
            raise InputError(
                f"--training.{name} {where}", problem, "Correct it or leave it out"
            ) from None
    return mirrors


def told_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as trackers are told them: flat, as text, without paths."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= told_settings(value, f"{prefix}{key}.")
        elif key not in PATHS and value is not None:
            flat[f"{prefix}{key}"] = str(value)[:LONGEST]
    return flat


# ------------------------------------------------------------------------------------------------ internal


class _Careful:
    """A tracker that cannot stop the training."""

    def __init__(self, name: str, mirror: Mirror) -> None:
        self.name = name
        self.mirror: Mirror | None = mirror

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._try(lambda mirror: mirror.log(step, numbers))

    def close(self) -> None:
        self._try(lambda mirror: mirror.close())

    def _try(self, call: Callable[[Mirror], None]) -> None:
        if self.mirror is None:
            return
        try:
            call(self.mirror)
        except Exception as error:
            self.mirror = None
            line = f"radiffuse: {self.name} failed and is left out ({type(error).__name__})"
            print(line, file=sys.stderr)


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _WandB:
    """A resumed run goes on under the same id; steps that it already has are not sent again."""

    def __init__(self, run: Run, project: str) -> None:
        import wandb

        path = run.folder / "wandb.json"
        identity = read_json(path)["id"] if path.is_file() else secrets.token_hex(4)
        self.run = wandb.init(
            project=project,
            id=identity,
            name=run.folder.resolve().name,
            dir=str(run.folder),
            resume="allow",
            config=told_settings(run.config["settings"]),
            settings=wandb.Settings(console="off", silent=True),
        )
        write_json(path, {"id": identity, "project": project})

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


class _MLflow:
    """A resumed run goes on under the same id."""

    def __init__(self, run: Run, address: str) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=address)
        path = run.folder / "mlflow.json"
        if path.is_file():
            self.id = str(read_json(path)["run_id"])
            self.client.update_run(self.id, status="RUNNING")
            return
        found = self.client.get_experiment_by_name("radiffuse")
        experiment = found.experiment_id if found else self.client.create_experiment("radiffuse")
        made = self.client.create_run(experiment, run_name=run.folder.resolve().name)
        self.id = str(made.info.run_id)
        for key, value in told_settings(run.config["settings"]).items():
            self.client.log_param(self.id, key, value)
        write_json(path, {"run_id": self.id, "address": address})

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.client.log_metric(self.id, name, value, step=step)

    def close(self) -> None:
        self.client.set_terminated(self.id)


def _tensorboard(folder: Path, start: int) -> Mirror | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return _TensorBoard(SummaryWriter(str(folder), purge_step=start or None))
