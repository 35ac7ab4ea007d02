"""The pool of unlabelled images beside the labels: read, parted from held-out patients, prepared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..config import IGNORE, Fit
from ..config.pooling import Pool
from ..core.losses import one_hot
from ..data.batches import Batches
from ..data.copies import copies_of_held_out
from ..data.pool import PoolBatches, WithPool
from ..data.prepare import cache_folder
from ..data.prepared import Prepared
from ..errors import InputError
from ..system.distributed import world_size
from .cases import prepare_dataset
from .further_images import held_out_parts, read_pools, require_some, say_copies
from .labelled import Labelled
from .planning.measuring import Blank
from .run import Run
from .task import BatchesByStep
from .unchanged import digests_of_rows, require_same_cases, require_same_names


def with_pool(run: Run, labelled: Labelled, settings: Fit, *, quiet: bool = False) -> WithPool:
    """The labelled batches, each image beside one of the pool; ``settings`` are decided.

    ``quiet``: copies of held-out images are left out without a word, as in every fold of a choice.

    Raises:
        InputError: A pool cannot be read, was another when the run began, or holds nothing to learn from.
    """
    if world_size() > 1:
        problem = f"is learned from by one process, and {world_size()} train together"
        raise InputError("--unlabelled", problem, "Train on one device, or leave it out")
    pools = read_pools(settings, labelled.dataset, labelled.splits)
    names = [f"unlabelled {number}" for number in range(len(pools))]
    for group, pool in zip(names, pools, strict=True):
        require_same_names(run.folder, (c.name for c in pool), trained=run.trained, group=group)
    held = held_out_parts(labelled.dataset, labelled.splits)
    used: list[tuple[Prepared, Sequence[int]]] = []
    for folder, pool in zip(settings.unlabelled, pools, strict=True):
        prepared = prepare_dataset(
            pool, labelled.plan, settings.reader, settings.machine, labelled=False
        )
        copies = copies_of_held_out(prepared, held, cache_folder(settings.reader.cache))
        kept = [i for i in range(len(prepared)) if i not in copies]
        require_some(len(kept), folder, len(prepared))
        if not quiet:
            say_copies(f"--unlabelled {folder}", len(copies))
        used.append((prepared, kept))
    digests = {g: digests_of_rows(part) for g, (part, _) in zip(names, used, strict=True)}
    require_same_cases(run.folder, digests, trained=run.trained)
    skipped = [{"case": s.case, "reason": s.reason} for part, _ in used for s in part.skipped]
    data = run.data
    data["skipped"] = [*data.get("skipped", ()), *skipped]
    data["unlabelled"] = [Path(folder).name for folder in settings.unlabelled]
    data["unlabelled_cases"] = sum(len(kept) for _, kept in used)
    if settings.method == "joint":  # what it draws descends from them
        groups = {part.cases[i].group for part, kept in used for i in kept}
        data["unlabelled_patients"] = sorted(groups)
    run.write_data(data)
    return beside(labelled.batches, used, settings)


def beside(
    labelled: BatchesByStep, pools: Sequence[tuple[Prepared, Sequence[int]]], settings: Fit
) -> WithPool:
    """The labelled batches, each image beside one of the pools; ``settings`` are decided."""
    training, wanted = settings.training, settings.pool
    if settings.method == "joint":  # seen from the first step on, as the labelled ones are
        wanted = Pool(start=0.0, ramp=0.0, strong=settings.augmentation)
    batches = PoolBatches(
        pools,
        batch_size=training.batch,
        seed=training.seed,
        augmentation=settings.augmentation,
        strong=wanted.strong,
    )
    first, ramp = wanted.start * training.length, wanted.ramp * training.length

    def strength(step: int) -> float:
        """From 0 before the start to 1 at the end of the ramp, in a straight line."""
        done = step + 1 - first
        return min(max(done, 0.0) / ramp, 1.0) if ramp else float(done > 0)

    return WithPool(labelled, batches, strength)


def on_blank(labelled: BatchesByStep, blank: Blank, settings: Fit) -> BatchesByStep:
    """Batches of arrays that nobody prepared, all of them with the pool, if there is one."""
    if not settings.unlabelled:
        return labelled
    pool = Blank.like(blank.plan, blank.shape, labelled=False, count=len(blank))
    batches = beside(labelled, [(pool, range(len(pool)))], settings)
    return WithPool(labelled, batches.pool, lambda step: 1.0)


def foreground_shares(labelled: Batches) -> Tensor | None:
    """Shares of each class in the labelled films ``(N, K)``; None where the network sees patches."""
    prepared = labelled.prepared
    if not prepared.plan.whole:
        return None
    rows = []
    for index in labelled.indices:
        label = torch.from_numpy(prepared.label(index).astype("int64"))
        counted = one_hot(label[None], len(prepared.plan.classes))[0] * (label != IGNORE)
        rows.append(counted.flatten(1).sum(1) / (label != IGNORE).sum().clamp(min=1))
    return torch.stack(rows)
