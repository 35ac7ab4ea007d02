"""The skeleton that every training act shares: start the run, prepare, train, save, report."""

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
    """The settings of a command that trains."""

    @property
    def out(self) -> str:
        """Run folder."""

    @property
    def training(self) -> Training:
        """The optimization."""

    @property
    def machine(self) -> Machine:
        """Device, precision and processes."""


@dataclass(frozen=True)
class Act:
    """What an act is about to train.

    Attributes:
        task: What is learned.
        batches: What it is learned from.
        finish: Saves the trained network and whatever else the act leaves in its run; called by rank 0 alone.
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
        prepare: Reads and prepares the data, and says what is trained on them.
        report: Writes the report of a run folder.
        recorded: Entries of ``config.yaml`` beside the settings; a run is resumed with the same ones only.

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
