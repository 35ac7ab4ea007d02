"""Dataset generation: the denoiser draws images, a segmenter labels them, the surest are kept as training data.

DatasetGAN's idea (Zhang et al. 2021) with a diffusion model; the share that is dropped is theirs, 10 %.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..config import Diffusion, Machine
from ..data.readers import write_image, write_label
from ..data.scan import Scan
from ..engine.device import local_fabric
from ..engine.run import Run
from ..errors import InputError
from ..files import write_json
from ..inference.draw import draw_images
from ..nets.registry import load_network
from ..settings import from_dict

DROPPED = 0.1
"""Share of the images, the least certain ones, that is left out."""


def write_generated(
    denoiser: Run, segmenter: Run, out: Path, *, count: int, seed: int, machine: Machine
) -> Path:
    """Draw images, label them, and write the surest as a data set of pairs (2D).

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
    plan = segmenter.plan
    if plan.spatial_dims != 2:
        raise InputError(denoiser.folder, "draws volumes", "Dataset generation works on films")
    if (out / "classes.json").exists():
        return out
    fabric = local_fabric(machine)
    diffusion = from_dict(Diffusion, denoiser.config["settings"]["diffusion"])
    images = draw_images(
        load_network(denoiser.model).to(fabric.device), diffusion, plan, count=count, seed=seed
    )
    network = load_network(segmenter.model).to(fabric.device).eval()
    labels, doubt = [], []
    with torch.no_grad(), fabric.autocast():
        for start in range(0, count, 16):
            batch = torch.from_numpy(images[start : start + 16]).to(fabric.device)
            share = network(batch).float().softmax(1)
            entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
            labels.append(share.argmax(1).cpu().numpy().astype(np.uint8))
            doubt.append(entropy.flatten(1).mean(1).cpu().numpy())
    label, uncertainty = np.concatenate(labels), np.concatenate(doubt)
    keep = np.sort(np.argsort(uncertainty, kind="stable")[: count - round(count * DROPPED)])
    for i in keep:
        film = ((images[i, 0] + 1) * 127.5).round().astype(np.uint8)
        scan = Scan(film[None])
        write_image(_ready(out / "images") / f"generated-{i:05d}.png", film, scan)
        write_label(_ready(out / "labels") / f"generated-{i:05d}.png", label[i], scan)
    write_json(out / "classes.json", {str(i): name for i, name in enumerate(plan.classes)})
    return out


def _ready(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
