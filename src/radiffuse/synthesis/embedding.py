"""What the frozen networks of a synthesizer make of a data set: embeddings and latents, from the cache or computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Machine
from ..data.prepared import Prepared
from ..data.scan import Array
from ..train.device import local_fabric
from ..train.progress import ProgressLine
from .autoencoder import Autoencoder
from .encoder import Encoder
from .features import features


def embed(prepared: Prepared, encoder: Encoder, machine: Machine, cache: Path) -> Array:
    """Embeddings ``(N, W)`` of length 1, float32, in the order of ``prepared.cases``."""
    return features_with(encoder, prepared, machine, cache, "embedding")


def encode(prepared: Prepared, autoencoder: Autoencoder, machine: Machine, cache: Path) -> Array:
    """Mean and standard deviation of the scaled latents ``(N, 2 c, h, w)``, float16."""
    return features_with(
        autoencoder, prepared, machine, cache, "encoding", np.float16, function="encode"
    )


def by_class(prepared: Prepared, indices: Sequence[int]) -> dict[str, list[int]]:
    """Cases by their class, sorted; all under '' where there are no classes."""
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
    """What a frozen network makes of prepared films, ``(N, ...)``, on this machine or on a cluster.

    Args:
        network: The network, on the CPU, where it also is afterwards.
        prepared: The films.
        machine: Device, and the scheduler of the cluster.
        cache: Cache folder.
        what: Name on the progress line.
        dtype: Stored type.
        kind: Told beside the weights, where the same weights are used in several ways.
        function: Name of the network's method that takes films ``(B, C, rows, columns)``.
    """
    apply = _Applied(network.eval(), function, machine)
    found = features(
        prepared,
        apply,
        weights=f"{kind}{fingerprint(network)}",
        dtype=dtype,
        cache=cache,
        scheduler=machine.scheduler,
        progress=ProgressLine(what),
    )
    network.cpu()
    return found


class _Applied:
    """A method of a network as a function of films; moves the network to the device of whoever calls it."""

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
        found: torch.device = local_fabric(self.machine).device
        return found
