"""The network in whose features images are judged, and sets of images with their features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import Data, Machine, PlanSettings
from ..data.dataset import Dataset
from ..data.fingerprint import find_dims
from ..data.plan import Plan, make_plan
from ..data.prepare import cache_folder
from ..data.prepared import Prepared
from ..data.provenance import Origin, read_origins
from ..errors import InputError
from ..nets.encoder import load_encoder
from ..nets.registry import load_network
from ..nets.unet import UNet
from ..train.cases import prepare_dataset
from ..train.run import WEIGHTS
from ..train.start import find_pretrained
from .embedding import features_with


class PooledDenoiser(nn.Module):
    """The bottleneck of a denoiser of films at t = 0, where the image is clean, averaged over the image."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Films ``(B, C, rows, columns)`` in [-1, 1] to features ``(B, width)``."""
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return self.unet.features(images, t, ("middle",))["middle"].mean((2, 3)).float()


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that turns films in [-1, 1] into features ``(B, width)``.

    ``name`` says what it is, beside every number that is made with it; ``plan`` is how a film is prepared.
    """

    name: str
    network: nn.Module
    plan: Plan


@dataclass(frozen=True)
class ImageSet:
    """The cases of a data set, the usable ones as the network sees them, and their features ``(N, width)``."""

    dataset: Dataset
    prepared: Prepared
    features: NDArray[np.float64]

    @property
    def groups(self) -> list[str]:
        """Patient of each row; an image that was drawn of a model or density of many patients is its own."""
        known = zip(self.prepared.cases, self.origins, strict=True)
        return [case.name if origin.shared else case.group for case, origin in known]

    @property
    def names(self) -> list[str]:
        """Case of each row."""
        return [case.name for case in self.prepared.cases]

    @cached_property
    def origins(self) -> list[Origin]:
        """Where each row, a synthetic image, comes from, as far as it is known."""
        known = read_origins(self.dataset)
        return [known[name] for name in self.names]

    def hashes(self) -> list[str]:
        """A hash of every film as the network sees it, equal for copies of a file under another name."""
        films = (np.ascontiguousarray(self.prepared.image(i)) for i in range(len(self.prepared)))
        return [hashlib.sha256(film.tobytes()).hexdigest() for film in films]


def open_network(name: str, real: Dataset) -> FeatureNetwork:
    """A feature network by the name of shipped weights, folder of a run, folder or public name of a DINO.

    The real images decide how intensities are prepared for a DINO.

    Raises:
        InputError: There is none under that name, or it does not take films.
    """
    network: nn.Module
    path = Path(name).expanduser()
    if (path / "config.yaml").is_file() or ("/" not in name and (WEIGHTS / name).is_dir()):
        run = find_pretrained(name)
        unet, plan = load_network(run.model), run.plan
        if not isinstance(unet, UNet) or plan.spatial_dims != 2:
            remedy = "Give a run of radiffuse pretrain on films"
            raise InputError(run.folder, "is no denoiser of films", remedy)
        network, width = PooledDenoiser(unet), unet.config.width * unet.config.multipliers[-1]
        kind = "denoiser, bottleneck at t = 0, mean"
    else:
        network = encoder = load_encoder(name)
        verify_films(real)
        plan = make_plan(real, PlanSettings(size=(encoder.size,)), labelled=False)
        width, kind = encoder.width, "DINO, global token"
    size = " x ".join(map(str, plan.size))
    return FeatureNetwork(f"{name}: {kind}; {width} features at {size}", network, plan)


def open_images(
    network: FeatureNetwork, dataset: Dataset, reader: Data, machine: Machine, least: int
) -> ImageSet:
    """A data set with the features of every usable image, from the cache where possible.

    Raises:
        InputError: It has fewer than ``least`` usable images, or an image cannot be read.
    """
    prepared = prepare_dataset(dataset, network.plan, reader, machine, labelled=False)
    verify_number(dataset.root, len(prepared), least)
    kind = f"{type(network.network).__name__} "
    cache = cache_folder(reader.cache)
    rows = features_with(network.network, prepared, machine, cache, "features", kind=kind)
    return ImageSet(dataset, prepared, np.asarray(rows, np.float64))


def verify_films(dataset: Dataset) -> None:
    """Refuse volumes, of which there are no features."""
    if find_dims(dataset) != 2:
        raise InputError(dataset.root, "holds volumes", "Give films: features are those of films")


def verify_number(root: Path, images: int, least: int) -> None:
    """Refuse a set of fewer usable images than are needed."""
    if images < least:
        problem = f"holds {images} usable images"
        raise InputError(root, problem, f"Give {least} or more; thousands are usual")
