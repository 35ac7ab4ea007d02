"""Whose labels a run knows: those it learned from, and those of the runs that it started from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Data
from ..config.values import from_dict
from ..data.cases import hash_of_files, remembered_hash, size_of_files
from ..data.copies import finder
from ..data.dataset import Case, Dataset
from ..data.issues import some
from ..data.layouts import open_dataset
from ..data.layouts.listing import GENERATED, own_folder
from ..data.names import patient_key
from ..data.splits import Splits
from ..errors import InputError, damaged
from ..system.saying import say
from .cases import limited
from .run import Run


def learned_cases(run: Run, cache: str | None = None) -> tuple[Dataset, Data]:
    """The images of its data set that a run learned from, and how they are read, with prepared arrays in ``cache``.

    Raises:
        InputError: They cannot be opened.
    """
    trained = run.config["settings"]
    with damaged(run.folder / "config.yaml"):
        reader = replace(from_dict(Data, trained["reader"]), cache=cache)
        root, limit, seed = trained["data"], trained.get("limit"), trained["training"]["seed"]
    dataset = limited(open_dataset(run.data.get("root", root), reader), limit, seed)
    with damaged(run.folder / "data.json"):
        parts, skipped = run.data["split"], {one.get("case") for one in run.data.get("skipped", ())}
        names = {*parts["train"]} if "train" in parts else {case.name for case in dataset}
        names -= {*parts.get("validation", ())} | skipped
    return dataset.filter(lambda case: case.name in names), reader


def learned_images(run: Run, dataset: Dataset) -> list[str]:
    """Names of the images that a run learned from, by where they are, or by their content where they are copies.

    Where its data set cannot be opened any more, those of the patients that it recorded, which is said.
    """
    try:
        known, _ = learned_cases(run)
    except InputError as error:
        say(
            f"{error.where}, whose images {run.folder} learned from, cannot be opened: "
            "which of these images are among them is told by the names of patients alone"
        )
        return images_of(patients_seen(run), dataset)
    if _same_place(run.data.get("root"), dataset):
        names = {case.name for case in known}
        return [case.name for case in dataset if case.name in names]
    is_copy = finder(known)
    return [case.name for case in dataset if is_copy(case)]


def trained_on(runs: Sequence[Run], dataset: Dataset) -> set[str]:
    """Names of the cases of the patients whose labels a run learned from, or one that it started from.

    A case is known by its folder and name, and elsewhere, as in a copy of the folder, by the content of its scan.
    """
    found: set[str] = set()
    elsewhere: dict[str, set[str]] = defaultdict(set)
    for root, names in (item for run in runs for item in labels_of(run).items()):
        if _same_place(root, dataset):
            found.update(names)
    for root, scans in (item for run in runs for item in labels_with(run).items()):
        if _same_place(root, dataset):
            found.update(scans)
            continue
        for name, scan in scans.items():
            content, _, size = scan.partition(" ")
            elsewhere[size or name].add(content)  # earlier versions recorded no size
    found.update(case.name for case in dataset if _is_among(case, elsewhere))
    patients = {case.group for case in dataset if case.name in found}
    return {case.name for case in dataset if case.group in patients}


def labels_of(run: Run) -> dict[str, list[str]]:
    """By data folder the cases whose labels a run learned from, with those of the runs that it started from."""
    found: dict[str, list[str]] = {}
    data = run.data
    parts, root, before = data.get("split"), data.get("root"), data.get("labels_before")
    train = parts.get("train") if isinstance(parts, dict) else None
    both = [*(before.items() if isinstance(before, dict) else ()), (root, train)]
    for folder, names in both:
        if isinstance(folder, str) and isinstance(names, list):
            found[folder] = sorted({*found.get(folder, ()), *map(str, names)})
    return found


def labels_with(run: Run) -> dict[str, dict[str, str]]:
    """By folder, of the data or of ``--with``, the hash and the size of the scan of each case that was learned from."""
    found: dict[str, dict[str, str]] = run.data.get("labels_with", {})
    return found


def described_labels(
    source: Run | None,
    folders: Iterable[str] = (),
    learned: Iterable[Case] = (),
    own: Mapping[Path, Collection[str]] | None = None,
) -> dict[str, Any]:
    """Entries of data.json for labels: those beside the data folder's, and what the scans of all are.

    Args:
        source: The run to start from, whose labels are known as well.
        folders: Of ``--with``.
        learned: All cases that are learned from.
        own: By the data folder, names of its cases; None: of none the labels are learned.
    """
    before = labels_of(source) if source else {}
    found = {root: dict(hashes) for root, hashes in (labels_with(source) if source else {}).items()}
    cases = tuple(learned)
    for root, names in (own or {}).items():
        theirs = {case.name: _scan(case) for case in cases if case.name in names}
        found.setdefault(str(root.absolute()), {}).update(theirs)
    for number, root in enumerate((Path(folder).expanduser() for folder in folders), start=1):
        place = root if root.is_dir() else root.parent
        further = [case for case in cases if place in case.images[0].parents]
        added = f"@{number}" if own_folder(root) == GENERATED else ""  # see ``cases.with_more``
        scans = {case.name.removesuffix(added): _scan(case) for case in further}
        found.setdefault(str(root.absolute()), {}).update(scans)
    ordered = {root: dict(sorted(scans.items())) for root, scans in found.items()}
    entries = {"labels_before": before, "labels_with": ordered}
    return {name: entry for name, entry in entries.items() if entry}


def patients_seen(run: Run | None) -> set[str]:
    """Patients whose images, labelled or not, a run that draws images learned from, or one that it started from."""
    data = run.data if run else {}
    return {*data.get("learned_patients", ()), *data.get("unlabelled_patients", ())}


def images_of(patients: Iterable[str], dataset: Dataset) -> list[str]:
    """Names of the images of these patients, however a folder spells them.

    Where ``+`` joins several, from whom an image was drawn, each of them counts.
    """
    named = {patient_key(one) for name in patients for one in (name, *name.split("+"))}
    return [case.name for case in dataset if patient_key(case.group) in named]


def refuse_knowing(where: str, run: Run, dataset: Dataset, splits: Splits) -> None:
    """Refuse a run that learned from labels of patients of validation or test.

    Raises:
        InputError: Names some of the cases; ``where``: the setting that gives the run.
    """
    if seen := sorted(trained_on([run], dataset) & {*splits.validation, *splits.test}):
        problem = f"learned from {some(seen, 3)}, which this run holds out"
        raise InputError(where, problem, "Give a run with the same split")


def _is_among(case: Case, known: Mapping[str, Collection[str]]) -> bool:
    """Whether a scan's content is known, by its size or its name; one that cannot be read is named where it is used."""
    try:
        contents = {*known.get(str(size_of_files(case)), ()), *known.get(case.name, ())}
        return bool(contents) and hash_of_files(case) in contents
    except (InputError, OSError):
        return False


def _scan(case: Case) -> str:
    """Hash and size of a scan's files."""
    return f"{hash_of_files(case, remembered_hash)} {size_of_files(case)}"


def _same_place(root: object, dataset: Dataset) -> bool:
    return isinstance(root, str) and Path(root).resolve() == dataset.root.resolve()
