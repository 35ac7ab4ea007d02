"""What the objectives that denoise have in common."""

from __future__ import annotations

from torch import nn

from ..inference.draw import write_samples
from ..train.pretraining import Objective, Pool
from ..train.run import Run


class DenoisingObjective(Objective):
    """A way of pre-training that denoises; leaves samples for the report."""

    noised = True

    def write(self, run: Run, network: nn.Module, pool: Pool) -> None:
        """``samples.npy``, where the network knows the timesteps that sampling takes."""
        if self.on_imagenet:
            return
        path = run.folder / "samples.npy"
        write_samples(network, self.settings.diffusion, pool.plan, path, pool.validation_images())
