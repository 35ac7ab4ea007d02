"""``radiffuse pretrain``: train a network on unlabelled images, by any of ``objectives.OBJECTIVES``."""

from __future__ import annotations

from ..config import Pretrain
from ..nets.registry import save_network, save_weights
from ..objectives import OBJECTIVES
from ..system.files import write_atomic
from ..train.act import Act, run_training
from ..train.cases import (
    describe_data,
    described_more,
    hold_out,
    limited,
    plan_of,
    prepare_dataset,
    read_dataset,
    with_more,
)
from ..train.loop import Trained
from ..train.pretraining import Pool
from ..train.run import Run
from ..train.start import verify_size
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
        dataset = read_dataset(settings.data, settings.reader)
        dataset = limited(dataset, settings.limit, settings.training.seed)
        own = {case.name for case in dataset}
        dataset = with_more(dataset, settings.with_run, settings.reader)
        given = objective.given_plan(dataset)
        if given is not None and not (run.folder / "plan.json").exists():
            write_atomic(run.folder / "plan.json", given.to_json())
        plan = plan_of(run, dataset, settings.plan, labelled=False)
        verify_size(plan, objective.unet(plan.spatial_dims, len(plan.channels)))
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        training, held_out = hold_out(prepared, settings.training.seed, own)
        described = describe_data(dataset, prepared, {"validation": held_out})
        run.write_data(described | described_more(settings.with_run, prepared, own))
        held = [i for i, case in enumerate(prepared.cases) if case.name in set(held_out)]
        pool = Pool(prepared, training, held)

        def finish(trained: Trained) -> None:
            average, raw = objective.kept(trained.average), objective.kept(trained.raw)
            objective.write(run, average, pool)
            save_weights(raw, run.model / "raw.safetensors")
            save_network(average, run.model)  # last: it marks the run as finished

        return Act(objective.task(pool), objective.batches(pool), finish)

    return run_training("pretrain", settings, prepare, leave_documents)
