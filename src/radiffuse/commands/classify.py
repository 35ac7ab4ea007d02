"""``radiffuse classify``: classification of whole films, real, synthetic or both, tested on real patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from ..config import Classify
from ..data.batches import ClassBatches, ClassifiedFilm
from ..data.dataset import Dataset
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..data.provenance import descent_from
from ..data.streams import Stream
from ..errors import InputError
from ..evaluation.classification import columns_of
from ..nets.classifier import Classifier, new_classifier
from ..nets.registry import save_network
from ..objectives.classification import Classification, class_probabilities
from ..synthesis.likely import FilmJudge, open_film_judge
from ..system.cells import csv_text
from ..system.files import write_atomic
from ..train.act import Act, run_training
from ..train.cases import describe_data, open_more, plan_of, prepare_dataset
from ..train.classes import ClassifiedFilms, classified_films
from ..train.device import local_device
from ..train.loop import Trained
from ..train.open_settings import decided
from ..train.run import Run
from ..train.start import verify_whole
from ..train.unchanged import require_same_names, require_same_prepared, require_same_splits
from ._documents import leave_documents


def classify(settings: Classify) -> Run:
    """Train a classifier and predict the test films.

    Returns:
        The run; ``test.csv`` has a row per test film: case, group, class and the probability of each class.

    Raises:
        InputError: Data or settings that cannot be used, such as too few synthetic films of a class.
        TrainingDiverged: The loss is not finite.
    """
    settings = replace(settings, training=replace(settings.training, seed=settings.draw))

    def prepare(run: Run) -> Act:
        (dataset, classes, splits), plan, budget, more, network = open_classified(settings, run)
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        pool, held_out, test = (
            _items(prepared, names, classes)
            for names in (budget, set(splits.validation), set(splits.test))
        )
        counts = Counter(item.target for item in pool)
        _verify_classes(settings, classes, {classes[k] for k in counts})
        held = splits.held_patients(dataset)
        device = local_device(settings.machine).device
        judge = None if network is None else FilmJudge(network, pool, device)
        synthetic = _synthetic(settings, more, plan, classes, counts, held, judge)
        require_same_prepared(
            run, dataset, prepared, *dict.fromkeys(item.prepared for item in synthetic)
        )
        described = describe_data(dataset, prepared, {"train": sorted(budget)})
        run.write_data(described | {"classes": list(classes), "synthetic": len(synthetic)})
        seed = settings.training.seed
        fresh = new_classifier(settings.network, len(plan.channels), classes, seed)
        ours = replace(settings, augmentation=decided(settings.augmentation, plan))
        batches = ClassBatches(
            [*(pool if settings.real else []), *synthetic],
            batch_size=settings.training.batch,
            seed=seed,
            augmentation=ours.augmentation,
        )

        def finish(trained: Trained) -> None:
            table = _predictions(trained.average, test, classes, device)
            write_atomic(run.folder / "test.csv", csv_text(table))
            save_network(trained.average.cpu(), run.model)  # last: it marks the run as finished

        return Act(Classification(fresh, held_out), batches, finish, ours)

    return run_training("classify", settings, prepare, leave_documents)


def open_classified(
    settings: Classify, run: Run | None = None
) -> tuple[ClassifiedFilms, Plan, set[str], list[Dataset], Classifier | None]:
    """Read, split and plan the films, before any is prepared; without a run nothing is written.

    Returns:
        The films, the plan, the names of those to train on, the synthetic ones of ``--with``, and the network of
        ``--judge``, if one chooses among these.

    Raises:
        InputError: Data or settings that cannot be used.
    """
    if settings.ratio and not settings.with_run:
        where = f"--ratio {settings.ratio:g}"
        raise InputError(where, "needs synthetic films", "Give them with --with")
    if not settings.real and not settings.ratio:
        remedy = "Give --with and a --ratio above 0"
        raise InputError("--real false", "leaves no film to train on", remedy)
    films = classified_films(settings, write=run is not None)
    if run is not None:
        require_same_names(run.folder, (case.name for case in films.dataset), trained=run.trained)
        require_same_splits(run.folder, films.splits, trained=run.trained)
    budget = set(films.splits.budget(settings.labels, settings.draw))
    plan = plan_of(run, films.dataset, settings.plan, settings.reader, labelled=False, among=budget)
    verify_whole(plan)
    if plan.spatial_dims != 2:
        raise InputError(films.dataset.root, "holds volumes", "Give films")
    there = {str(case.target) for case in films.dataset if case.name in budget}
    _verify_classes(settings, films.classes, there)
    folders = settings.with_run if settings.ratio else ()
    synthetic = [open_more(folder, settings.reader) for folder in folders]
    judge = None
    if settings.ratio and settings.judge:
        if len({case.group for case in films.dataset if case.name in budget}) < 2:
            problem = "needs real films of two patients, to tell near copies"
            raise InputError(f"--judge {settings.judge}", problem, "Use more films with --labels")
        held = {*films.splits.validation, *films.splits.test}
        judge = open_film_judge(settings.judge, plan, films.classes, held)
    return films, plan, budget, synthetic, judge


def _verify_classes(settings: Classify, classes: Sequence[str], there: set[str]) -> None:
    if missing := [name for name in classes if name not in there]:
        where = f"{settings.data}, draw {settings.draw} of {settings.labels} films"
        remedy = "Use more films with --labels, or another --draw"
        raise InputError(where, f"has no film of the class {missing[0]}", remedy)


def _predictions(
    network: nn.Module, items: list[ClassifiedFilm], classes: Sequence[str], device: torch.device
) -> pd.DataFrame:
    """A row per film: case, group, class and the probability of each class."""
    cases = [item.prepared.cases[item.row] for item in items]
    rows = [(c.name, c.group, classes[item.target]) for c, item in zip(cases, items, strict=True)]
    table = pd.DataFrame(rows, columns=["case", "group", "class"])
    table[columns_of(classes)] = class_probabilities(network, items, device)
    return table


def _items(prepared: Prepared, names: set[str], classes: Sequence[str]) -> list[ClassifiedFilm]:
    return [
        ClassifiedFilm(prepared, i, classes.index(case.target))
        for i, case in enumerate(prepared.cases)
        if case.name in names and case.target in classes
    ]


def _synthetic(
    settings: Classify,
    more: Sequence[Dataset],
    plan: Plan,
    classes: Sequence[str],
    counts: Counter[int],
    held: set[str],
    judge: FilmJudge | None,
) -> list[ClassifiedFilm]:
    """Synthetic films, ``ratio`` times as many of each class as real ones; a larger ratio includes the smaller one.

    Raises:
        InputError: There are too few of a class.
    """
    if not settings.ratio:
        return []
    films, descends = list[ClassifiedFilm](), descent_from(held)
    for dataset in more:
        prepared = prepare_dataset(dataset, plan, settings.reader, settings.machine, labelled=False)
        allowed = {case.name for case in prepared.cases if not descends(case)}
        films += _items(prepared, allowed, classes)
    chosen = []
    for k, name in enumerate(classes):
        of_class = [item for item in films if item.target == k]
        whose = "whose parents are no test or validation patients"
        if judge is not None:
            of_class = judge.choose(of_class, settings.likely)
            whose += f", after the choice of --judge (--likely {settings.likely:g})"
        wanted = round(settings.ratio * counts[k])
        if len(of_class) < wanted:
            problem = (
                f"has {len(of_class)} films of the class {name} {whose}; "
                f"{settings.ratio:g} per real film are {wanted}"
            )
            remedy = "Generate more, or lower --ratio"
            where = f"--with {','.join(settings.with_run)}"
            there = sorted(
                {str(case.target) for dataset in more for case in dataset if case.target}
            )
            if name not in there:
                problem = (
                    f"has no film of the class {name}, but of {', '.join(there) or 'no class'}"
                )
                remedy = "Give films of every class, with the same names"
            raise InputError(where, problem, remedy)
        order = Stream.SYNTHETIC.rng(settings.draw, k).permutation(len(of_class))
        chosen += [of_class[i] for i in order[:wanted]]
    return chosen
