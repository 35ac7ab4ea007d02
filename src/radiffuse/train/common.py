"""What every act does before its own work: read the data set, settle the plan, prepare the arrays.

And what every segmentation act does after it: score the cases that were held out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import (
    Data,
    DiffSeg,
    Diffusion,
    Finetune,
    Machine,
    PlanSettings,
    Probe,
    UNetConfig,
)
from ..config.values import from_dict
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.licence import stated_licence
from ..data.plan import Plan, find_classes, make_plan
from ..data.prepare import cache_folder, prepare
from ..data.prepared import Prepared
from ..data.provenance import descends
from ..data.splits import Splits, load_splits, write_splits
from ..errors import InputError
from ..evaluation.scoring import score_with
from ..inference.members import Overrides
from ..inference.predictor import Predictor
from ..nets.registry import load_network
from ..nets.unet import UNet, check
from ..system.files import write_atomic
from .progress import ProgressLine
from .run import Run, find_run

VALIDATION_IMAGES = 64
"""Most unlabelled images that are held out for validation."""
VALIDATION_SHARE = 0.05
"""Share of the unlabelled images that is held out, where that is fewer."""
Segments = Finetune | DiffSeg | Probe
"""Settings of the acts that learn to segment."""


def read_dataset(path: str, reader: Data) -> Dataset:
    """Open a data set by path."""
    return open_dataset(Path(path), reader)


def plan_of(run: Run, dataset: Dataset, settings: PlanSettings, *, labelled: bool) -> Plan:
    """The run's plan: the one it already has, which may have been edited, else a new one."""
    path = run.folder / "plan.json"
    if path.exists():
        return run.plan
    plan = make_plan(dataset, settings, labelled=labelled)
    write_atomic(path, plan.to_json())
    return plan


def prepare_dataset(
    dataset: Dataset, plan: Plan, reader: Data, machine: Machine, *, labelled: bool
) -> Prepared:
    """Prepare a data set with a progress line."""
    line = ProgressLine("preparing")
    return prepare(
        dataset,
        plan,
        labelled=labelled,
        cache=cache_folder(reader.cache),
        skip_bad=reader.skip_bad,
        workers=machine.workers,
        scheduler=machine.scheduler,
        progress=line,
    )


def describe_data(
    dataset: Dataset, prepared: Prepared, parts: Mapping[str, list[str] | tuple[str, ...]]
) -> dict[str, Any]:
    """What the data was, for data.json; names of files and cases, nothing from headers."""
    licence = stated_licence(dataset.root)
    return ({"licence": licence} if licence else {}) | {
        "root": str(dataset.root),
        "layout": dataset.layout,
        "cases": len(prepared),
        "patients": len({case.group for case in prepared.cases}),
        "classes": list(prepared.plan.classes),
        "skipped": [{"case": s.case, "reason": s.reason} for s in prepared.skipped],
        "split": {name: list(cases) for name, cases in parts.items()},
    }


def described_more(
    folders: Sequence[str], prepared: Prepared, own: Collection[str]
) -> dict[str, Any]:
    """What ``with_more`` added, for data.json; empty where it added nothing."""
    if not folders:
        return {}
    count = sum(case.name not in own for case in prepared.cases)
    return {"with": [Path(folder).name for folder in folders], "with_cases": count}


def find_pretrained(name: str) -> Run:
    """A finished run by folder, or shipped weights by name.

    Raises:
        InputError: Neither is there, or the run has not finished.
    """
    run = find_run(name)
    if not run.finished:
        raise InputError(
            run.folder,
            "has not finished training",
            f"Run radiffuse {run.config.get('command')} again with the same settings",
        )
    return run


def load_denoiser(run: Run, weights: str = "average") -> UNet:
    """The network of a pre-trained run.

    Args:
        run: A run of radiffuse pretrain.
        weights: ``average``, or ``raw`` for those of the last step.

    Raises:
        InputError: The run is something else.
    """
    denoiser = load_network(run.model, "raw" if weights == "raw" else "model")
    if not isinstance(denoiser, UNet):
        raise InputError(
            run.folder, "is not a pre-trained denoiser", "Give a run of radiffuse pretrain"
        )
    return denoiser


def noising_of(run: Run) -> Diffusion | None:
    """The noising process that a pre-trained run learned from; None where it learned from images without noise."""
    settings = run.config["settings"]
    if settings.get("objective", "ddpm") in ("restorative", "contrastive"):
        return None
    diffusion: Diffusion = from_dict(Diffusion, settings["diffusion"])
    return diffusion


def verify_size(plan: Plan, unet: UNetConfig) -> None:
    """Refuse a network that cannot be built, and a size that it cannot halve often enough.

    Raises:
        InputError: Names the setting, or the multiple that is needed.
    """
    try:
        check(unet)
    except ValueError as error:
        raise InputError(
            "--network", str(error), "Change it; see radiffuse COMMAND --help"
        ) from None
    multiple = 2 ** (len(unet.multipliers) - 1)
    if any(n % multiple for n in plan.size):
        raise InputError(
            f"size {'x'.join(map(str, plan.size))}",
            f"the network needs a multiple of {multiple} along each axis",
            "Set --size accordingly, or use a network with fewer levels",
        )


