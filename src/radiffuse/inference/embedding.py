"""What the frozen networks of a synthesizer make of a data set: embeddings and latents, from the cache or computed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ..config import Machine
from ..data.features import features
from ..data.prepare import Prepared
from ..data.scan import Array
from ..engine.device import make_fabric
from ..engine.progress import ProgressLine
from ..nets.dino import Encoder
from ..nets.latent import Autoencoder


def embed(prepared: Prepared, encoder: Encoder, machine: Machine, cache: Path) -> Array:
    """Embeddings ``(N, W)`` of length 1, float32, in the order of ``prepared.cases``."""
    return _cached(prepared, encoder, encoder, "embedding", np.float32, machine, cache)


def encode(prepared: Prepared, autoencoder: Autoencoder, machine: Machine, cache: Path) -> Array:
    """Mean and spread of the scaled latents ``(N, 2 c, h, w)``, float16."""
    return _cached(
        prepared, autoencoder, autoencoder.encode, "encoding", np.float16, machine, cache
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


def _cached(
    prepared: Prepared,
    network: nn.Module,
    function: Callable[[Tensor], Tensor],
    what: str,
    dtype: type[np.floating],
    machine: Machine,
    cache: Path,
) -> Array:
    device = make_fabric(machine).device
    network.to(device).eval()
    found = features(
        prepared,
        lambda films: function(films.to(device)),
        weights=fingerprint(network),
        dtype=dtype,
        cache=cache,
        progress=ProgressLine(what),
    )
    network.cpu()
    return found
