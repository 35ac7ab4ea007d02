"""Segments of volumes without labels: features of all volumes, window by window, clustered together.

Only the body is clustered: what is as dark as air is segment 0, and the clusters count from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..data.streams import Stream
from ..data.transform import image_to_plan, map_to_scan, scores_to_scan
from ..errors import InputError
from ..inference.windows import slide, slide_at, zeros
from ..nets.probe import resize
from .clusters import PLACES, k_means, scale_of
from .dense import DenseWindows

OVERLAP = 0.5
"""Of neighboring windows, as in ``predict``."""


class VolumeClusters(TypedDict):
    """What ``clusters.json`` holds of volumes: k clusters, the largest first.

    ``centers`` are of features from which ``mean`` was subtracted and that were divided by ``std``, 0 for what does not
    count; ``share`` is that of the places. ``names`` has the class of every segment, from 0 on, where volumes with
    labels gave names, and ``named_dice`` the Dice of each class on these; else they are empty.
    """

    centers: list[list[float]]
    mean: list[float]
    std: list[float]
    share: list[float]
    volumes: int
    names: list[int]
    named_dice: dict[str, float | None]


def find_volume_clusters(
    volumes: Iterable[Tensor], count: int, seed: int, coordinates: int = 0, weight: float = 0.0
) -> VolumeClusters:
    """Cluster the places of all volumes.

    Args:
        volumes: The features ``(n, F)`` of each; they are read once, one at a time.
        count: k, the number of clusters.
        seed: Of the starts of k-means.
        coordinates: The last of the F that are body coordinates.
        weight: Variance of all coordinates together, in that of all other features together.

    Raises:
        ValueError: There are fewer places than clusters.
    """
    parts = [part.numpy() for part in volumes]
    filled = [part for part in parts if len(part)]
    points: NDArray[np.float32] = np.concatenate(filled) if filled else np.zeros((0, 1), np.float32)
    if len(points) < count:
        raise ValueError(f"{len(points)} places of the body cannot form {count} clusters")
    first = points.shape[1] - coordinates
    parted = [scale_of(part) for part in (points[:, :first], points[:, first:]) if part.shape[1]]
    mean, std = (np.concatenate(values) for values in zip(*parted, strict=True))
    if coordinates:
        varying = np.isfinite(std)
        own, others = varying[first:].sum(), varying[:first].sum()
        std[first:] /= np.sqrt(weight * max(1, others) / max(1, own))
    centers, labels = k_means((points - mean) / std, count, seed)
    share = np.bincount(labels, minlength=count) / len(labels)
    order = np.argsort(-share, kind="stable")
    facts = {
        "centers": centers[order],
        "mean": mean,
        "std": np.where(np.isinf(std), 0.0, std),
        "share": share[order],
    }
    lists: dict[str, Any] = {name: value.tolist() for name, value in facts.items()}
    return cast(VolumeClusters, lists | {"volumes": len(parts), "names": [], "named_dice": {}})


def read_volume_places(
    scans: Iterable[Scan],
    number: int,
    dense: DenseWindows,
    plan: Plan,
    device: torch.device,
    seed: int,
) -> Iterator[Tensor]:
    """Features ``(n, F)`` of places of the body, of one volume at a time.

    Args:
        scans: The volumes, ``number`` at most.
        number: Of volumes; ``PLACES`` are shared among them.
        dense: Source of the features.
        plan: How the network sees scans.
        device: Of the network.
        seed: Of the choice of places.
    """
    most = max(1, PLACES // max(1, number))
    for i, scan in enumerate(scans):
        image = torch.from_numpy(image_to_plan(scan, plan)[0])
        body = np.flatnonzero(body_of(image, plan).numpy())
        chosen = Stream.CLUSTERS.rng(seed, i).permutation(len(body))[:most]
        voxels = torch.from_numpy(np.sort(body[chosen]))
        yield slide_at(image, plan.size, _on(dense.of, device), voxels, overlap=OVERLAP)


def body_of(image: Tensor, plan: Plan) -> Tensor:
    """Whether a voxel of ``(C, *S)`` on the plan's grid is denser than air in any channel, bool ``(*S)``."""
    return (image > plan.body).any(0)


def segment_volume(
    clusters: VolumeClusters, dense: DenseWindows, plan: Plan, scan: Scan, device: torch.device
) -> Array:
    """Segments of a volume on its own grid, uint8 ``(*spatial)``: 0 outside of the body, else 1 to k.

    Scores are linear in the features, so that blending them is blending features; they lie on disk.
    """
    image, undo = image_to_plan(scan, plan)
    volume = torch.from_numpy(image)
    scored = scorer(clusters)

    def scores(window: Tensor) -> Tensor:
        return resize(scored(_on(dense.of, device)(window)), window.shape[2:])

    total = zeros((len(clusters["centers"]), *image.shape[1:]))
    for first, slab in slide(volume, plan.size, scores, overlap=OVERLAP):
        total[:, first : first + slab.shape[1]] = slab.numpy()
    nearest, _ = scores_to_scan(torch.from_numpy(total), undo)
    inside = map_to_scan(body_of(volume, plan).float(), undo) > 0.5
    return np.where(inside, nearest + 1, 0).astype(np.uint8)


def scorer(clusters: VolumeClusters) -> Callable[[Tensor], Tensor]:
    """Features ``(B, F, *S)`` to a score of each cluster ``(B, k, *S)``: the greatest is of the nearest center."""
    mean, std, centers = (torch.tensor(clusters[n]) for n in ("mean", "std", "centers"))
    slope = 2 * centers * torch.where(std > 0, 1 / std, 0.0)
    offset = centers.square().sum(1) + slope @ mean

    def scored(features: Tensor) -> Tensor:
        if features.shape[1] != len(mean):
            problem = "is of other features"
            raise InputError("clusters.json", problem, "Remove the folder of the masks")
        product = torch.einsum("bf...,kf->bk...", features.cpu(), slope)
        return product - offset.reshape(-1, *[1] * (features.ndim - 2))

    return scored


def _on(function: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function of windows that are brought to a device."""
    return lambda window: function(window.to(device))
