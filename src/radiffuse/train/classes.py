"""Films with classes: which they are, and how they are divided."""

from __future__ import annotations

from ..config import Classify
from ..data.dataset import Dataset
from ..data.prepare import cache_folder
from ..data.splits import Splits, load_splits
from ..errors import InputError
from .cases import read_dataset


def classified_films(settings: Classify) -> Dataset:
    """The films whose class is known.

    Raises:
        InputError: There is none.
    """
    dataset = read_dataset(settings.data, settings.reader).filter(lambda case: bool(case.target))
    if not len(dataset):
        raise InputError(
            settings.data,
            "tells the class of no film",
            "Give class folders, or a table with a column class",
        )
    return dataset


def class_names(dataset: Dataset) -> tuple[str, ...]:
    """The classes, sorted.

    Raises:
        InputError: There is only one.
    """
    classes = tuple(sorted({case.target for case in dataset if case.target}))
    if len(classes) < 2:
        raise InputError(
            dataset.root, f"has the single class {classes[0]}", "Give two classes or more"
        )
    return classes


def class_splits(dataset: Dataset, settings: Classify) -> Splits:
    """How the films are divided, by patient.

    Raises:
        InputError: Too few patients, or a class is missing from the test.
    """
    cache = cache_folder(settings.reader.cache)
    splits = load_splits(dataset, settings.split, cache, settings.draw)
    test = set(splits.test)
    tested = {case.target for case in dataset if case.name in test}
    for name in class_names(dataset):
        if name not in tested:
            problem = f"has no test film of the class {name}"
            raise InputError(dataset.root, problem, "Raise --split.test, or change --split.seed")
    return splits
