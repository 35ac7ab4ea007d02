"""Apply the plan to every case once and keep the arrays on disk.

Films of one set lie in one memory-mapped array, one row a case; every volume is a memory-mapped array of its own.
Reading a patch touches only the pages it needs, so memory does not grow with the number of cases. A row counts as
done when its line stands in ``rows.jsonl``, which is written after the row; so an interrupted preparation goes on,
and each line carries a checksum, so a damaged row is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import IGNORE
from ..distributed import rank
from ..errors import InputError
from ..files import end_last_line, locked, make_folder, reserve, whole
from .cases import read_case_image, read_case_label
from .dataset import Case, Dataset
from .plan import Plan
from .scan import Array
from .transform import Undo, image_to_plan, label_to_plan
from .workers import each

FORMAT = 1
"""Part of every key: a change of this file that changes the arrays must raise it."""
FOREGROUND_POINTS = 512
"""Voxels of each class that are remembered per volume, so that patches can be centered on them."""

CHUNK = 64
"""Films that a worker of a cluster prepares together: neighbors in the file."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Skipped:
    """A case that was left out, and why."""

    case: str
    reason: str


class Prepared:
    """Prepared cases, in the order of their data set, without those that were skipped.

    Attributes:
        cases: The usable cases.
        plan: The plan that was applied.
        skipped: What was left out.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        cases: tuple[Case, ...],
        rows: Sequence[int],
        skipped: tuple[Skipped, ...],
        labelled: bool,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.cases = cases
        self.rows = rows
        self.skipped = skipped
        self.labelled = labelled
        self._layouts: dict[str, tuple[Any, tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open maps, which another process opens itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_films", "_film_labels")}

    @cached_property
    def _films(self) -> Array:
        return _open(self.folder / "images.npy")

    @cached_property
    def _film_labels(self) -> Array:
        return _open(self.folder / "labels.npy")

    def without_cases(self) -> Prepared:
        """The arrays alone, which are little to send."""
        return Prepared(self.folder, self.plan, (), self.rows, (), self.labelled)

    def image(self, index: int) -> Array:
        """float16 ``(C, *spatial)`` in [-1, 1]; a view of the file."""
        if self.plan.spatial_dims == 2:
            film: Array = self._films[self.rows[index]]
            return film
        return self._map("image", self.rows[index])

    def label(self, index: int) -> Array:
        """uint8 ``(*spatial)``, 255 is ignore; a view of the file."""
        if self.plan.spatial_dims == 2:
            label: Array = self._film_labels[self.rows[index]]
            return label
        return self._map("label", self.rows[index])

    def foreground(self, index: int) -> Array:
        """3D: int32 ``(n, 3)`` voxels of the foreground, at most a few hundred of each class."""
        return self._map("points", self.rows[index])

    def _map(self, kind: str, row: int) -> Array:
        """A file of a volume. It is mapped anew each time, so that its pages can go; its header is parsed once."""
        path = f"{self.folder}/{kind}-{row:06d}.npy"
        if path not in self._layouts:
            array = _open(Path(path))
            self._layouts[path] = array.dtype, array.shape, array.offset  # type: ignore[attr-defined]
            return array
        dtype, shape, offset = self._layouts[path]
        return np.memmap(path, dtype, "r", offset, shape)


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
        return _prepared(folder, dataset, plan, labelled, _logged_rows(folder), {})
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
        _allocate(folder, dataset, plan, labelled)
    done = _finished_rows(folder, plan, labelled)
    end_last_line(folder / "rows.jsonl")
    todo = [i for i in range(len(dataset)) if i not in done]
    bad: dict[int, InputError] = {}
    count = len(done)
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as log:
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


def _allocate(folder: Path, dataset: Dataset, plan: Plan, labelled: bool) -> None:
    def create(name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        path = folder / name
        if not _is_whole(path, dtype, shape):
            write_blank(path, dtype, shape)

    create("images.npy", np.float16, (len(dataset), len(plan.channels), *plan.size))
    if labelled:
        create("labels.npy", np.uint8, (len(dataset), *plan.size))


def write_blank(path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    """An array file of zeros whose room on the disk is claimed.

    Raises:
        InputError: There is not that much room.
    """
    with whole(path, sync=False) as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype)) | {"shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        start = file.tell()
        reserve(file, path, start + math.prod(shape) * np.dtype(dtype).itemsize)


def _is_whole(path: Path, dtype: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = _open(path)
    except (OSError, ValueError, EOFError):
        return False
    return array.dtype == dtype and array.shape == shape


def _finished_rows(folder: Path, plan: Plan, labelled: bool) -> set[int]:
    checksum = _checksums(folder, plan, labelled)
    return {row for row, crc in _logged_rows(folder).items() if checksum(row) == crc}


def _logged_rows(folder: Path) -> dict[int, int]:
    """Checksums by row, as the log has them."""
    log = folder / "rows.jsonl"
    rows = {}
    if log.exists():
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    rows[int(entry["row"])] = int(entry["crc32"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a kill: its row is made again
    return rows


def _checksums(folder: Path, plan: Plan, labelled: bool) -> Callable[[int], int | None]:
    prepared = Prepared(folder, plan, (), range(sys.maxsize), (), labelled)

    def checksum(row: int) -> int | None:
        try:
            crc = _crc(prepared.image(row))
            if labelled:
                crc = _crc(prepared.label(row), crc)
                if plan.spatial_dims == 3:
                    crc = _crc(prepared.foreground(row), crc)
            return crc
        except (OSError, ValueError, EOFError, IndexError):
            return None

    return checksum


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
    crc = _crc(image)
    if label is not None:
        crc = _crc(label, crc)
    if plan.spatial_dims == 2:
        _write_film_row(folder, row, image, label)
    else:
        _save(folder / f"image-{row:06d}.npy", image)
        if label is not None:
            points = _points(label, row)
            crc = _crc(points, crc)
            _save(folder / f"label-{row:06d}.npy", label)
            _save(folder / f"points-{row:06d}.npy", points)
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
    _write_row(folder / "images.npy", row, image)
    if label is not None:
        _write_row(folder / "labels.npy", row, label)


def _write_row(path: Path, row: int, values: Array) -> None:
    """By offset, not through a map: two machines that share a page of it would overwrite each other."""
    with path.open("r+b", buffering=0) as file:
        offset, shape, dtype = _layout(path, os.fstat(file.fileno()).st_ino)
        data = np.ascontiguousarray(values, dtype)
        if data.shape != shape[1:]:
            raise ValueError(f"a row of shape {data.shape} in an array of {shape}")
        os.pwrite(file.fileno(), data.tobytes(), offset + row * data.nbytes)


@lru_cache(maxsize=16)
def _layout(path: Path, inode: int) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """First byte, shape and type of an array file; reading the header costs as much as writing a small film."""
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    return whole.offset, whole.shape, whole.dtype


def _crc(array: Array, start: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data, start)


def _open(path: Path) -> Array:
    """An array file as a memory map: only the pages that are read take memory."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _save(path: Path, array: Array) -> None:
    with whole(path, sync=False) as file:
        np.save(file, array, allow_pickle=False)


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
