"""A feature network by name, and what it makes of a data set: one row of features per image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..config import Data, Machine, PlanSettings
from ..data.dataset import Dataset
from ..data.plan import Plan, make_plan
from ..data.prepare import cache_folder, prepare
from ..data.prepared import Prepared
from ..errors import InputError
from ..nets.registry import load_network
from ..nets.unet import UNet
from ..train.progress import ProgressLine
from ..train.run import Run
from .embedding import features_with
from .encoder import load_encoder


class PooledDenoiser(nn.Module):
    """The bottleneck of a denoiser at t = 0, averaged over the image.

    Args:
        unet: A denoiser of films; it sees the clean image and is told that it is the least noised one.
    """

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
    """A network that turns an image into a row of features.

    Attributes:
        name: What it is, for every number that is made with it.
        network: Films in [-1, 1] to ``(B, width)``.
        plan: How a film is treated before.
    """

    name: str
    network: nn.Module
    plan: Plan


def network_of_run(run: Run, name: str) -> FeatureNetwork:
    """The denoiser of a run of radiffuse pretrain.

    Args:
        run: The run.
        name: What the user calls it.

    Raises:
        InputError: It is none, or of volumes.
    """
    unet = load_network(run.model)
    if not isinstance(unet, UNet) or run.plan.spatial_dims != 2:
        raise InputError(
            run.folder, "is no denoiser of films", "Give a run of radiffuse pretrain on films"
        )
    pooled = PooledDenoiser(unet)
    width = unet.config.width * unet.config.multipliers[-1]
    told = f"{name}: denoiser, bottleneck at t = 0, mean; {width} features at {_size(run.plan)}"
    return FeatureNetwork(told, pooled, run.plan)


def network_of_transformers(name: str, dataset: Dataset) -> FeatureNetwork:
    """A DINO of transformers.

    Args:
        name: Its folder or public name.
        dataset: Real images, which decide how intensities are treated.

    Raises:
        InputError: There is none, or the images are volumes.
    """
    encoder = load_encoder(name)
    plan = make_plan(dataset, PlanSettings(size=(encoder.size,)), labelled=False)
    if plan.spatial_dims != 2:
        raise InputError(dataset.root, "holds volumes", "Give films: features are those of films")
    told = f"{name}: DINO, global token; {encoder.width} features at {_size(plan)}"
    return FeatureNetwork(told, encoder, plan)


def features_of(
    network: FeatureNetwork, dataset: Dataset, reader: Data, machine: Machine
) -> tuple[Prepared, NDArray[np.float64]]:
    """Features of every usable image, from the cache where they are there.

    Returns:
        The prepared films, and ``(N, width)`` in the order of ``prepared.cases``.

    Raises:
        InputError: Images that cannot be used.
    """
    cache = cache_folder(reader.cache)
    prepared = prepare(
        dataset,
        network.plan,
        labelled=False,
        cache=cache,
        skip_bad=reader.skip_bad,
        workers=machine.workers,
        scheduler=machine.scheduler,
        progress=ProgressLine("preparing"),
    )
    kind = f"{type(network.network).__name__} "
    rows = features_with(network.network, prepared, machine, cache, "features", kind=kind)
    return prepared, np.asarray(rows, np.float64)


def contents(prepared: Prepared) -> list[str]:
    """A hash of every film as the network sees it, by which the same image is known under another name."""
    return [
        hashlib.sha256(np.ascontiguousarray(prepared.image(i)).tobytes()).hexdigest()
        for i in range(len(prepared))
    ]


def _size(plan: Plan) -> str:
    return " x ".join(map(str, plan.size))
