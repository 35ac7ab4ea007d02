"""Classification of whole films, on real films, synthetic ones or both, scored on real patients of the test part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import nn

from ..config import Classify
from ..data.batches import ClassBatches, Item
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..data.provenance import descends
from ..data.splits import write_splits
from ..data.streams import Stream
from ..errors import InputError
from ..nets.classifier import new_classifier
from ..nets.registry import save_network
from ..objectives.classification import Classification, class_probabilities
from ..system.files import write_atomic
from ..train.act import Act, run_training
from ..train.cases import describe_data, plan_of, prepare_dataset, read_dataset
from ..train.classes import class_names, class_splits, classified_films
from ..train.device import local_fabric
from ..train.loop import Trained
from ..train.run import Run
from ._documents import leave_documents


def classify(settings: Classify) -> Run:
    """Train a classifier and predict the test films.

    Args:
        settings: See ``radiffuse.config.Classify``.

    Returns:
        The run; ``test.csv`` has a row per test film: case, group, class and the probability of each class.

    Raises:
        InputError: Data or settings that cannot be used, such as too few synthetic films of a class.
        TrainingDiverged: The loss is not finite.
    """
    _verify(settings)
    settings = replace(settings, training=replace(settings.training, seed=settings.draw))

    def prepare(run: Run) -> Act:
        dataset = classified_films(settings)
        classes = class_names(dataset)
        splits = class_splits(dataset, settings)
        write_splits(run.folder / "splits.json", splits)
        plan = plan_of(run, dataset, settings.plan, labelled=False)
        if plan.spatial_dims != 2:
            raise InputError(dataset.root, "holds volumes", "Give films")
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        budget = set(splits.budget(settings.labels, settings.draw))
        pool = _items(prepared, budget, classes)
        _verify_pool(pool, classes, settings)
        held = splits.held_patients(dataset)
        synthetic = _synthetic(settings, plan, classes, pool, held)
        held_out, test = (
            _items(prepared, set(names), classes) for names in (splits.validation, splits.test)
        )
        described = describe_data(dataset, prepared, {"train": sorted(budget)})
        run.write_data(described | {"classes": list(classes), "synthetic": len(synthetic)})
        seed = settings.training.seed
        network = new_classifier(settings.network, len(plan.channels), classes, seed)
        batches = ClassBatches(
            [*(pool if settings.real else []), *synthetic],
            batch_size=settings.training.batch_size,
            seed=seed,
            augmentation=settings.augmentation,
        )

        def finish(trained: Trained) -> None:
            device = local_fabric(settings.machine).device
            table = predictions(trained.average, test, classes, device)
            write_atomic(run.folder / "test.csv", table.to_csv(index=False))
            save_network(trained.average.cpu(), run.model)  # last: it marks the run as finished

        return Act(Classification(network, held_out), batches, finish)

    return run_training("classify", settings, prepare, leave_documents)


def predictions(
    network: nn.Module, items: list[Item], classes: Sequence[str], device: torch.device
) -> pd.DataFrame:
    """A row per film: case, group, class and the probability of each class."""
    cases = [item.prepared.cases[item.row] for item in items]
    table = pd.DataFrame(
        {
            "case": [case.name for case in cases],
            "group": [case.group for case in cases],
            "class": [classes[item.target] for item in items],
        }
    )
    table[list(classes)] = class_probabilities(network, items, device)
    return table


# ------------------------------------------------------------------------------------------------ internal


def _verify(settings: Classify) -> None:
    if settings.ratio and not settings.with_run:
        raise InputError(
            f"--ratio {settings.ratio:g}", "needs synthetic films", "Give them with --with"
        )
    if not settings.real and not settings.ratio:
        raise InputError(
            "--real false", "leaves no film to train on", "Give --with and a --ratio above 0"
        )


def _items(prepared: Prepared, names: set[str], classes: Sequence[str]) -> list[Item]:
    return [
        Item(prepared, i, classes.index(case.target))
        for i, case in enumerate(prepared.cases)
        if case.name in names and case.target
    ]


def _verify_pool(pool: Sequence[Item], classes: Sequence[str], settings: Classify) -> None:
    counts = Counter(item.target for item in pool)
    for k, name in enumerate(classes):
        if not counts[k]:
            raise InputError(
                f"{settings.data}, draw {settings.draw} of {settings.labels} films",
                f"has no film of the class {name}",
                "Use more films with --labels, or another --draw",
            )


@dataclass(frozen=True)
class _Source:
    prepared: Prepared
    rows: list[int]


def _synthetic(
    settings: Classify,
    plan: Plan,
    classes: Sequence[str],
    pool: Sequence[Item],
    held: set[str],
) -> list[Item]:
    """Synthetic films, ``ratio`` times as many of each class as the pool has; a larger ratio holds the smaller one.

    Raises:
        InputError: There are too few of a class.
    """
    if not settings.ratio:
        return []
    sources = []
    for folder in settings.with_run:
        dataset = read_dataset(folder, settings.reader)
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        rows = [i for i, case in enumerate(prepared.cases) if not descends(case, held)]
        sources.append(_Source(prepared, rows))
    counts = Counter(item.target for item in pool)
    chosen = []
    for k, name in enumerate(classes):
        found = [
            Item(source.prepared, i, k)
            for source in sources
            for i in source.rows
            if source.prepared.cases[i].target == name
        ]
        wanted = round(settings.ratio * counts[k])
        if len(found) < wanted:
            raise InputError(
                f"--with {','.join(settings.with_run)}",
                f"has {len(found)} films of the class {name} whose parents are no test or validation patients; "
                f"{settings.ratio:g} per real film are {wanted}",
                "Generate more, or lower --ratio",
            )
        order = Stream.SYNTHETIC.rng(settings.draw, k).permutation(len(found))
        chosen += [found[i] for i in order[:wanted]]
    return chosen
