"""``radiffuse pretrain``: train a network on unlabelled images, by any of ``objectives.OBJECTIVES``."""

from __future__ import annotations

from functools import partial

from ..config import Pretrain
from ..nets.registry import save_network, save_weights
from ..objectives import OBJECTIVES
from ..train.act import Act, run_training
from ..train.cases import (
    describe_data,
    described_more,
    hold_out,
    prepare_dataset,
)
from ..train.known import described_labels, patients_seen
from ..train.loop import Trained
from ..train.pretraining import Unlabelled
from ..train.run import Run
from ..train.start import find_pretrained
from ..train.unchanged import require_same_prepared
from ._documents import leave_documents


def pretrain(settings: Pretrain) -> Run:
    """Pre-train a network on unlabelled images.

    Returns:
        The run: its model has the averaged weights, ``model/raw.safetensors`` those of the last step.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    objective = OBJECTIVES[settings.objective](settings)

    def prepare(run: Run) -> Act:
        chosen = objective.choose(run)
        dataset, plan, own = chosen.dataset, chosen.plan, chosen.own
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        require_same_prepared(run, dataset, prepared)
        training, held_out = hold_out(prepared, settings.training.seed, own)
        described = describe_data(dataset, prepared, {"validation": held_out})
        described |= described_more(settings.with_run, prepared, own)
        source = find_pretrained(settings.from_run) if settings.from_run else None
        described |= described_labels(source)
        seen = {prepared.cases[i].group for i in training} | patients_seen(source)
        run.write_data(described | {"unlabelled_patients": sorted(seen)})
        held = [i for i, case in enumerate(prepared.cases) if case.name in set(held_out)]
        pool = Unlabelled(prepared, training, held, objective.zoom)

        def finish(trained: Trained) -> None:
            average, raw = objective.kept(trained.average), objective.kept(trained.raw)
            objective.write(run, average, pool)
            save_weights(raw, run.model / "raw.safetensors")
            save_network(average, run.model)  # last: it marks the run as finished

        task, batches = objective.task(pool), objective.batches(pool)
        again = partial(objective.write_missing, run, pool)
        return Act(task, batches, finish, objective.settings, again)

    return run_training("pretrain", objective.obeyed(), prepare, leave_documents)
