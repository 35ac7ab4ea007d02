"""Data of segmentation: labelled cases, split and prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..config import Fit, PlanSettings
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.fingerprint import find_classes
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..data.prepared import Prepared
from ..data.splits import Splits, load_splits, write_splits
from ..errors import InputError
from ..system.files import write_atomic
from .cases import describe_data, described_more, plan_of, prepare_dataset, read_dataset, with_more
from .run import Run
from .start import find_pretrained


@dataclass(frozen=True)
class HeldOut:
    """Labelled films for validation, on the plan's grid.

    Attributes:
        images: ``(N, C, *S)`` float32 in [-1, 1].
        labels: ``(N, *S)`` int64.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Labelled:
    """Labelled cases, ready for training.

    Attributes:
        batches: Training batches of the label budget, and of further images.
        held_out: 2D: the validation cases; None where there are none, and in 3D.
        source: The pre-trained run to start from, or None.
    """

    dataset: Dataset
    splits: Splits
    plan: Plan
    batches: Batches
    held_out: HeldOut | None
    source: Run | None


def labelled_data(run: Run, settings: Fit) -> Labelled:
    """Read, split and prepare the labelled cases, by the plan of the pre-trained run if there is one.

    Raises:
        InputError: Data or settings that cannot be used.
    """
    dataset = read_dataset(settings.data, settings.reader).labelled
    if not len(dataset):
        raise InputError(settings.data, "holds no labelled image", "See radiffuse check")
    cache = cache_folder(settings.reader.cache)
    splits = load_splits(dataset, settings.split, cache, settings.draw)
    budget = splits.budget(settings.labels, settings.draw)
    write_splits(run.folder / "splits.json", splits)
    source = find_pretrained(settings.from_run) if settings.from_run else None
    plan = _segmentation_plan(run, dataset, settings.plan, source)
    used = set(budget) | set(splits.validation)
    chosen = dataset.filter(lambda case: case.name in used)
    held = splits.held_patients(dataset)
    chosen = with_more(chosen, settings.with_run, settings.reader, held=held, labelled=True)
    prepared = prepare_dataset(chosen, plan, settings.reader, settings.machine, labelled=True)
    place = {case.name: i for i, case in enumerate(prepared.cases)}
    described = describe_data(dataset, prepared, {"train": budget, "validation": splits.validation})
    run.write_data(described | described_more(settings.with_run, prepared, used))
    held_out = [place[name] for name in splits.validation if name in place]
    batches = Batches(
        prepared,
        batch_size=settings.training.batch_size,
        seed=settings.training.seed,
        augmentation=settings.augmentation,
        indices=[
            *(place[name] for name in budget if name in place),
            *(i for name, i in place.items() if name not in used),
        ],
    )
    return Labelled(dataset, splits, plan, batches, _held_out(prepared, held_out), source)


def _segmentation_plan(
    run: Run, dataset: Dataset, settings: PlanSettings, source: Run | None
) -> Plan:
    """The pre-trained run's plan with the classes of the data set; without such a run, a plan of the data set."""
    if source is None or (run.folder / "plan.json").exists():
        return plan_of(run, dataset, settings, labelled=True)
    plan = source.plan.with_classes(find_classes(dataset))
    if settings.postprocess is not None:
        plan = replace(plan, postprocess=settings.postprocess)
    if len(plan.channels) != len(dataset.channels):
        mine, theirs = len(dataset.channels), len(plan.channels)
        problem = f"has {mine} channels, the pre-trained run has {theirs}"
        raise InputError(dataset.root, problem, "Pre-train on images of the same channels")
    write_atomic(run.folder / "plan.json", plan.to_json())
    return plan


def _held_out(prepared: Prepared, indices: Sequence[int]) -> HeldOut | None:
    if not indices or prepared.plan.spatial_dims != 2:
        return None
    images = np.stack([np.asarray(prepared.image(i), np.float32) for i in indices])
    labels = np.stack([np.asarray(prepared.label(i), np.int64) for i in indices])
    return HeldOut(torch.from_numpy(images), torch.from_numpy(labels))
