"""Images beside the labelled ones, of ``--unlabelled`` and ``--with``: which enter, and a word on those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..config import Fit
from ..data.copies import copied, finder, without_held_out, without_patients_of
from ..data.dataset import Dataset
from ..data.issues import Issues, say, some
from ..data.layouts.listing import GENERATED, own_folder
from ..data.splits import Splits
from ..errors import InputError
from ..system import saying
from .cases import open_more

_SAID: ContextVar[set[str] | None] = ContextVar("_SAID", default=None)
"""Settings and folders of which something was said within ``saying_once``."""


@contextmanager
def saying_once() -> Iterator[None]:
    """Within the block ``look_at_further`` says of each folder once what enters, whatever learns from it."""
    token = _SAID.set(set())
    try:
        yield
    finally:
        _SAID.reset(token)


def read_pools(settings: Fit, dataset: Dataset, splits: Splits) -> list[Dataset]:
    """The pools without images of validation and test patients, or synthetic ones made from them.

    Raises:
        InputError: One cannot be read, or holds no other image.
    """
    return [pool for _, pool in _read(settings, dataset, splits)]


def look_at_further(settings: Fit, dataset: Dataset, splits: Splits) -> None:
    """Say which images of further folders are left out as those of held-out patients, and which of a pool are labelled.

    Labelled images stay in a pool, where they are seen changed more strongly than beside their labels
    [related: FixMatch, Sohn et al. 2020, arXiv 2001.07685, whose unlabelled images include the labelled ones].

    Raises:
        InputError: As ``read_pools``; or a pool holds nothing but images whose labels are learned from.
    """
    if not (settings.unlabelled or settings.with_run):
        return
    budget = {*splits.budget(settings.labels, settings.draw)}
    learned = [case for case in dataset if case.name in budget]
    held = splits.held_out(dataset)
    for folder in settings.with_run:
        whole = open_more(folder, settings.reader).labelled
        kept = without_held_out(whole, held, dataset)
        where = f"--with {folder}"
        if len(kept) and _first_of(where):  # of none it is said where they are opened
            _say_held_out(where, whole, kept, dataset)
        learned += kept.cases
    for folder, (whole, pool) in zip(
        settings.unlabelled, _read(settings, dataset, splits), strict=True
    ):
        where, count = f"--unlabelled {folder}", len(pool)
        if first := _first_of(where):
            _say_held_out(where, whole, pool, dataset)
        known = sum(map(bool, map(finder(learned), pool)))
        if known == count:
            problem = (
                f"holds nothing to learn from but {count} images whose labels are learned from"
            )
            raise InputError(where, problem, "Give other images, or leave it out")
        if known and first:
            text = f"{known} of its {len(whole)} images are labelled ones, which teach little more; they stay in"
            saying.say(f"{where}: {text}")


def look_at_copies(dataset: Dataset, splits: Splits) -> None:
    """Warn of images of the set itself that are the same under two patients, and not held out together."""
    held = {name: part for part in ("validation", "test") for name in splits.part(part)}
    same = copied(dataset)
    names = [
        f"{case.name} and {first.name}"
        for case in dataset
        if (first := same.get(case.name))
        and first.group != case.group
        and not (case.name in held and held[case.name] == held.get(first.name))
    ]
    if not names or not _first_of(str(dataset.root)):
        return
    issues = Issues()
    problem = f"has the same image under two patients, so that what is learned from may be scored too: {some(names)}"
    remedy = "Remove one of the two, or give both the same patient; radiffuse check names all"
    issues.warning(dataset.root, problem, remedy)
    say(issues)


def require_some(count: int, folder: str, whole: int) -> None:
    """Refuse a pool of which nothing is left.

    Raises:
        InputError: ``count`` is 0.
    """
    if count:
        return
    problem = "holds no image"
    if whole:
        problem = f"holds {whole} images, all of them of validation or test patients"
    raise InputError(f"--unlabelled {folder}", problem, "Give other images; see radiffuse check")


def held_out_parts(dataset: Dataset, splits: Splits) -> list[Dataset]:
    """Validation and test cases, those that there are; apart, since folds of the labels share the second."""

    def part(names: set[str]) -> Dataset:
        return dataset.filter(lambda case: case.name in names)

    return [part(set(names)) for names in (splits.validation, splits.test) if names]


def say_copies(where: str, copies: int) -> None:
    """Say how many images of a setting and its folders are left out for their pixels."""
    if copies:
        text = f"{copies} of its images are copies of validation or test images, and are left out"
        saying.say(f"{where}: {text}")


# ------------------------------------------------------------------------------------------------ internal


def _first_of(where: str) -> bool:
    """Whether something is said of this setting and folder, and from now on it was."""
    said = _SAID.get()
    if said is None:
        return True
    first = where not in said
    said.add(where)
    return first


def _say_held_out(where: str, whole: Dataset, kept: Dataset, dataset: Dataset) -> None:
    """Say how many images are left out for their patients, and what to do where a name alone says whose they are.

    Args:
        where: The setting and its folder.
        whole: The images of the folder.
        kept: Those of no held-out patient.
        dataset: The labelled cases, of which some are held out.
    """
    stay = {case.name for case in kept}
    left_out = [case for case in whole if case.name not in stay]
    if not left_out:
        return
    drawn = own_folder(whole.root) == GENERATED
    of = "drawn from" if drawn else "of"
    problem = f"{len(left_out)} of its {len(whole)} images are left out, which are {of} validation or test patients"
    unnamed = [str(one.root) for one in (whole, dataset) if not one.patients_named]
    if drawn or not unnamed or all(map(finder(dataset), left_out)):
        saying.say(f"{where}: {problem}")
        return
    issues = Issues()
    names = " and ".join(dict.fromkeys(unnamed))
    problem += f" by their file names alone: nothing names patients in {names}"
    remedy = "If they are of other patients, say so in a patients.csv in their folder"
    issues.warning(where, problem, remedy)
    say(issues)


def _read(settings: Fit, dataset: Dataset, splits: Splits) -> list[tuple[Dataset, Dataset]]:
    """Each pool as it is, and without the held-out patients."""
    held = splits.held_out(dataset)
    pools = []
    for folder in settings.unlabelled:
        whole = open_more(folder, settings.reader)
        pools.append((whole, without_patients_of(whole, held, dataset)))
        require_some(len(pools[-1][1]), folder, len(whole))
    return pools
