"""Apply the plan to every case once and keep the arrays on disk; ``prepared.py`` reads them.

A row counts as done when its line stands in ``rows.jsonl``, which is written after the row; so an interrupted
preparation goes on, and each line carries a checksum, so a damaged row is made again. Checksums of a whole set are
compared only where a file of it has changed since they last agreed: that reads all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..errors import InputError
from ..system.distributed import rank
from ..system.files import end_last_line, locked, make_folder, to_disk, write_atomic
from .arrays import allocate, checksum, save_array, write_row
from .cases import read_case_image, read_case_label
from .dataset import Case, Dataset
from .plan import Plan
from .prepared import ROWS, Prepared, Skipped, logged_rows
from .scan import Array
from .transform import Undo, image_to_plan, label_to_plan
from .workers import each

FORMAT = 1
"""Part of every key: a change of this file that changes the arrays must raise it."""
CHECKED = "checked"
"""File with the state in which all rows of the set were whole."""
FOREGROUND_POINTS = 512
"""Voxels of each class that are remembered per volume, so that patches can be centered on them."""

CHUNK = 64
"""Films that a worker of a cluster prepares together: neighbors in the file."""

Progress = Callable[[int, int], None]


def cache_folder(setting: str | None) -> Path:
    """Where prepared arrays and splits are kept."""
    given = setting or os.environ.get("RADIFFUSE_CACHE")
    if given:
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
    """Prepare every case of a data set, or take up what is already there.

    Args:
        dataset: The cases.
        plan: The treatment.
        labelled: Prepare label maps as well; every case must have one.
        cache: Cache folder, see ``cache_folder``.
        skip_bad: Leave bad cases out and list them, instead of stopping at the first.
        workers: Threads (decoding and resizing run outside the interpreter's lock); None: one per core.
        scheduler: Address of a dask scheduler whose workers prepare the cases; None: this machine.
        progress: Called with (done, total).

    Raises:
        InputError: A case cannot be used and ``skip_bad`` is off, or all of them cannot. Finished rows are kept.
    """
    folder = cache / "prepared" / _set_key(dataset, plan, labelled)
    if rank() > 0:  # rank 0 has been here
        return _prepared(folder, dataset, plan, labelled, logged_rows(folder), {})
    make_folder(folder)
    # Runs that start together prepare the same set; one of them does it.
    with locked(folder, f"{folder} is being prepared by another process; waiting for it"):
        return _prepare(folder, dataset, plan, labelled, skip_bad, workers, scheduler, progress)


# ------------------------------------------------------------------------------------------------ internal


def _prepare(
    folder: Path,
    dataset: Dataset,
    plan: Plan,
    labelled: bool,
    skip_bad: bool,
    workers: int | None,
    scheduler: str | None,
    progress: Progress | None,
) -> Prepared:
    if plan.spatial_dims == 2:
        allocate(folder / "images.npy", np.float16, (len(dataset), len(plan.channels), *plan.size))
        if labelled:
            allocate(folder / "labels.npy", np.uint8, (len(dataset), *plan.size))
    logged = logged_rows(folder)
    untouched = _known(folder) == _state(folder)
    done = set(logged) if untouched else _whole_rows(folder, plan, labelled, logged)
    end_last_line(folder / ROWS)
    todo = [i for i in range(len(dataset)) if i not in done]
    bad: dict[int, InputError] = {}
    count = len(done)
    with (folder / ROWS).open("a", encoding="utf-8") as log:
        outcomes = each(
            partial(_prepare_row, folder, plan=plan, labelled=labelled),
            ((row, dataset.cases[row]) for row in todo),
            scheduler=scheduler,
            workers=workers or None,
            chunk=CHUNK if plan.spatial_dims == 2 else 1,
            name=lambda item: str(item[1].images[0]),
        )
        for (row, _), outcome in outcomes:
            if isinstance(outcome, InputError):
                bad[row] = outcome
                if not skip_bad:
                    outcomes.close()
                    raise outcome
            else:
                log.write(json.dumps({"row": row, "crc32": outcome}) + "\n")
                log.flush()
            count += 1
            if progress is not None:
                progress(count, len(dataset))
    if len(bad) == len(dataset):
        raise next(iter(bad.values()))
    changed = not untouched or len(bad) < len(todo)
    if changed and not bad.keys() & logged.keys():  # those are damaged, and not to be made again
        _remember(folder)
    return _prepared(folder, dataset, plan, labelled, set(range(len(dataset))) - set(bad), bad)


def _prepared(
    folder: Path,
    dataset: Dataset,
    plan: Plan,
    labelled: bool,
    rows: Collection[int],
    bad: Mapping[int, InputError],
) -> Prepared:
    good = sorted(rows)
    return Prepared(
        folder,
        plan,
        tuple(dataset.cases[i] for i in good),
        tuple(good),
        tuple(Skipped(dataset.cases[i].name, str(error)) for i, error in sorted(bad.items())),
        labelled,
    )


def _set_key(dataset: Dataset, plan: Plan, labelled: bool) -> str:
    treatment = asdict(plan)
    treatment.pop("classes")
    treatment.pop("postprocess")
    if plan.crop is None:
        treatment.pop("crop")  # plans from before there was a crop keep their arrays
    if plan.spatial_dims == 3:
        treatment.pop("size")  # patches are cut later
    digest = hashlib.sha256(json.dumps([FORMAT, labelled, treatment], sort_keys=True).encode())
    for case in dataset:
        files = [*case.images, *case.series, *(case.label_files if labelled else ())]
        digest.update(repr((case.name, case.label_item if labelled else None)).encode())
        if labelled and (case.label_values or case.ignore_value is not None):
            digest.update(repr((case.label_values, case.ignore_value)).encode())
        for file in files:
            try:
                status = file.stat()
                digest.update(
                    repr((str(file.resolve()), status.st_size, status.st_mtime_ns)).encode()
                )
            except OSError:
                digest.update(repr((str(file), "missing")).encode())
    return digest.hexdigest()[:20]


def _whole_rows(folder: Path, plan: Plan, labelled: bool, logged: Mapping[int, int]) -> set[int]:
    of_row = _checksums(folder, plan, labelled)
    return {row for row, crc in logged.items() if of_row(row) == crc}


def _remember(folder: Path) -> None:
    """Write down that all rows are whole as the files are now, and on the disk."""
    for entry in _files(folder):
        to_disk(Path(entry.path))
    write_atomic(folder / CHECKED, _state(folder))


def _known(folder: Path) -> str:
    path = folder / CHECKED
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _state(folder: Path) -> str:
    """What tells whether a file of the folder has been written since."""
    digest = hashlib.sha256()
    for entry in _files(folder):
        status = entry.stat()
        known = (entry.name, status.st_ino, status.st_size, status.st_mtime_ns)
        digest.update(repr(known).encode())
    return digest.hexdigest()


def _files(folder: Path) -> list[os.DirEntry[str]]:
    found = (e for e in os.scandir(folder) if e.name.endswith(".npy") or e.name == ROWS)
    return sorted(found, key=lambda entry: entry.name)


def _checksums(folder: Path, plan: Plan, labelled: bool) -> Callable[[int], int | None]:
    prepared = Prepared(folder, plan, (), range(sys.maxsize), (), labelled)

    def of_row(row: int) -> int | None:
        try:
            crc = checksum(prepared.image(row))
            if labelled:
                crc = checksum(prepared.label(row), crc)
                if plan.spatial_dims == 3:
                    crc = checksum(prepared.foreground(row), crc)
            return crc
        except (OSError, ValueError, EOFError, IndexError):
            return None

    return of_row


def _prepare_row(folder: Path, item: tuple[int, Case], *, plan: Plan, labelled: bool) -> int:
    row, case = item
    scan = read_case_image(case)
    if scan.spatial_dims != plan.spatial_dims:
        raise InputError(
            case.images[0],
            f"has {scan.spatial_dims} spatial axes, the plan has {plan.spatial_dims}",
            "Put films and volumes in folders of their own",
        )
    image, undo = image_to_plan(scan, plan)
    if image.shape[0] != len(plan.channels):
        raise InputError(
            case.images[0],
            f"has {image.shape[0]} channels, the plan has {len(plan.channels)}",
            "Leave the file out or edit the plan",
        )
    image = image.astype(np.float16)
    label = _prepare_label(case, undo, plan) if labelled else None
    crc = checksum(image)
    if label is not None:
        crc = checksum(label, crc)
    if plan.spatial_dims == 2:
        _write_film_row(folder, row, image, label)
    else:
        save_array(folder / f"image-{row:06d}.npy", image)
        if label is not None:
            points = _points(label, row)
            crc = checksum(points, crc)
            save_array(folder / f"label-{row:06d}.npy", label)
            save_array(folder / f"points-{row:06d}.npy", points)
    return crc


def _prepare_label(case: Case, undo: Undo, plan: Plan) -> Array:
    scan = read_case_label(case)
    if scan.spatial_shape != undo.shape:
        raise InputError(
            case.label or case.name,
            f"has shape {scan.spatial_shape}, its image has {undo.shape}",
            "Correct the label map or leave the case out with --skip-bad",
        )
    values = np.unique(scan.array)
    legal = len(plan.classes)
    wrong = [int(v) for v in values if v != IGNORE and not 0 <= v < legal]
    if wrong:
        raise InputError(
            case.label or case.name,
            f"has label values {wrong[:5]} outside the {legal} declared classes",
            "Correct the label map or declare the classes",
        )
    return label_to_plan(scan, plan, undo)


def _write_film_row(folder: Path, row: int, image: Array, label: Array | None) -> None:
    write_row(folder / "images.npy", row, image)
    if label is not None:
        write_row(folder / "labels.npy", row, label)


def _points(label: Array, row: int) -> Array:
    rng = np.random.default_rng(row)
    points = []
    for value in np.unique(label):
        if value in (0, IGNORE):
            continue
        found = np.argwhere(label == value)
        keep = rng.permutation(len(found))[:FOREGROUND_POINTS]
        points.append(found[np.sort(keep)])
    return (np.concatenate(points) if points else np.zeros((0, 3))).astype(np.int32)
