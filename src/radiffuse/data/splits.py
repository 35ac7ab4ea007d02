"""Training, validation and test patients, and the labelled cases of each budget.

They are written once to a JSON file, so that all methods and runs use the same cases.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..config import Split
from ..config.given import refuse_given
from ..errors import InputError
from ..system.files import read_json, write_json
from .dataset import Dataset
from .names import listed_fold
from .streams import Stream

SPLITS_VERSION = 1
DRAWS = 10
"""Draws written from the start; further ones are added on demand."""
Rule = Callable[[Dataset, Split], dict[str, str]]
"""The part of each case, by its name."""
PARTS = ("train", "validation", "test")
SHARES = "test validation order places"
"""Settings by which cases are split where nothing else states it."""
PLACE = re.compile(r"(train|validation|test)(?::(\d+)(%?)(?:-(\d+))?)?")
"""An entry of ``Split.places``: a part, and where it ends."""


@dataclass(frozen=True)
class Splits:
    """Names of cases by part, and orders of the training pool.

    Attributes:
        train: The training pool.
        validation: For tuning.
        test: For the final score.
        draws: Orders of the pool. The first n cases of a draw are its budget of n labels, so budgets
            are nested. All patients come before second images of a patient.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    draws: tuple[tuple[str, ...], ...] = ()

    def budget(self, labels: int | None, draw: int) -> tuple[str, ...]:
        """The labelled cases of a draw.

        Raises:
            InputError: More labels than the pool has.
        """
        if labels is None:
            return self.train
        otherwise = "leave --labels out to use all"
        if self.validation or self.test:
            otherwise = "learn from all cases with --test 0 --validation 0"
        self._verify(labels, "--labels", f"Choose 1 to {len(self.train)}, or {otherwise}")
        return self.draws[draw][:labels]

    def verify_budgets(self, budgets: Sequence[int], flag: str) -> None:
        """Refuse budgets of a study that the pool does not have; ``flag`` gives them, or has others if it is left out.

        Raises:
            InputError: Names the first one and how many there are.
        """
        for labels in budgets:
            self._verify(labels, flag, f"Name numbers from 1 to {len(self.train)} with {flag}")

    def _verify(self, labels: int, flag: str, remedy: str) -> None:
        if not 1 <= labels <= len(self.train):
            held = len(self.validation) + len(self.test)
            cases = f"{len(self.train)} labelled case{'s' * (len(self.train) != 1)} to learn from"
            problem = f"there are {cases}" + f", and {held} for validation and test" * bool(held)
            raise InputError(f"{flag} {labels}", problem, remedy)

    def held_out(self, dataset: Dataset) -> Dataset:
        """Cases of validation and test, on which nothing may be trained."""
        held = {*self.validation, *self.test}
        return dataset.filter(lambda case: case.name in held)

    def held_patients(self, dataset: Dataset) -> set[str]:
        """Their patients."""
        return {case.group for case in self.held_out(dataset)}

    def part(self, name: str) -> tuple[str, ...]:
        """Names of the cases of ``train``, ``validation`` or ``test``."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def verify_labels(labels: int | None, dataset: Dataset) -> None:
    """Refuse more labels than a data set has, before it is split, which takes longer.

    Raises:
        InputError: Says how many there are.
    """
    if labels is not None and labels > len(dataset):
        cases = f"{len(dataset)} labelled case{'s' * (len(dataset) != 1)}"
        remedy = "Choose fewer, or leave --labels out to use all"
        raise InputError(f"--labels {labels}", f"{dataset.root} has {cases}", remedy)


def load_splits(
    dataset: Dataset,
    settings: Split,
    cache: Path,
    draw: int = 0,
    *,
    write: bool = True,
    usual: Split = Split(),  # noqa: B008 (frozen)
) -> Splits:
    """Read the splits of a labelled data set with ``draw``; make and ``write`` them the first time.

    They lie in the cache folder unless ``settings.file`` is given, which is only read where it is there. Settings that
    differ from the ``usual`` ones are given, and must be obeyed.

    Raises:
        InputError: Too few patients, the file belongs to other cases or splits a patient, or a given setting states
            another split than the file or the data set.
    """
    if draw < 0:
        raise InputError(f"--draw {draw}", "is not a draw", "Use 0 or more")
    file = Path(settings.file) if settings.file else None
    if settings.fold is not None or (file and file.is_file() and isinstance(read_json(file), list)):
        refuse_given(settings, usual, f"{SHARES} validation_kept", "the fold decides", "split.")
        splits = _of_parts(dataset, _by_fold(dataset, settings))  # never written back
        _verify_patients(file or dataset.root, dataset, splits)
        return _with_draws(dataset, splits, settings.seed, max(DRAWS, draw + 1))
    path = file or cache / "splits" / f"{_key(dataset, settings)}.json"
    rule = _rule(dataset, settings, usual)
    if there := path.exists():
        splits, wanted = _read(path, dataset), draw + 1
        if file:
            _verify_stated(file, dataset, splits, settings, usual)
        if wanted <= len(splits.draws):
            return splits
    else:
        splits, wanted = _of_parts(dataset, rule(dataset, settings)), max(DRAWS, draw + 1)
        _verify_patients(dataset.root, dataset, splits)
    splits = _with_draws(dataset, splits, settings.seed, wanted)
    if write and not (file and there):
        write_splits(path, splits)
    return splits


def write_splits(path: Path, splits: Splits) -> None:
    """Write the splits file."""
    write_json(path, {"version": SPLITS_VERSION, **asdict(splits)})


def read_splits(path: Path) -> Splits:
    """Read a splits file.

    Raises:
        InputError: It is no splits file.
    """
    values = read_json(path)
    try:
        if values["version"] != SPLITS_VERSION:
            raise KeyError("version")
        lists = [*(values[part] for part in PARTS), *values["draws"]]
        if not all(isinstance(part, list) for part in [*lists, values["draws"]]):
            raise TypeError("parts and draws are lists")
        if not all(isinstance(name, str) for part in lists for name in part):
            raise TypeError("names are text")
        train, validation, test, *draws = (tuple(part) for part in lists)
    except (KeyError, TypeError) as error:
        problem = f"is not a splits file ({error})"
        raise InputError(path, problem, "Remove it to have it made anew") from None
    return Splits(train, validation, test, tuple(draws))


def _read(path: Path, dataset: Dataset) -> Splits:
    splits = read_splits(path)
    remedy = "Give the splits file of this data set, or remove it to have it made anew"
    _verify_known(path, dataset, {*splits.train, *splits.validation, *splits.test}, remedy)
    _verify_patients(path, dataset, splits)
    if not splits.train:
        raise InputError(path, "names no case to train on", "List some under train")
    for part in PARTS:
        names = splits.part(part)
        if len(names) > len(set(names)):
            twice = Counter(names).most_common(1)[0][0]
            raise InputError(path, f"names {twice} twice under {part}", "Name each case once")
    for number, order in enumerate(splits.draws):
        if sorted(order) != sorted(splits.train):
            problem = f"draw {number} is not an order of the training cases"
            raise InputError(path, problem, "Put each training case once into each draw")
    return splits


def _verify_known(path: Path, dataset: Dataset, names: Collection[str], remedy: str) -> None:
    if unknown := sorted(set(names) - {case.name for case in dataset}):
        raise InputError(path, f"names cases that the data set lacks, such as {unknown[0]}", remedy)


def _verify_patients(where: Path | str, dataset: Dataset, splits: Splits) -> None:
    """Refuse a split, written by hand or declared by the data set, that divides a patient."""
    groups = {case.name: case.group for case in dataset}
    seen: dict[str, str] = {}
    for part in PARTS:
        for name in splits.part(part):
            if seen.setdefault(groups[name], part) != part:
                problem = f"parts the patient of {name}"
                raise InputError(where, problem, "Put all cases of a patient into one part")


def _verify_stated(
    file: Path, dataset: Dataset, splits: Splits, settings: Split, usual: Split
) -> None:
    """Refuse given settings that lead to another split, or other draws, than a file that is there."""
    why = f"{file} states another split"
    rules = f"{SHARES} validation_kept"
    if any(getattr(settings, name) != getattr(usual, name) for name in rules.split()):
        made = _of_parts(dataset, _rule(dataset, settings, usual)(dataset, settings))
        if any({*made.part(part)} != {*splits.part(part)} for part in PARTS):
            refuse_given(settings, usual, rules, why, "split.")
    again = _with_draws(dataset, replace(splits, draws=()), settings.seed, len(splits.draws))
    if again.draws != splits.draws:
        refuse_given(settings, usual, "seed", why, "split.")


# ------------------------------------------------------------- rules: the part of each case, by its name


def _rule(dataset: Dataset, settings: Split, usual: Split) -> Rule:
    """How the cases are split.

    Raises:
        InputError: A given setting takes no part in it.
    """
    declared = {case.split for case in dataset if case.split}
    if "validation" not in declared:
        why = f"{dataset.root} declares no validation cases"
        refuse_given(settings, usual, "validation_kept", why, "split.")
    if declared:
        refuse_given(settings, usual, SHARES, f"{dataset.root} declares its split", "split.")
        return _declared
    return _by_share if settings.places is None else _by_place


def _declared(dataset: Dataset, settings: Split) -> dict[str, str]:
    """As declared; of validation only ``validation_kept`` cases, the others are the test."""
    parts = {case.name: case.split or "train" for case in dataset}
    if settings.validation_kept is not None:
        held = [case.name for case in dataset if case.split == "validation"]
        parts |= dict.fromkeys(held[settings.validation_kept :], "test")
    return parts


def _by_fold(dataset: Dataset, settings: Split) -> dict[str, str]:
    """One fold is validation, the others train; the test is as declared."""
    fold = settings.fold or 0
    path = Path(settings.file) if settings.file else dataset.root / "splits_final.json"
    parts = {case.name: "test" for case in dataset if case.split == "test"}
    if settings.file is None and any(case.fold is not None for case in dataset):
        pool = [case for case in dataset if case.split in (None, "train")]
        parts |= {case.name: "validation" if case.fold == fold else "train" for case in pool}
    elif path.is_file():
        own = listed_fold(path, fold)
        _verify_known(path, dataset, own, "Give the splits of this data set")
        parts |= own
    else:
        problem = "has no folds: neither splits_final.json nor a data list with them"
        raise InputError(dataset.root, problem, "Leave --split.fold out")
    if not {"train", "validation"} <= set(parts.values()):
        where = settings.file or dataset.root
        raise InputError(where, f"has no cases for fold {fold}", "Choose another --split.fold")
    return parts


def _by_share(dataset: Dataset, settings: Split) -> dict[str, str]:
    """Shares of the patients of each site, in ``settings.order``: test, then validation."""
    shares = (settings.test, settings.validation)
    parted = any(share > 1 and share % 1 for share in shares)
    if parted or not min(shares) >= 0 or sum(share for share in shares if share < 1) >= 1:
        problem = f"test {settings.test} and validation {settings.validation} are not legal"
        remedy = "Give shares that together stay below 1, or whole numbers of patients"
        raise InputError("--split", problem, remedy)
    sites: dict[str, set[str]] = defaultdict(set)
    for case in dataset:
        sites[case.site].add(case.group)
    rng = Stream.SPLIT.rng(settings.seed)
    part_of: dict[str, str] = {}
    for site in sorted(sites):
        groups = sorted(sites[site] - part_of.keys())
        if not groups:  # all of its patients are of a site before it, too
            continue
        tests, validation = (int(s) if s >= 1 else round(len(groups) * s) for s in shares)
        if (settings.test > 0 and tests == 0) or tests + validation >= len(groups):
            where = f"{dataset.root}, site {site}" if site else dataset.root
            problem = f"has {len(groups)} patients, too few to part into training and test"
            raise InputError(where, problem, "Add labelled cases, or set --split.test 0")
        parts = ["test"] * tests + ["validation"] * validation + ["train"] * len(groups)
        last_first = range(len(groups))[::-1]
        order = last_first if settings.order == "name" else rng.permutation(len(groups))
        part_of |= {groups[g]: part for g, part in zip(order, parts, strict=False)}
    return {case.name: part_of[case.group] for case in dataset}


def _by_place(dataset: Dataset, settings: Split) -> dict[str, str]:
    """Parts of each site by the order of its cases in the file of sites, see ``Split.places``."""
    places = settings.places or ()
    ends = [found for text in places if (found := PLACE.fullmatch(text))]
    if len(ends) < max(len(places), 1) or any(
        (end[2] is None) != (end is ends[-1]) for end in ends
    ):
        where, remedy = f"--split.places {','.join(places)}", "Write validation:2,train:75%-2,test"
        raise InputError(where, "does not say where each part ends but the last", remedy)
    sites: dict[str, list[str]] = defaultdict(list)
    for case in sorted(dataset, key=lambda case: case.place):
        sites[case.site].append(case.name)
    parts: dict[str, str] = {}
    for site, names in sites.items():
        first, count = 0, len(names)
        for end in ends:
            last = count
            if end[2] is not None:
                last = int(end[2]) * (count if end[3] else 100) // 100 - int(end[4] or 0)
            if not site or last <= first:
                problem = "does not say which site each case is from"
                if site:
                    problem = f"has {count} cases of site {site}, too few to part them so"
                remedy = "Leave --split.places out, or name the file with --reader.sites"
                raise InputError(dataset.root, problem, remedy)
            parts |= dict.fromkeys(names[first:last], end[1])
            first = last
    return parts


def _of_parts(dataset: Dataset, parts: Mapping[str, str]) -> Splits:
    """Splits without draws, in the order of the data set."""
    train, validation, test = (
        tuple(case.name for case in dataset if parts.get(case.name) == part) for part in PARTS
    )
    return Splits(train, validation, test)


def _with_draws(dataset: Dataset, splits: Splits, seed: int, count: int) -> Splits:
    """Splits with ``count`` draws."""
    further = (_draw(dataset, splits.train, seed, i) for i in range(len(splits.draws), count))
    return replace(splits, draws=(*splits.draws, *further))


def _draw(dataset: Dataset, train: Collection[str], seed: int, draw: int) -> tuple[str, ...]:
    rng = Stream.BUDGET.rng(seed, draw)
    members: dict[str, list[str]] = defaultdict(list)
    pool = set(train)
    for case in dataset:
        if case.name in pool:
            members[case.group].append(case.name)
    queues = []
    for group in rng.permutation(sorted(members)):
        names = members[str(group)]
        queues.append([names[i] for i in rng.permutation(len(names))])
    order: list[str] = []
    while any(queues):
        order += [queue.pop(0) for queue in queues if queue]
    return tuple(order)


def _key(dataset: Dataset, settings: Split) -> str:
    """Name of the file in the cache, from everything that decides the splits."""
    shares = (SPLITS_VERSION, settings.test, settings.validation, settings.seed)
    digest = hashlib.sha256(repr(shares).encode())
    if (settings.order, settings.validation_kept) != ("random", None):
        digest.update(repr((settings.order, settings.validation_kept)).encode())
    if settings.places is not None:
        digest.update(repr(settings.places).encode())
    for case in dataset:
        digest.update(repr((case.name, case.group, case.split)).encode())
        digest.update(case.site.encode())
        if settings.places is not None:
            digest.update(repr(case.place).encode())
    return digest.hexdigest()[:16]
