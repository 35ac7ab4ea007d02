"""Synthetic images of a pre-trained denoiser, which works on pixels or voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..config import Generate
from ..config.given import refuse_given
from ..core.sampling import image_sampler, verify_sampler
from ..data.readers import write_image
from ..data.scan import Array, Scan, gray_values
from ..errors import InputError
from ..inference.draw import image_batches
from ..objectives import learned_from_noise
from ..train.device import local_device
from ..train.progress import ProgressLine
from ..train.run import Run
from ..train.start import diffusion_of, load_denoiser, verify_whole
from .embedding import fingerprint
from .generation import STEPS, Provenance

SYNTHESIZER_ONLY = ("strategy", "references", "strength", "guidance", "batch")
"""Settings that mean nothing to a denoiser."""


class DenoiserGeneration:
    """Generation from a run of radiffuse pretrain, of films or volumes.

    Raises:
        InputError: The run is no denoiser, or a setting is one of synthesizers.
    """

    batches: Callable[..., Iterator[tuple[Any, ...]]] = staticmethod(image_batches)
    """Draws numbers, and what ``write_one`` writes of each."""

    def __init__(self, settings: Generate, run: Run) -> None:
        self.settings, self.run, self.plan = settings, run, run.plan
        verify_whole(self.plan)  # a denoiser of patches draws patches of any scale
        self.network = self.load(run)
        default = Generate()
        given = [n for n in SYNTHESIZER_ONLY if getattr(settings, n) != getattr(default, n)]
        given += ["sampler dpm++"] if settings.sampler == "dpm++" else []
        if given:
            problem = f"is for a synthesizer, and {run.folder} is a denoiser"
            raise InputError(f"--{given[0]}", problem, "Leave it out")
        unread, why = (
            "reader.cache machine.workers machine.scheduler",
            "a denoiser has no references",
        )
        refuse_given(settings, default, unread, why)
        self.diffusion = diffusion_of(run)
        self.sampler: Any = settings.sampler or image_sampler(self.diffusion.schedule)
        verify_sampler(self.sampler, self.diffusion.schedule)
        self.timesteps = self.diffusion.num_train_timesteps
        self.steps = settings.steps or min(STEPS, self.timesteps)
        self.model = fingerprint(self.network)[:16]
        self.count = settings.count
        self.suffix = ".png" if self.plan.spatial_dims == 2 else ".nii.gz"
        self.value_size = 1 if self.plan.spatial_dims == 2 else 4

    def verify(self) -> None:
        """Nothing to verify: there are no references."""

    def prepare(self) -> dict[str, Any]:
        """Nothing to prepare."""
        return {}

    def load(self, run: Run) -> nn.Module:
        """The network that draws."""
        network = load_denoiser(run)
        if not learned_from_noise(run):
            problem = f"was pre-trained by {run.config['settings'].get('objective')}, which knows no timesteps"
            raise InputError(run.folder, problem, "Give a run of pretrain --objective ddpm")
        return network

    def rows(self) -> list[Provenance]:
        """Where each image comes from."""
        names = [f"sample-{number:05d}" for number in range(self.count)]
        return [self.row(image=f"{name}{self.suffix}", patient=name) for name in names]

    def row(self, image: str, patient: str, strategy: str = "", parents: str = "") -> Provenance:
        """A row of the provenance, with what all images have in common."""
        return Provenance(
            image=image,
            patient=patient,
            strategy=strategy,
            parents=parents,
            seed=self.settings.seed,
            sampler=self.sampler,
            steps=self.steps,
            model=self.model,
        )

    def write(self, out: Path) -> list[Provenance]:
        """Write the images, batch by batch, but batches that exist; returns the provenance of all."""
        rows, line, settings = self.rows(), ProgressLine("sampling"), self.settings

        def missing(numbers: range) -> bool:
            files = (name for number in numbers for name in self.files(rows[number]))
            return not all((out / name).is_file() for name in files)

        batches = self.batches(
            self.network.to(local_device(settings.machine).device),
            self.diffusion,
            self.plan,
            count=settings.count,
            steps=self.steps,
            sampler=self.sampler,
            seed=settings.seed,
            wanted=missing,
        )
        for numbers, *drawn in batches:
            for number, *one in zip(numbers, *drawn, strict=True):
                self.write_one(out, rows[number], *one)
            line.update(numbers.stop, self.count)
        return rows

    def files(self, row: Provenance) -> list[str]:
        """The files of an image, below the folder."""
        return [row.image]

    def write_one(self, out: Path, row: Provenance, *drawn: Array) -> None:
        """Write the files of what one of ``batches`` drew: here an image ``(C, *size)`` in [-1, 1]."""
        (image,) = drawn
        self.write_image(out / row.image, image[0])

    def write_image(self, path: Path, image: Array) -> Scan:
        """Write an image in [-1, 1], with the spacing and the window of the plan; returns it as it is read again."""
        if self.plan.spatial_dims == 2:
            film = gray_values(image)
            scan = Scan(film[None])
        else:
            spacing = self.plan.spacing or (1.0, 1.0, 1.0)
            low, high = self.plan.low, self.plan.high
            volume = ((image + 1) / 2 * (high - low) + low).astype(np.float32)
            scan = Scan(volume[None], spacing, np.diag([*spacing, 1.0]))
        write_image(path, scan.array[0], scan)
        return scan
