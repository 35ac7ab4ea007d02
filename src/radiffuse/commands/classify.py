"""``radiffuse classify``: classification of whole films, real, synthetic or both, tested on real patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

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
from ..train.classes import classified_films
from ..train.device import local_fabric
from ..train.loop import Trained
from ..train.run import Run
from ._documents import leave_documents


def classify(settings: Classify) -> Run:
    """Train a classifier and predict the test films.

    Returns:
        The run; ``test.csv`` has a row per test film: case, group, class and the probability of each class.

    Raises:
        InputError: Data or settings that cannot be used, such as too few synthetic films of a class.
        TrainingDiverged: The loss is not finite.
    """
    if settings.ratio and not settings.with_run:
        where = f"--ratio {settings.ratio:g}"
        raise InputError(where, "needs synthetic films", "Give them with --with")
    if not settings.real and not settings.ratio:
        remedy = "Give --with and a --ratio above 0"
        raise InputError("--real false", "leaves no film to train on", remedy)
    settings = replace(settings, training=replace(settings.training, seed=settings.draw))

    def prepare(run: Run) -> Act:
        dataset, classes, splits = classified_films(settings)
        write_splits(run.folder / "splits.json", splits)
        plan = plan_of(run, dataset, settings.plan, labelled=False)
        if plan.spatial_dims != 2:
            raise InputError(dataset.root, "holds volumes", "Give films")
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        budget = set(splits.budget(settings.labels, settings.draw))
        pool, held_out, test = (
            _items(prepared, names, classes)
            for names in (budget, set(splits.validation), set(splits.test))
        )
        counts = Counter(item.target for item in pool)
        if missing := [name for k, name in enumerate(classes) if not counts[k]]:
            where = f"{settings.data}, draw {settings.draw} of {settings.labels} films"
            remedy = "Use more films with --labels, or another --draw"
            raise InputError(where, f"has no film of the class {missing[0]}", remedy)
        held = splits.held_patients(dataset)
        synthetic = _synthetic(settings, plan, classes, counts, held)
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
            table = _predictions(trained.average, test, classes, device)
            write_atomic(run.folder / "test.csv", table.to_csv(index=False))
            save_network(trained.average.cpu(), run.model)  # last: it marks the run as finished

        return Act(Classification(network, held_out), batches, finish)

    return run_training("classify", settings, prepare, leave_documents)


def _predictions(
    network: nn.Module, items: list[Item], classes: Sequence[str], device: torch.device
) -> pd.DataFrame:
    """A row per film: case, group, class and the probability of each class."""
    cases = [item.prepared.cases[item.row] for item in items]
    rows = [(c.name, c.group, classes[item.target]) for c, item in zip(cases, items, strict=True)]
    table = pd.DataFrame(rows, columns=["case", "group", "class"])
    table[list(classes)] = class_probabilities(network, items, device)
    return table


def _items(prepared: Prepared, names: set[str], classes: Sequence[str]) -> list[Item]:
    return [
        Item(prepared, i, classes.index(case.target))
        for i, case in enumerate(prepared.cases)
        if case.name in names and case.target in classes
    ]


def _synthetic(
    settings: Classify, plan: Plan, classes: Sequence[str], counts: Counter[int], held: set[str]
) -> list[Item]:
    """Synthetic films, ``ratio`` times as many of each class as real ones; a larger ratio includes the smaller one.

    Raises:
        InputError: There are too few of a class.
    """
    if not settings.ratio:
        return []
    films: list[Item] = []
    for folder in settings.with_run:
        dataset = read_dataset(folder, settings.reader)
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        allowed = {case.name for case in prepared.cases if not descends(case, held)}
        films += _items(prepared, allowed, classes)
    chosen = []
    for k, name in enumerate(classes):
        of_class = [item for item in films if item.target == k]
        wanted = round(settings.ratio * counts[k])
        if len(of_class) < wanted:
            problem = (
                f"has {len(of_class)} films of the class {name} whose parents are no test or validation patients; "
                f"{settings.ratio:g} per real film are {wanted}"
            )
            where = f"--with {','.join(settings.with_run)}"
            raise InputError(where, problem, "Generate more, or lower --ratio")
        order = Stream.SYNTHETIC.rng(settings.draw, k).permutation(len(of_class))
        chosen += [of_class[i] for i in order[:wanted]]
    return chosen
