"""Pairs show whom the network that draws them has seen, so its pre-training may not have seen held-out patients."""

from __future__ import annotations

from ..config import Study
from ..data.copies import finder
from ..data.dataset import Dataset
from ..data.issues import some
from ..data.layouts import open_dataset
from ..data.splits import Splits
from ..errors import InputError
from ..train.cases import limited
from ..train.known import images_of, learned_images, patients_seen
from ..train.start import find_pretrained
from .methods import DRAWER, METHODS


def refuse_leaks(given: Study, dataset: Dataset, splits: Splits) -> None:
    """Refuse to draw pairs of a network whose pre-training saw patients of validation and test: pairs show them.

    They are known by name, or by a copy of one of their images.

    Raises:
        InputError: Names some of them.
    """
    if not any(METHODS[name].pool == "pairs" for name in given.trained):
        return
    held_out = splits.held_out(dataset)
    if given.from_run:
        where, run = f"--from {given.from_run}", find_pretrained(given.from_run)
        patients, copies = patients_seen(run), learned_images(run, held_out)
    elif given.unlabelled:
        where, base = f"--unlabelled {given.unlabelled}", given.pretrain
        pool = limited(open_dataset(given.unlabelled, base.reader), base.limit, base.training.seed)
        patients, is_copy = {case.group for case in pool}, finder(pool)
        copies = [case.name for case in held_out if is_copy(case)]
    else:
        return
    seen = {*copies, *images_of(patients, held_out)}
    if found := sorted({case.group for case in held_out if case.name in seen}):
        problem = (
            f"has images of {some(found, 3)}, held out here, from whom {DRAWER} would draw pairs"
        )
        remedy = "Pre-train without them, or leave out drawn-pairs; patients.csv tells patients of one name apart"
        raise InputError(where, problem, remedy)
