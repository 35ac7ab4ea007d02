"""Synthetic images of a pre-trained denoiser, which works on pixels or voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..config import Generate
from ..config.given import refuse_given
from ..core.sampling import image_sampler, verify_sampler
from ..data.readers import write_image
from ..data.scan import Array, Scan, gray_values
from ..errors import InputError
from ..inference.draw import draw_images
from ..train.device import local_device
from ..train.run import Run
from ..train.start import diffusion_of, load_denoiser, verify_whole
from .embedding import fingerprint
from .generation import Provenance

SYNTHESIZER_ONLY = ("strategy", "references", "strength", "guidance", "batch")
"""Settings that mean nothing to a denoiser."""


class DenoiserGeneration:
    """Generation from a run of radiffuse pretrain, of films or volumes.

    Raises:
        InputError: The run is no denoiser, or a setting is one of synthesizers.
    """

    def __init__(self, settings: Generate, run: Run) -> None:
        self.settings, self.run, self.plan = settings, run, run.plan
        verify_whole(self.plan)  # a denoiser of patches draws patches of any scale
        self.network = load_denoiser(run)
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
        self.model = fingerprint(self.network)[:16]
        self.count = settings.count
        self.suffix = ".png" if self.plan.spatial_dims == 2 else ".nii.gz"
        self.value_size = 1 if self.plan.spatial_dims == 2 else 4

    def verify(self) -> None:
        """Nothing to verify: there are no references."""

    def prepare(self) -> dict[str, Any]:
        """Nothing to prepare."""
        return {}

    def write(self, out: Path) -> list[Provenance]:
        """Write all images unless all exist, since their noise depends on the count; returns their provenance."""
        settings = self.settings
        names = [f"sample-{number:05d}" for number in range(self.count)]
        rows = [
            Provenance(
                image=f"{name}{self.suffix}",
                patient=name,
                seed=settings.seed,
                sampler=self.sampler,
                steps=settings.steps,
                model=self.model,
            )
            for name in names
        ]
        if all((out / row.image).is_file() for row in rows):
            return rows
        images = draw_images(
            self.network.to(local_device(settings.machine).device),
            self.diffusion,
            self.plan,
            count=settings.count,
            steps=settings.steps,
            sampler=self.sampler,
            seed=settings.seed,
        )
        for row, image in zip(rows, images, strict=True):
            self._write_image(out / row.image, image[0])
        return rows

    def _write_image(self, path: Path, image: Array) -> None:
        if self.plan.spatial_dims == 2:
            film = gray_values(image)
            write_image(path, film, Scan(film[None]))
        else:
            spacing = self.plan.spacing or (1.0, 1.0, 1.0)
            low, high = self.plan.low, self.plan.high
            volume = ((image + 1) / 2 * (high - low) + low).astype(np.float32)
            write_image(path, volume, Scan(volume[None], spacing, np.diag([*spacing, 1.0])))
