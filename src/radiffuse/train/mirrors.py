"""Trackers that mirror the log of a run: TensorBoard, and on request Weights & Biases and MLflow.

``log.jsonl`` stays the record. A tracker that fails during training is dropped with a message. Paths and names of cases
are never sent. TensorBoard is Fabric's logger; Fabric has none for the other two, so they are written here.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..config import Training
from ..config.values import flatten
from ..errors import InputError, damaged, first_line
from ..system.files import read_json, write_json
from ..system.installing import install
from .run import Run

PATHS = {
    "data", "out", "from_run", "with_run", "coordinates", "landmarks", "file", "cache", "unlabelled", "teacher",
    "corrector", "regressor",
}  # fmt: skip
"""Settings that are paths, which may contain names."""
LONGEST = 250
"""Most characters of a setting that are sent."""


class Logger(Protocol):
    """The part of ``lightning_fabric.loggers.Logger`` that is used here."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log numbers of a step, by name."""

    def finalize(self, status: str) -> None:
        """End the log."""


class Mirror:
    """A tracker whose failure does not stop the training; ``name`` is for the message."""

    def __init__(self, name: str, logger: Logger) -> None:
        self.name = name
        self.logger: Logger | None = logger

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        self._try(lambda logger: logger.log_metrics(dict(numbers), step))

    def close(self) -> None:
        """End the log."""
        self._try(lambda logger: logger.finalize("success"))

    def _try(self, call: Callable[[Logger], None]) -> None:
        if self.logger is None:
            return
        try:
            call(self.logger)
        except Exception as error:
            self.logger = None
            line = f"radiffuse: {self.name} failed and is left out ({type(error).__name__})"
            print(line, file=sys.stderr)


def open_mirrors(run: Run, training: Training, start: int) -> list[Mirror]:
    """The trackers of a run that starts after step ``start``; TensorBoard drops later steps that it already has.

    Raises:
        InputError: A tracker of the settings is not installed, or refuses.
    """
    from lightning_fabric.loggers import TensorBoardLogger

    mirrors = []
    try:
        board = TensorBoardLogger(run.folder, "tensorboard", "", purge_step=start or None)
        mirrors.append(Mirror("TensorBoard", board))
    except ImportError:
        pass  # it is optional
    wanted = (("wandb", training.wandb, _WandB), ("mlflow", training.mlflow, _MLflow))
    for name, where, make in wanted:
        if where is None:
            continue
        try:
            mirrors.append(Mirror(name, make(run, where)))
        except ImportError:
            remedy = f"Install it: {install(name)}"
            raise InputError(f"--training.{name}", "is not installed", remedy) from None
        except Exception as error:  # network, access, folders: trackers raise many kinds
            problem = f"cannot be used ({type(error).__name__}: {first_line(error)})"
            raise InputError(
                f"--training.{name} {where}", problem, "Correct it or leave it out"
            ) from None
    return mirrors


def shown_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as they are sent to trackers: flat, as text, without paths."""
    return {
        name: str(value)[:LONGEST]
        for name, value in flatten(settings).items()
        if name.rpartition(".")[2] not in PATHS and value is not None
    }


# ------------------------------------------------------------------------------------------------ internal


class _WandB:
    """A resumed run keeps its id; W&B ignores steps that it already has."""

    def __init__(self, run: Run, project: str) -> None:
        import wandb

        path = run.folder / "wandb.json"
        with damaged(path, "Remove it; the tracker then begins a new run"):
            identity = (
                read_json(path, dict[str, str])["id"] if path.is_file() else secrets.token_hex(4)
            )
        self.run = wandb.init(
            project=project,
            id=identity,
            name=run.folder.resolve().name,
            dir=str(run.folder),
            resume="allow",
            config=shown_settings(run.config["settings"]),
            settings=wandb.Settings(console="off", silent=True),
        )
        write_json(path, {"id": identity, "project": project})

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        self.run.finish()


class _MLflow:
    """A resumed run keeps its id."""

    def __init__(self, run: Run, address: str) -> None:
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=address)
        path = run.folder / "mlflow.json"
        if path.is_file():
            with damaged(path, "Remove it; the tracker then begins a new run"):
                self.id = read_json(path, dict[str, str])["run_id"]
            self.client.update_run(self.id, status="RUNNING")
            return
        known = self.client.get_experiment_by_name("radiffuse")
        experiment = known.experiment_id if known else self.client.create_experiment("radiffuse")
        made = self.client.create_run(experiment, run_name=run.folder.resolve().name)
        self.id = str(made.info.run_id)
        for key, value in shown_settings(run.config["settings"]).items():
            self.client.log_param(self.id, key, value)
        write_json(path, {"run_id": self.id, "address": address})

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.id, name, value, step=step)

    def finalize(self, status: str) -> None:
        self.client.set_terminated(self.id)
