"""What all commands that train have in common: start the run, prepare, train, save, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..config import Machine, Training
from ..system.distributed import gather_objects
from ..system.saying import say
from .checkpoint import drop_all
from .loop import Trained, train
from .outcome import announce, compare_costs
from .run import Run
from .start_run import start_run
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
        settings: Those of the command, with what was left open decided; None: as they were given.
        again: Adds results to a run that is finished, which were not asked for before; only rank 0 calls it.
    """

    task: Task
    batches: BatchesByStep
    finish: Callable[[Trained], None]
    settings: TrainingSettings | None = None
    again: Callable[[], object] = lambda: None


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
        decided = act.settings or settings
        if run.main and act.settings is not None:
            run.record(settings, act.settings)
            announce(run)
        if is_done(run, decided.training.length):
            say(f"{run.folder} is finished, nothing is left to train")
            if run.main:
                act.again()
        else:
            trained = train(act.task, act.batches, run, decided.training, decided.machine)
            gather_objects(None)  # all ranks have read the checkpoint
            if run.main:
                compare_costs(run, trained, decided.machine)
                act.finish(trained)  # takes long, and a run that is stopped in it has no step left
        if run.main:
            report(run.folder)
            if not decided.training.keep_state:
                for state in (run.state, *run.folder.glob("*/state")):  # of stages as well
                    drop_all(state)
    return run


def is_done(run: Run, steps: int) -> bool:
    """Whether a run has its model and its results, and was not asked for more steps than they are of."""
    return run.finished and (run.reached is None or (run.ended and run.reached == steps))
