"""Pseudo-labelling: a segmenter labels images without labels, and its most certain masks become training data.

The idea and the fraction that is dropped, 10 %, are DatasetGAN's (Zhang et al. 2021). There a generator draws the
images; here the pre-trained denoiser does (``label_drawn``), or they are synthetic images of any origin
(``label_images``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..config import Data, Diffusion, Machine
from ..config.values import from_dict
from ..data.dataset import Dataset
from ..data.readers import write_image, write_label
from ..data.scan import Array, Scan, gray_values
from ..errors import InputError
from ..inference.draw import draw_images
from ..nets.registry import load_network
from ..system.files import make_folder, write_json
from ..train.cases import prepare_dataset
from ..train.device import local_fabric
from ..train.run import Run

DROPPED = 0.1
"""Fraction of the images, those with the highest entropy, that is left out."""
AT_ONCE = 16
"""Images labelled at once."""


def label_drawn(
    denoiser: Run, segmenter: Run, out: Path, *, count: int, seed: int, machine: Machine
) -> Path:
    """Draw ``count`` images, label them, and write the most certain as a data set of pairs (2D).

    Args:
        denoiser: Pre-trained run that draws the images.
        segmenter: Segmentation run that labels them; same plan.
        out: Folder for ``images/``, ``labels/`` and ``classes.json``.
        count: Images drawn; 10 % fewer are kept.
        seed: Seed of the images.
        machine: Device and precision.

    Raises:
        InputError: The runs are three-dimensional, which PNG cannot hold.
    """

    def draw() -> tuple[Array, list[str]]:
        diffusion = from_dict(Diffusion, denoiser.config["settings"]["diffusion"])
        network = load_network(denoiser.model).to(local_fabric(machine).device)
        images = draw_images(network, diffusion, segmenter.plan, count=count, seed=seed)
        return images, [f"drawn-{i:05d}" for i in range(count)]

    return _label(draw, segmenter, out, machine)


def label_images(
    dataset: Dataset, segmenter: Run, out: Path, *, reader: Data, machine: Machine
) -> Path:
    """Label images and write the most certain as a data set of pairs (2D), at the size of the segmenter's plan.

    Args:
        dataset: The images, such as synthetic ones; their own labels are not read.
        segmenter: Segmentation run that labels them.
        out: Folder for ``images/``, ``labels/`` and ``classes.json``.
        reader: Names the cache of prepared arrays.
        machine: Device and precision.

    Raises:
        InputError: The images are volumes, which PNG cannot hold, or cannot be read.
    """

    def read() -> tuple[Array, list[str]]:
        prepared = prepare_dataset(dataset, segmenter.plan, reader, machine, labelled=False)
        images = [np.asarray(prepared.image(i), np.float32) for i in range(len(prepared))]
        return np.stack(images), [case.name for case in prepared.cases]

    return _label(read, segmenter, out, machine)


# ------------------------------------------------------------------------------------------------ internal


def _label(
    read: Callable[[], tuple[Array, list[str]]], segmenter: Run, out: Path, machine: Machine
) -> Path:
    """Label images (N, 1, H, W) in [-1, 1] and write all but the least certain; ``classes.json`` comes last."""
    plan = segmenter.plan
    if plan.spatial_dims != 2 or len(plan.channels) != 1:
        what = "segments volumes" if plan.spatial_dims == 3 else "segments several channels"
        raise InputError(segmenter.folder, what, "Labelling synthetic images works on grey films")
    if (out / "classes.json").exists():
        return out
    images, names = read()
    fabric = local_fabric(machine)
    network = load_network(segmenter.model).to(fabric.device).eval()
    labels, uncertainty = [], []
    with torch.no_grad(), fabric.autocast():
        for start in range(0, len(images), AT_ONCE):
            batch = torch.from_numpy(images[start : start + AT_ONCE]).to(fabric.device)
            probability = network(batch).float().softmax(1)
            entropy = -(probability * probability.clamp(min=1e-12).log()).sum(1)
            labels.append(probability.argmax(1).cpu().numpy().astype(np.uint8))
            uncertainty.append(entropy.flatten(1).mean(1).cpu().numpy())
    label, entropies = np.concatenate(labels), np.concatenate(uncertainty)
    for part in ("images", "labels"):
        make_folder(out / part)
    kept = len(images) - round(len(images) * DROPPED)
    for i in np.sort(np.argsort(entropies, kind="stable")[:kept]):
        film = gray_values(images[i, 0])
        scan = Scan(film[None])
        write_image(out / "images" / f"{names[i]}.png", film, scan)
        write_label(out / "labels" / f"{names[i]}.png", label[i], scan)
    write_json(out / "classes.json", {str(i): name for i, name in enumerate(plan.classes)})
    return out
