"""Apply the plan to every case once and keep the arrays on disk, where ``prepared.py`` reads them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import IGNORE
from ..errors import InputError
from ..system.distributed import rank
from ..system.files import locked, make_folder
from .arrays import Progress, allocate, checksum, fill_rows, logged_rows, save_array, write_rows
from .cases import read_case_image, read_case_label
from .dataset import Case, Dataset
from .fingerprint import threads_for
from .plan import Plan
from .prepared import Prepared, Skipped
from .readers import source_files
from .scan import Array, Scan
from .transform import Undo, image_to_plan, label_to_plan

FORMAT = 2
"""Part of every key; raise it when the arrays change."""
FOREGROUND_POINTS = 512
"""Voxels of each class kept per image, for patches to be centered on."""
CHUNK = 64
"""Films, neighbors in the file, that a worker of a cluster prepares together."""


def cache_folder(setting: str | None) -> Path:
    """Where prepared arrays and splits are kept."""
    if given := setting or os.environ.get("RADIFFUSE_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "radiffuse"


def prepare(
    dataset: Dataset,
    plan: Plan,
    *,
    labelled: bool,
    cache: Path,
    skip_bad: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare every case of a data set, or reuse what is already there.

    Args:
        dataset: The cases.
        plan: The plan to apply.
        labelled: Prepare label maps as well; every case must have one.
        cache: See ``cache_folder``.
        skip_bad: Leave bad cases out and list them, instead of stopping at the first.
        workers: Threads at most; None: one per core. Volumes take fewer where memory does not hold as many.
        scheduler: Address of a dask scheduler whose workers prepare the cases; None: this machine.
        progress: Called with (done, total).

    Raises:
        InputError: A case cannot be used and ``skip_bad`` is off, or no case can. Finished rows are
            kept.
    """
    folder = cache / "prepared" / _set_key(dataset, plan, labelled)
    bad: dict[int, InputError] = {}
    if rank() > 0:  # rank 0 has been here
        rows = set(logged_rows(folder))
    else:
        workers = workers if scheduler else threads_for(dataset.cases, workers)
        options = {"scheduler": scheduler, "workers": workers, "progress": progress}
        bad = _fill(folder, dataset, plan, labelled, skip_bad=skip_bad, **options)
        rows = set(range(len(dataset))) - bad.keys()
    good = tuple(sorted(rows))
    cases = tuple(dataset.cases[i] for i in good)
    skipped = tuple(Skipped(dataset.cases[i].name, str(bad[i])) for i in sorted(bad))
    return Prepared(folder, plan, cases, good, skipped, labelled)


def voxels_behind(file: Path) -> tuple[Path, ...]:
    """The file of the voxels behind a detached header."""
    try:
        return source_files(file)[1:]
    except (InputError, OSError):  # reading it will say what is wrong
        return ()


# ------------------------------------------------------------------------------------------------ internal


def _fill(
    folder: Path, dataset: Dataset, plan: Plan, labelled: bool, **options: Any
) -> dict[int, InputError]:
    """Make missing arrays; returns why cases are bad, by row."""
    films = plan.spatial_dims == 2
    make_folder(folder)
    # Of runs that start together, one prepares the set.
    with locked(folder, f"{folder} is being prepared by another process; waiting for it"):
        if films:
            shape = (len(dataset), len(plan.channels), *plan.film)
            allocate(folder / "images.npy", np.float16, shape)
        if films and labelled:
            allocate(folder / "labels.npy", np.uint8, (len(dataset), *plan.film))
        bad = fill_rows(
            folder,
            dict(enumerate(dataset)),
            partial(_prepare_row, folder, plan=plan, labelled=labelled),
            Prepared(folder, plan, (), range(sys.maxsize), (), labelled).arrays,
            chunk=CHUNK if films else 1,
            name=lambda item: str(item[1].images[0]),
            **options,
        )
    if len(bad) == len(dataset):
        raise next(iter(bad.values()))
    return bad


def _set_key(dataset: Dataset, plan: Plan, labelled: bool) -> str:
    treatment = plan.treatment
    names = treatment.pop("classes")
    if labelled:
        treatment["classes"] = len(names)  # other values are refused
    treatment.pop("postprocess")
    treatment.pop("size")  # patches are cut later
    if plan.spatial_dims == 2:
        treatment |= {"grid": plan.film, "points": labelled and not plan.whole}
    digest = hashlib.sha256(json.dumps([FORMAT, labelled, treatment], sort_keys=True).encode())
    for case in dataset:
        files = [*case.images, *case.series, *(case.label_files if labelled else ())]
        files += [extra for file in files for extra in voxels_behind(file)]
        digest.update(repr((case.name, case.label_item if labelled else None)).encode())
        if labelled and (case.label_values or case.ignore_value is not None):
            digest.update(repr((case.label_values, case.ignore_value)).encode())
        if labelled and case.label_threshold is not None:
            digest.update(repr(case.label_threshold).encode())
        for file in files:
            try:
                status = file.stat()
                state: tuple[Any, ...] = (str(file.resolve()), status.st_size, status.st_mtime_ns)
            except OSError:
                state = (str(file), "missing")
            digest.update(repr(state).encode())
    return digest.hexdigest()[:20]


def _prepare_row(folder: Path, item: tuple[int, Case], *, plan: Plan, labelled: bool) -> int:
    row, case = item
    scan = read_case_image(case)
    if scan.spatial_dims != plan.spatial_dims:
        problem = f"has {scan.spatial_dims} spatial axes, the plan has {plan.spatial_dims}"
        raise InputError(case.images[0], problem, "Put films and volumes in folders of their own")
    image, undo = image_to_plan(scan, plan)
    if image.shape[0] != len(plan.channels):
        problem = f"has {image.shape[0]} channels, the plan has {len(plan.channels)}"
        raise InputError(case.images[0], problem, "Leave the file out or edit the plan")
    arrays = {"image": image.astype(np.float16)}
    if labelled:
        arrays["label"] = _prepare_label(case, scan, undo, plan)
        if not plan.whole:
            arrays["points"] = _points(arrays["label"], row)
    for kind, array in arrays.items():
        if plan.spatial_dims == 2 and kind != "points":
            write_rows(folder / f"{kind}s.npy", row, array[None])
        else:
            save_array(folder / f"{kind}-{row:06d}.npy", array)
    return checksum(*arrays.values())


def _prepare_label(case: Case, image: Scan, undo: Undo, plan: Plan) -> Array:
    scan, where = read_case_label(case, image), case.label or case.name
    values = np.unique(scan.array)
    legal = len(plan.classes)
    wrong = [int(v) for v in values if v != IGNORE and not 0 <= v < legal]
    if wrong:
        problem = f"has label values {wrong[:5]} outside the {legal} declared classes"
        raise InputError(where, problem, "Correct the label map or declare the classes")
    return label_to_plan(scan, plan, undo)


def _points(label: Array, row: int) -> Array:
    """Rows of class and place, int32 ``(n, 1 + dims)``, in the order of the classes."""
    rng = np.random.default_rng(row)
    points = [np.zeros((0, 1 + label.ndim), np.int32)]
    for value in np.unique(label):
        if value in (0, IGNORE):
            continue
        found = np.argwhere(label == value)
        keep = np.sort(rng.permutation(len(found))[:FOREGROUND_POINTS])
        points.append(np.insert(found[keep], 0, value, axis=1).astype(np.int32))
    return np.concatenate(points)
