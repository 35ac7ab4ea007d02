"""Apply the plan to every case once and keep the arrays on disk.

Films of one set lie in one memory-mapped array, one row a case; every volume is a memory-mapped array of its own.
Reading a patch touches only the pages it needs, so memory does not grow with the number of cases. A row counts as
done when its line stands in ``rows.jsonl``, which is written after the row; so an interrupted preparation goes on,
and each line carries a checksum, so a damaged row is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..config import IGNORE
from ..errors import InputError
from ..files import reserve
from .cases import read_case_image, read_case_label
from .dataset import Case, Dataset
from .plan import Plan
from .scan import Array
from .transform import Undo, image_to_plan, label_to_plan

FORMAT = 1
"""Part of every key: a change of this file that changes the arrays must raise it."""
FOREGROUND_POINTS = 512
"""Voxels of each class that are remembered per volume, so that patches can be centered on them."""

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
        rows: tuple[int, ...],
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

    @cached_property
    def _films(self) -> Array:
        return _open(self.folder / "images.npy")

    @cached_property
    def _film_labels(self) -> Array:
        return _open(self.folder / "labels.npy")

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
        progress: Called with (done, total).

    Raises:
        InputError: A case cannot be used and ``skip_bad`` is off, or all of them cannot. Finished rows are kept.
    """
    folder = cache / "prepared" / _set_key(dataset, plan, labelled)
    folder.mkdir(parents=True, exist_ok=True)
    if plan.spatial_dims == 2:
        _allocate(folder, dataset, plan, labelled)
    done = _finished_rows(folder, plan, labelled)
    _end_last_line(folder / "rows.jsonl")
    todo = [i for i in range(len(dataset)) if i not in done]
    bad: dict[int, InputError] = {}
    count = len(done)
    with (
        (folder / "rows.jsonl").open("a", encoding="utf-8") as log,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):

        def one(row: int) -> tuple[int, int | InputError]:
            try:
                return row, _prepare_row(folder, row, dataset.cases[row], plan, labelled)
            except InputError as error:
                return row, error

        for row, outcome in _bounded_map(pool, one, todo):
            if isinstance(outcome, InputError):
                bad[row] = outcome
                if not skip_bad:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise outcome
            else:
                log.write(json.dumps({"row": row, "crc32": outcome}) + "\n")
                log.flush()
            count += 1
            if progress is not None:
                progress(count, len(dataset))
    if len(bad) == len(dataset):
        raise next(iter(bad.values()))
    good = [i for i in range(len(dataset)) if i not in bad]
    return Prepared(
        folder,
        plan,
        tuple(dataset.cases[i] for i in good),
        tuple(good),
        tuple(Skipped(dataset.cases[i].name, str(error)) for i, error in sorted(bad.items())),
        labelled,
    )


# ------------------------------------------------------------------------------------------------ internal


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
            partial = folder / f".{name}.{os.getpid()}"
            np.lib.format.open_memmap(partial, "w+", dtype, shape).flush()
            try:
                with partial.open("r+b") as file:
                    reserve(file, path, partial.stat().st_size)
            except InputError:
                partial.unlink()
                raise
            os.replace(partial, path)

    create("images.npy", np.float16, (len(dataset), len(plan.channels), *plan.size))
    if labelled:
        create("labels.npy", np.uint8, (len(dataset), *plan.size))


def _is_whole(path: Path, dtype: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = _open(path)
    except (OSError, ValueError, EOFError):
        return False
    return array.dtype == dtype and array.shape == shape


def _finished_rows(folder: Path, plan: Plan, labelled: bool) -> set[int]:
    log = folder / "rows.jsonl"
    if not log.exists():
        return set()
    done: set[int] = set()
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            row, crc = int(entry["row"]), int(entry["crc32"])
        except (ValueError, KeyError, TypeError):
            continue  # a line cut short by a kill: its row is made again
        if _checksum(folder, row, plan, labelled) == crc:
            done.add(row)
    return done


def _end_last_line(log: Path) -> None:
    """A line cut short by a kill must not swallow the one that is written next."""
    if log.exists() and (text := log.read_bytes()) and not text.endswith(b"\n"):
        with log.open("ab") as file:
            file.write(b"\n")


def _checksum(folder: Path, row: int, plan: Plan, labelled: bool) -> int | None:
    prepared = Prepared(folder, plan, (), (row,), (), labelled)
    try:
        crc = _crc(prepared.image(0))
        if labelled:
            crc = _crc(prepared.label(0), crc)
            if plan.spatial_dims == 3:
                crc = _crc(prepared.foreground(0), crc)
        return crc
    except (OSError, ValueError, EOFError, IndexError):
        return None


def _prepare_row(folder: Path, row: int, case: Case, plan: Plan, labelled: bool) -> int:
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
    films = np.load(folder / "images.npy", mmap_mode="r+", allow_pickle=False)
    films[row] = image
    if label is not None:
        labels = np.load(folder / "labels.npy", mmap_mode="r+", allow_pickle=False)
        labels[row] = label


def _crc(array: Array, start: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data, start)


def _open(path: Path) -> Array:
    """An array file as a memory map: only the pages that are read take memory."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _save(path: Path, array: Array) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(partial, path)


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


def _bounded_map(
    pool: ThreadPoolExecutor, function: Callable[[int], Any], items: Iterable[int]
) -> Iterable[Any]:
    """Like ``pool.map``, in order, but with a bounded number of results waiting."""
    from collections import deque

    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= 64:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
