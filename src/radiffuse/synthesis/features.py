"""What a frozen network makes of every prepared film, computed once and kept on disk; and batches of it.

A set of features is one memory-mapped array under a key made of the network's weights and of the content of the films.
It is computed in blocks of rows, see ``data.arrays``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import (
    Progress,
    allocate,
    checksum,
    fill_rows,
    logged_rows,
    open_array,
    write_rows,
)
from ..data.batches import Batch, BatchSource
from ..data.prepared import Prepared
from ..data.scan import Array
from ..system.distributed import rank, wait_for_main
from ..system.files import locked, make_folder

FORMAT = 2
"""Part of every key: a change of what is stored, or how, must raise it."""
BLOCK = 64
"""Films per block."""


def features(
    prepared: Prepared,
    compute: Callable[[Tensor], Tensor],
    *,
    weights: str,
    dtype: type[np.floating],
    cache: Path,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Array:
    """Features of every case of a prepared set of films, from the cache where they are there.

    Args:
        prepared: The films.
        compute: Films ``(B, C, rows, columns)`` to features ``(B, ...)``; goes to workers with the network behind it.
        weights: Hash of the network behind ``compute``, and of how it is used.
        dtype: Stored type.
        cache: Cache folder, see ``prepare.cache_folder``.
        scheduler: Address of a dask scheduler whose workers compute the features; None: this process.
        progress: Called with (done, total).

    Returns:
        ``(N, ...)``, a view of the file, in the order of ``prepared.cases``.
    """
    folder = cache / "features" / _key(prepared, weights, dtype)
    path = folder / "rows.npy"
    if rank() > 0:
        wait_for_main()
        return open_array(path)
    make_folder(folder)
    count = len(prepared)

    def read(first: int) -> list[Array]:
        return [open_array(path)[first : first + BLOCK]]

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(min(done * BLOCK, count), count)

    with locked(folder, f"{folder} is being computed by another process; waiting for it"):
        shape = compute(_films(prepared, range(1))).shape[1:]
        allocate(path, dtype, (count, *shape))
        fill_rows(
            folder,
            {first: range(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)},
            partial(_block, path, prepared.without_cases(), compute, dtype),
            read,
            progress=tell,
            scheduler=scheduler,
            workers=0,
        )
    wait_for_main()
    return open_array(path)


@dataclass(frozen=True)
class LatentBatch(Batch):
    """A batch whose ``images`` are mean and spread of latents, float32 ``(B, 2 c, h, w)``.

    Attributes:
        embeddings: float32 ``(B, width)``.
    """

    embeddings: Tensor


class LatentBatches(BatchSource[int, LatentBatch]):
    """Batches of latents with their embeddings.

    Args:
        latents: ``(N, 2 c, h, w)``.
        embeddings: ``(N, width)``.
        names: Of the cases.
        batch_size: Films per step over all ranks.
        seed: Seed of the order.
        indices: Which rows to use.
    """

    def __init__(
        self,
        latents: Array,
        embeddings: Array,
        names: Sequence[str],
        *,
        batch_size: int,
        seed: int,
        indices: Sequence[int],
    ) -> None:
        super().__init__(indices, batch_size=batch_size, seed=seed)
        self.latents, self.embeddings = latents, embeddings
        self.names = tuple(names)

    def sample(self, index: int, rng: np.random.Generator) -> int:
        """The row itself; nothing of it is random."""
        return index

    def collate(self, samples: Sequence[int]) -> LatentBatch:
        """The rows of both arrays."""
        latents, embeddings = (
            torch.from_numpy(np.stack([np.asarray(a[row], np.float32) for row in samples]))
            for a in (self.latents, self.embeddings)
        )
        return LatentBatch(latents, None, tuple(self.names[row] for row in samples), embeddings)


# ------------------------------------------------------------------------------------------------ internal


def _block(
    path: Path,
    prepared: Prepared,
    compute: Callable[[Tensor], Tensor],
    dtype: type[np.floating],
    item: tuple[int, range],
) -> int:
    """Compute and write a block, given as (first row, rows); its checksum."""
    first, rows = item
    values = compute(_films(prepared, rows)).cpu().numpy().astype(dtype)
    write_rows(path, first, values)
    return checksum(values)


def _films(prepared: Prepared, rows: range) -> Tensor:
    films = np.stack([np.asarray(prepared.image(i), np.float32) for i in rows])
    return torch.from_numpy(films)


def _key(prepared: Prepared, weights: str, dtype: type[np.floating]) -> str:
    """From content: the checksums that the preparation left, in the order of the cases."""
    sums = logged_rows(prepared.folder)
    content = [FORMAT, weights, np.dtype(dtype).name, [sums[row] for row in prepared.rows]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]
