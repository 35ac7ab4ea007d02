"""A method as the planner times it: its task, and batches of blank arrays."""

from __future__ import annotations

from ..config import Fit
from ..data.batches import Batches
from ..inference.teachers import teachers_to_time
from ..train.planning.measuring import Blank
from ..train.planning.plan_training import Trial
from ..train.pool import on_blank
from ..train.start import Start
from ..train.task import BatchesByStep, Task
from .consistency import pooled
from .registry import Build


def trial_of(build: Build, start: Start | None) -> Trial[Fit]:
    """Makes the task of a method, and batches for it, of blank arrays."""

    def trial(blank: Blank, settings: Fit) -> tuple[Task, BatchesByStep]:
        training = settings.training
        batches = Batches(
            blank,
            batch_size=training.batch,
            seed=training.seed,
            augmentation=settings.augmentation,
        )
        teachers = teachers_to_time(settings, blank.plan)
        task = pooled(build(settings, blank.plan, start, None), settings, batches, teachers)
        return task, on_blank(batches, blank, settings)

    return trial