def limited(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """A random part of the data set; a larger limit contains the smaller one."""
    if limit is None or limit >= len(dataset):
        return dataset
    if limit < 1:
        raise InputError(f"--limit {limit}", "leaves no image", "Use 1 or more")
    order = np.random.default_rng((seed, 5)).permutation(len(dataset))
    chosen = {dataset.cases[i].name for i in order[:limit]}
    return dataset.filter(lambda case: case.name in chosen)


def with_more(
    dataset: Dataset,
    folders: Sequence[str],
    reader: Data,
    *,
    held: AbstractSet[str] = frozenset(),
    labelled: bool = False,
) -> Dataset:
    """The data set with further images behind its own.

    Args:
        dataset: The data set.
        folders: Of the further images.
        reader: How folders become cases.
        held: Patients of which none of them may descend.
        labelled: Take those with a label map alone.

    Raises:
        InputError: A folder holds none, repeats a name, or has other channels or classes.
    """
    for folder in folders:
        more = read_dataset(folder, reader)
        if labelled:
            more = more.labelled
            if dataset.classes and more.classes and more.classes != dataset.classes:
                raise InputError(
                    f"--with {folder}",
                    f"has the classes {', '.join(more.classes)}, {dataset.root} has {', '.join(dataset.classes)}",
                    "Use labels of the same classes, in the same order",
                )
        if not len(more):
            problem = "holds no labelled image" if labelled else "holds no image"
            raise InputError(f"--with {folder}", problem, "See radiffuse check")
        dataset = dataset.joined(more.filter(lambda case: not descends(case, held)))
    return dataset


def hold_out(
    prepared: Prepared, seed: int, among: AbstractSet[str] | None = None
) -> tuple[list[int], list[str]]:
    """Training cases, and names of those held out: whole patients, a small share.

    Args:
        prepared: The cases.
        seed: Of the choice.
        among: Names of cases that may be held out; None: all. No other case descends from a patient held out.
    """
    sizes = Counter(case.group for case in prepared.cases if among is None or case.name in among)
    groups = sorted(sizes)
    wanted = min(VALIDATION_IMAGES, round(sizes.total() * VALIDATION_SHARE))
    held: set[str] = set()
    count = 0
    for i in np.random.default_rng((seed, 6)).permutation(len(groups)):
        if count >= wanted or len(held) >= len(groups) - 1:
            break
        held.add(groups[i])
        count += sizes[groups[i]]
    training = [i for i, case in enumerate(prepared.cases) if not descends(case, held)]
    return training, [case.name for case in prepared.cases if case.group in held]


@dataclass(frozen=True)
class Labelled:
    """Everything a segmentation act learns from.

    Attributes:
        dataset: The labelled cases.
        splits: How they are parted.
        plan: How they are treated.
        batches: Training batches of the label budget.
        held_out: 2D: validation images ``(N, C, *S)`` and labels ``(N, *S)`` on the plan's grid; None where there
            are none, and in 3D.
        source: The pre-trained run to start from, or None.
    """

    dataset: Dataset
    splits: Splits
    plan: Plan
    batches: Batches
    held_out: dict[str, Tensor] | None
    source: Run | None


def labelled_data(run: Run, settings: Segments) -> Labelled:
    """Read, split and prepare the labelled cases; a pre-trained run's plan goes before one of the data's own.

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
    held = splits.held_patients(dataset)
    chosen = dataset.filter(lambda case: case.name in used)
    prepared = prepare_dataset(
        with_more(chosen, settings.with_run, settings.reader, held=held, labelled=True),
        plan,
        settings.reader,
        settings.machine,
        labelled=True,
    )
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


def score_validation(run: Run, labelled: Labelled, settings: Segments) -> None:
    """Score the validation cases at their own resolution, unless validation is off."""
    if labelled.splits.validation and settings.training.validate_every:
        score_cases(
            run,
            labelled.dataset,
            labelled.splits.validation,
            run.folder / "validation",
            settings.machine,
        )


def score_cases(
    run: Run,
    dataset: Dataset,
    names: Sequence[str],
    out: Path,
    machine: Machine,
    tolerance: float = 2.0,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
) -> Path:
    """Segment the named cases at their own resolution and leave the tables of ``evaluation.scoring``.

    Args:
        run: A finished segmentation run.
        dataset: Where the cases are.
        names: Which cases.
        out: Folder to write to.
        machine: Device and precision.
        tolerance: Of the surface Dice, in mm.
        overrides: How the run is to segment.
    """
    return score_with(Predictor.open([run], machine, overrides), dataset, names, out, tolerance)


# ------------------------------------------------------------------------------------------------ internal


def _segmentation_plan(
    run: Run, dataset: Dataset, settings: PlanSettings, source: Run | None
) -> Plan:
    """The pre-trained run's treatment with this data's classes; or a plan of the data's own."""
    if source is None or (run.folder / "plan.json").exists():
        return plan_of(run, dataset, settings, labelled=True)
    plan = source.plan.with_classes(find_classes(dataset))
    if settings.postprocess is not None:
        plan = replace(plan, postprocess=settings.postprocess)
    if len(plan.channels) != len(dataset.channels):
        raise InputError(
            dataset.root,
            f"has {len(dataset.channels)} channels, the pre-trained run has {len(plan.channels)}",
            "Pre-train on images of the same channels",
        )
    write_atomic(run.folder / "plan.json", plan.to_json())
    return plan


def _held_out(prepared: Prepared, indices: Sequence[int]) -> dict[str, Tensor] | None:
    if not indices or prepared.plan.spatial_dims != 2:
        return None
    images = np.stack([np.asarray(prepared.image(i), np.float32) for i in indices])
    labels = np.stack([np.asarray(prepared.label(i), np.int64) for i in indices])
    return {"images": torch.from_numpy(images), "labels": torch.from_numpy(labels)}
