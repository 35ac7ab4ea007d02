"""Data of classification: films of a known class, divided by patient."""

from __future__ import annotations

from typing import NamedTuple

from ..config import Classify
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.prepare import cache_folder
from ..data.splits import Splits, load_splits
from ..errors import InputError


class ClassifiedFilms(NamedTuple):
    """Films of a known class: the data set, its classes in alphabetical order, and the splits."""

    dataset: Dataset
    classes: tuple[str, ...]
    splits: Splits


def classified_films(settings: Classify, *, write: bool = True) -> ClassifiedFilms:
    """Read and split the films, and ``write`` the splits the first time.

    Raises:
        InputError: No film has a class, there is only one class, a class is missing from the test, or there are too few
            patients.
    """
    dataset = open_dataset(settings.data, settings.reader).filter(lambda case: bool(case.target))
    if not len(dataset):
        remedy = "Give class folders, or a table with a column class"
        raise InputError(settings.data, "tells the class of no film", remedy)
    cache = cache_folder(settings.reader.cache)
    classes = tuple(sorted({case.target for case in dataset if case.target}))
    if len(classes) < 2:
        problem = f"has the single class {classes[0]}"
        raise InputError(dataset.root, problem, "Give two classes or more")
    usual = Classify().split
    splits = load_splits(dataset, settings.split, cache, settings.draw, write=write, usual=usual)
    test = set(splits.test)
    tested = {case.target for case in dataset if case.name in test}
    if missing := [name for name in classes if name not in tested]:
        problem = f"has no test film of the class {missing[0]}"
        raise InputError(dataset.root, problem, "Raise --split.test, or change --split.seed")
    return ClassifiedFilms(dataset, classes, splits)
