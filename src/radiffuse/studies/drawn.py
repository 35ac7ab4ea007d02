"""A pool of images that a pre-trained denoiser draws and a segmenter labels, as in DatasetGAN (Zhang et al. 2021)."""

from __future__ import annotations

from pathlib import Path

from ..config import Machine
from ..data.readers import write_image
from ..data.scan import Scan, gray_values
from ..errors import InputError
from ..inference.draw import draw_images
from ..nets.registry import load_network
from ..system.files import make_folder
from ..train.device import local_device
from ..train.run import Run
from ..train.start import diffusion_of


def draw_pool(denoiser: Run, out: Path, *, count: int, seed: int, machine: Machine) -> Path:
    """Draw films into a folder, unless they are there; returns it.

    Args:
        denoiser: Pre-trained run that draws them.
        out: The folder.
        count: How many.
        seed: Of the noise.
        machine: Device and threads; the arithmetic is of 32 bits, as that of ``generate``.

    Raises:
        InputError: They have several channels, or are volumes, which PNG cannot hold.
    """
    plan = denoiser.plan
    if plan.spatial_dims != 2 or len(plan.channels) != 1:
        what = "draws volumes" if plan.spatial_dims == 3 else "draws several channels"
        raise InputError(denoiser.folder, what, "Leave the method pseudo-labels out")
    if len(list(out.glob("*.png"))) < count:
        make_folder(out)
        network = load_network(denoiser.model).to(local_device(machine).device)
        images = draw_images(network, diffusion_of(denoiser), plan, count=count, seed=seed)
        for number, image in enumerate(images):
            film = gray_values(image[0])
            write_image(out / f"drawn-{number:05d}.png", film, Scan(film[None]))
    return out
