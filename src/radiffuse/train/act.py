"""What all commands that train have in common: start the run, prepare, train, save, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..config import Machine, Training
from .loop import Trained, train
from .run import Run, start_run
from .task import BatchesByStep, Task


class TrainingSettings(Protocol):
    """The settings of a command that trains: its run folder, the optimization, and the use of the machine."""

    @property
    def out(self) -> str: ...  # noqa: D102
    @property
    def training(self) -> Training: ...  # noqa: D102
    @property
    def machine(self) -> Machine: ...  # noqa: D102


@dataclass(frozen=True)
class Act:
    """A training that is ready to start.

    Attributes:
        task: What is learned.
        batches: What it is learned from.
        finish: Saves the trained network and all other results in the run; only rank 0 calls it.
    """

    task: Task
    batches: BatchesByStep
    finish: Callable[[Trained], None]


def run_training(
    command: str,
    settings: TrainingSettings,
    prepare: Callable[[Run], Act],
    report: Callable[[Path], Any],
    recorded: Mapping[str, Any] | None = None,
) -> Run:
    """Train in a run folder, from start to report; the same settings again resume an interrupted run.

    Args:
        command: Name of the command.
        settings: Its settings.
        prepare: Reads and prepares the data, and returns what to train.
        report: Writes the report of a run folder.
        recorded: Further entries of ``config.yaml``, which must be the same to resume a run.

    Returns:
        The run; on all ranks but 0 it may not be finished yet.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    with start_run(settings.out, command, settings, recorded) as run:
        act = prepare(run)
        trained = train(act.task, act.batches, run, settings.training, settings.machine)
        if run.main:
            act.finish(trained)
            report(run.folder)
    return run
