"""Outputs of frozen networks for a data set: embeddings, latents and features, computed once and kept on disk.

A set is one memory-mapped array under a key made of the network's weights and of the content of the films. It is
computed in blocks of rows, see ``data.arrays``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Machine
from ..data.arrays import allocate, checksum, fill_rows, logged_rows, open_array, write_rows
from ..data.prepared import Prepared
from ..data.scan import Array
from ..inference.finite import verify_finite
from ..nets.encoder import Encoder
from ..system.distributed import rank, wait_for_main
from ..system.files import locked, make_folder
from ..train.device import local_device
from ..train.progress import ProgressLine
from .autoencoder import Autoencoder

FORMAT = 2
"""Part of every key: a change of what is stored, or how, must raise it."""
BLOCK = 64
"""Films per block."""


def embed(prepared: Prepared, encoder: Encoder, machine: Machine, cache: Path) -> Array:
    """Embeddings ``(N, W)`` of length 1, float32, in the order of ``prepared.cases``."""
    return features_with(encoder, prepared, machine, cache, "embedding")


def encode(prepared: Prepared, autoencoder: Autoencoder, machine: Machine, cache: Path) -> Array:
    """Mean and standard deviation of the scaled latents ``(N, 2 c, h, w)``, float16."""
    what, dtype = "encoding", np.float16
    return features_with(autoencoder, prepared, machine, cache, what, dtype, function="encode")


def patch_tokens(prepared: Prepared, encoder: Encoder, machine: Machine, cache: Path) -> Array:
    """The encoder's tokens of the patches, float16 ``(N, W, h, w)``."""
    how = {"kind": "patches", "function": "patches"}
    return features_with(encoder, prepared, machine, cache, "patch tokens", np.float16, **how)


def by_class(prepared: Prepared, indices: Sequence[int]) -> dict[str, list[int]]:
    """Rows by class, sorted; all under '' where there are no classes."""
    rows: dict[str, list[int]] = {}
    for i in indices:
        rows.setdefault(prepared.cases[i].target or "", []).append(i)
    return dict(sorted(rows.items()))


def fingerprint(network: nn.Module) -> str:
    """Hash of a network's weights and of how it is used."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    if isinstance(network, Autoencoder):
        digest.update(repr(("latents", network.scale, network.channels)).encode())
    if isinstance(network, Encoder):
        digest.update(repr((network.size, network.mean.tolist(), network.std.tolist())).encode())
    return digest.hexdigest()


def features_with(
    network: nn.Module,
    prepared: Prepared,
    machine: Machine,
    cache: Path,
    what: str,
    dtype: type[np.floating] = np.float32,
    *,
    kind: str = "",
    function: str = "forward",
) -> Array:
    """The ``features`` of a method of a frozen network, computed on this machine or on a cluster.

    The network is on the CPU before and after. ``kind`` is part of the key, for weights that are used in several ways.
    """
    weights = f"{kind}{fingerprint(network)}"
    apply = _Applied(network.eval(), function, machine)
    rows = features(prepared, apply, weights, cache, what, dtype, machine.scheduler)
    network.cpu()
    return rows


def features(
    prepared: Prepared,
    compute: Callable[[Tensor], Tensor],
    weights: str,
    cache: Path,
    what: str = "features",
    dtype: type[np.floating] = np.float32,
    scheduler: str | None = None,
) -> Array:
    """Features ``(N, ...)`` of films in the order of ``prepared.cases``, a view of the file; from the cache if there.

    Args:
        prepared: The films.
        compute: Films ``(B, C, rows, columns)`` to features ``(B, ...)``; can be sent to a worker.
        weights: Hash of the network behind ``compute``, and of how it is used.
        cache: Cache folder, see ``prepare.cache_folder``.
        what: Name on the progress line.
        dtype: Stored type.
        scheduler: Address of a dask scheduler whose workers compute the features; None: this process.
    """
    # The content of the films: the checksums that the preparation left, in the order of the cases.
    sums, count = logged_rows(prepared.folder), len(prepared)
    key = [FORMAT, weights, np.dtype(dtype).name, [sums[row] for row in prepared.rows]]
    folder = cache / "features" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    path, line = folder / "rows.npy", ProgressLine(what)
    if rank() > 0:
        wait_for_main()
        return open_array(path)
    make_folder(folder)
    with locked(folder, f"{folder} is being computed by another process; waiting for it"):
        allocate(path, dtype, (count, *compute(_films(prepared, range(1))).shape[1:]))
        fill_rows(
            folder,
            {first: range(first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)},
            partial(_block, path, prepared.without_cases(), compute, dtype),
            lambda first: [open_array(path)[first : first + BLOCK]],
            progress=lambda blocks, _: line(min(blocks * BLOCK, count), count),
            scheduler=scheduler,
            workers=0,
        )
    wait_for_main()
    return open_array(path)


# ------------------------------------------------------------------------------------------------ internal


class _Applied:
    """A method of a network as a function of films, computed on the device of the calling process."""

    def __init__(self, network: nn.Module, function: str, machine: Machine) -> None:
        self.network, self.function, self.machine = network, function, machine

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "device"}

    def __call__(self, films: Tensor) -> Tensor:
        method = getattr(self.network.to(self.device), self.function)
        result: Tensor = method(films.to(self.device))
        return result

    @cached_property
    def device(self) -> torch.device:
        device: torch.device = local_device(self.machine).device
        return device


def _block(
    path: Path,
    prepared: Prepared,
    compute: Callable[[Tensor], Tensor],
    dtype: type[np.floating],
    item: tuple[int, range],
) -> int:
    """Compute and write a block, given as (first row, rows); its checksum."""
    first, rows = item
    found = verify_finite(compute(_films(prepared, rows)), f"images {first} ff.", "the network")
    values = found.cpu().numpy().astype(dtype)
    write_rows(path, first, values)
    return checksum(values)


def _films(prepared: Prepared, rows: range) -> Tensor:
    films = np.stack([np.asarray(prepared.image(i), np.float32) for i in rows])
    return torch.from_numpy(films)
