"""Which patients train, validate and test, and which labelled cases a budget buys in a draw.

Written once to a JSON file, then read; so every method and every later run sees the same cases.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import Split
from ..errors import InputError
from ..system.files import read_json, write_json
from .dataset import Case, Dataset

SPLITS_VERSION = 1
DRAWS = 10
"""Draws written from the start; a higher number is added when it is asked for."""


@dataclass(frozen=True)
class Splits:
    """Names of cases by part, and orders of the training pool.

    Attributes:
        train: The training pool.
        validation: For tuning.
        test: For the final score; nothing is tuned on it.
        draws: Orders of the pool. The first n cases of a draw are its budget of n labels, so a larger budget
            contains the smaller one. Patients come before second images of a patient.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    draws: tuple[tuple[str, ...], ...]

    def budget(self, labels: int | None, draw: int) -> tuple[str, ...]:
        """The labelled cases of a draw.

        Raises:
            InputError: More labels than the pool has.
        """
        if labels is None:
            return self.train
        if not 1 <= labels <= len(self.train):
            raise InputError(
                f"--labels {labels}",
                f"the training pool has {len(self.train)} labelled cases",
                f"Choose 1 to {len(self.train)}, or leave --labels out to use all",
            )
        return self.draws[draw][:labels]

    def held_patients(self, dataset: Dataset) -> set[str]:
        """Patients of validation and test, from whom nothing may be trained on.

        Args:
            dataset: The cases that these are the splits of.
        """
        held = {*self.validation, *self.test}
        return {case.group for case in dataset if case.name in held}

    def part(self, name: str) -> tuple[str, ...]:
        """Names of the cases of ``train``, ``validation`` or ``test``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def load_splits(dataset: Dataset, settings: Split, cache: Path, draw: int = 0) -> Splits:
    """Read the splits of a labelled data set; make and write them the first time.

    Args:
        dataset: Cases with labels.
        settings: Shares and seed, and the file if it is not to lie in the cache.
        cache: Cache folder.
        draw: A draw that must be there.

    Raises:
        InputError: Too few patients, or the file belongs to other cases or parts a patient.
    """
    if draw < 0:
        raise InputError(f"--draw {draw}", "is not a draw", "Use 0 or more")
    if settings.fold is not None or _is_folds(settings.file):
        splits = _of_fold(dataset, settings, max(DRAWS, draw + 1))
        _verify_patients(dataset, splits, settings.file or str(dataset.root))
        return splits
    path = (
        Path(settings.file)
        if settings.file
        else cache / "splits" / f"{_key(dataset, settings)}.json"
    )
    if path.exists():
        splits = _read(path, dataset)
        if draw < len(splits.draws):
            return splits
        extra = (
            _draw(dataset, splits.train, settings.seed, i)
            for i in range(len(splits.draws), draw + 1)
        )
        splits = Splits(splits.train, splits.validation, splits.test, (*splits.draws, *extra))
    else:
        splits = _make(dataset, settings, max(DRAWS, draw + 1))
        _verify_patients(dataset, splits, str(dataset.root))
    write_splits(path, splits)
    return splits


def write_splits(path: Path, splits: Splits) -> None:
    """Write the splits file."""
    write_json(
        path,
        {
            "version": SPLITS_VERSION,
            "train": splits.train,
            "validation": splits.validation,
            "test": splits.test,
            "draws": splits.draws,
        },
    )


def _read(path: Path, dataset: Dataset) -> Splits:
    values = read_json(path)
    try:
        if values["version"] != SPLITS_VERSION:
            raise KeyError("version")
        splits = Splits(
            tuple(values["train"]),
            tuple(values["validation"]),
            tuple(values["test"]),
            tuple(tuple(draw) for draw in values["draws"]),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            path, f"is not a splits file ({error})", "Remove it to have it made anew"
        ) from None
    groups = {case.name: case.group for case in dataset}
    parts = [splits.train, splits.validation, splits.test]
    if not all(isinstance(name, str) for part in [*parts, *splits.draws] for name in part):
        raise InputError(
            path, "is not a splits file (names are text)", "Remove it to have it made anew"
        )
    unknown = {name for part in parts for name in part} - groups.keys()
    if unknown:
        raise InputError(
            path,
            f"names cases that the data set lacks, such as {sorted(unknown)[0]}",
            "Give the splits file of this data set, or remove it to have it made anew",
        )
    _verify_patients(dataset, splits, str(path))
    for number, order in enumerate(splits.draws):
        if sorted(order) != sorted(splits.train):
            raise InputError(
                path,
                f"draw {number} is not an order of the training cases",
                "Put each training case into each draw once, or remove the file",
            )
    return splits


def _is_folds(file: str | None) -> bool:
    """Whether a splits file is a list of folds, as nnU-Net writes them."""
    return (
        bool(file) and Path(file or "").is_file() and isinstance(read_json(Path(file or "")), list)
    )


def _of_fold(dataset: Dataset, settings: Split, draws: int) -> Splits:
    """One fold is validation; the test is what the data set declares as such. Nothing is written back."""
    fold = settings.fold or 0
    train, validation = _folds_of(dataset, settings, fold)
    test = {case.name for case in dataset if case.split == "test"} - train - validation

    def part(names: set[str]) -> tuple[str, ...]:
        return tuple(case.name for case in dataset if case.name in names)

    chosen = Splits(part(train), part(validation), part(test), draws=())
    if not chosen.train or not chosen.validation:
        where = settings.file or dataset.root
        raise InputError(where, f"has no cases for fold {fold}", "Choose another --split.fold")
    orders = (_draw(dataset, chosen.train, settings.seed, i) for i in range(draws))
    return replace(chosen, draws=tuple(orders))


def _folds_of(dataset: Dataset, settings: Split, fold: int) -> tuple[set[str], set[str]]:
    """Names of the cases that train, and of those that validate."""
    path = Path(settings.file) if settings.file else dataset.root / "splits_final.json"
    if settings.file is None and any(case.fold is not None for case in dataset):
        pool = [case for case in dataset if case.split in (None, "train")]
        held = {case.name for case in pool if case.fold == fold}
        return {case.name for case in pool} - held, held
    if not path.is_file():
        problem = "has no folds: neither splits_final.json nor a data list with them"
        raise InputError(dataset.root, problem, "Leave --split.fold out")
    try:
        parts = read_json(path)[fold]
        train, held = ({str(name) for name in parts[key]} for key in ("train", "val"))
    except (IndexError, KeyError, TypeError):
        problem = f"has no fold {fold} with train and val"
        raise InputError(path, problem, "Choose another --split.fold, or repair it") from None
    if unknown := sorted((train | held) - {case.name for case in dataset}):
        problem = f"names cases that the data set lacks, such as {unknown[0]}"
        raise InputError(path, problem, "Give the splits of this data set")
    return train, held


def _verify_patients(dataset: Dataset, splits: Splits, where: str) -> None:
    """Refuse a split, written by hand or brought along by the data set, that parts a patient."""
    groups = {case.name: case.group for case in dataset}
    seen: dict[str, int] = {}
    for number, part in enumerate((splits.train, splits.validation, splits.test)):
        for name in part:
            if seen.setdefault(groups[name], number) != number:
                raise InputError(
                    where,
                    f"parts the patient of {name}",
                    "Put all cases of a patient into one part",
                )


def _make(dataset: Dataset, settings: Split, draws: int) -> Splits:
    declared = any(case.split for case in dataset)
    if declared:
        parts = {c.name: c.split or "train" for c in dataset}
        if settings.validation_kept is not None:
            held = [c.name for c in dataset if c.split == "validation"]
            parts |= dict.fromkeys(held[settings.validation_kept :], "test")
        train, validation, test = (
            tuple(name for name, own in parts.items() if own == part)
            for part in ("train", "validation", "test")
        )
    elif settings.order == "recycling-pelvic":
        train, validation, test = _by_place(dataset, settings)
    else:
        train, validation, test = _by_patient(dataset, settings)
    return Splits(
        train,
        validation,
        test,
        tuple(_draw(dataset, train, settings.seed, i) for i in range(draws)),
    )


def _by_patient(
    dataset: Dataset, settings: Split
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    if not settings.test >= 0 or not settings.validation >= 0 or _shares(settings) >= 1:
        raise InputError(
            "--split",
            f"test {settings.test} and validation {settings.validation} are not legal",
            "Give shares that together stay below 1, or numbers of patients",
        )
    sites: dict[str, set[str]] = {}
    for case in dataset:
        sites.setdefault(case.site, set()).add(case.group)
    rng = np.random.default_rng((settings.seed, 2))
    part_of: dict[str, str] = {}
    for site in sorted(sites):
        groups = sorted(sites[site] - part_of.keys())
        n_test, n_validation = (
            _number(x, len(groups)) for x in (settings.test, settings.validation)
        )
        if (settings.test > 0 and n_test == 0) or n_test + n_validation >= len(groups):
            where = f"{dataset.root}, site {site}" if site else dataset.root
            raise InputError(
                where,
                f"has {len(groups)} patients, too few to part into training and test",
                "Add labelled cases, or set --split.test 0",
            )
        order = rng.permutation(len(groups))
        if settings.order == "name":
            order = np.arange(len(groups))[::-1]
        for i, g in enumerate(order):
            part_of[groups[g]] = (
                "test" if i < n_test else "validation" if i < n_test + n_validation else "train"
            )
    train, validation, test = (
        tuple(c.name for c in dataset if part_of[c.group] == part)
        for part in ("train", "validation", "test")
    )
    return train, validation, test


def _by_place(
    dataset: Dataset, settings: Split
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """[code] of arXiv 2308.16355, with 2 for validation: 411, 14 and 164 of the 589 cases of seven sites."""
    sites: dict[str, list[Case]] = {}
    for case in sorted(dataset, key=lambda case: case.place):
        sites.setdefault(case.site, []).append(case)
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for site, cases in sites.items():
        first, last = _number(settings.validation, len(cases)), 3 * len(cases) // 4 - 2
        if not site or last <= first:
            problem = f"has {len(cases)} cases of site {site}, too few to part them so"
            raise InputError(
                dataset.root,
                problem if site else "does not say of which sites its cases are",
                "Choose another --split.order, or name the file with --reader.sites",
            )
        names = [case.name for case in cases]
        parts["validation"] += names[:first]
        parts["train"] += names[first:last]
        parts["test"] += names[last:]
    train, validation, test = (tuple(sorted(part)) for part in parts.values())
    return train, validation, test


def _number(share: float, patients: int) -> int:
    """How many patients a share, or a number of 1 or more, means."""
    return int(share) if share >= 1 else round(patients * share)


def _shares(settings: Split) -> float:
    return sum(share for share in (settings.test, settings.validation) if share < 1)


def _draw(dataset: Dataset, train: tuple[str, ...], seed: int, draw: int) -> tuple[str, ...]:
    rng = np.random.default_rng((seed, 3, draw))
    members: dict[str, list[Case]] = {}
    pool = set(train)
    for case in dataset:
        if case.name in pool:
            members.setdefault(case.group, []).append(case)
    queues = []
    for group in rng.permutation(sorted(members)):
        cases = members[str(group)]
        queues.append([cases[i].name for i in rng.permutation(len(cases))])
    order: list[str] = []
    while any(queues):
        order += [queue.pop(0) for queue in queues if queue]
    return tuple(order)


def _key(dataset: Dataset, settings: Split) -> str:
    digest = hashlib.sha256(
        repr((SPLITS_VERSION, settings.test, settings.validation, settings.seed)).encode()
    )
    if (settings.order, settings.validation_kept) != ("random", None):
        digest.update(repr((settings.order, settings.validation_kept)).encode())
    for case in dataset:
        digest.update(repr((case.name, case.group, case.split)).encode())
        digest.update(case.site.encode())
        if settings.order == "recycling-pelvic":
            digest.update(repr(case.place).encode())
    return digest.hexdigest()[:16]
