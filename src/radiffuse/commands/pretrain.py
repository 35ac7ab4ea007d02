"""``radiffuse pretrain``: train a network on unlabelled images, by any of ``objectives.OBJECTIVES``."""

from __future__ import annotations

import time
from functools import partial

from ..config import Pretrain
from ..nets.registry import save_network, save_weights
from ..objectives import objective_of
from ..train.act import Act, run_training
from ..train.loop import Trained
from ..train.run import Run
from ..train.unlabelled import plan_unlabelled, prepare_unlabelled
from ._documents import leave_documents


def pretrain(settings: Pretrain) -> Run:
    """Pre-train a network on unlabelled images.

    Returns:
        The run: its model has the averaged weights, ``model/raw.safetensors`` those of the last step.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    began, objective = time.monotonic(), objective_of(settings)

    def prepare(run: Run) -> Act:
        planned = plan_unlabelled(objective, run, began)
        pool, decided = prepare_unlabelled(run, planned), planned.objective

        def finish(trained: Trained) -> None:
            average, raw = decided.kept(trained.average), decided.kept(trained.raw)
            decided.write(run, average, pool)
            save_weights(raw, run.model / "raw.safetensors")
            save_network(average, run.model)  # last: it marks the run as finished

        again = partial(decided.write_missing, run, pool)
        return Act(decided.task(pool), decided.batches(pool), finish, decided.settings, again)

    return run_training("pretrain", objective.settings, prepare, leave_documents)
