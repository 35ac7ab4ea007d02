"""What the objectives that denoise have in common."""

from __future__ import annotations

from torch import nn

from ..inference.draw import write_samples
from ..train.device import local_device
from ..train.pretraining import Objective, Unlabelled
from ..train.run import Run


class DenoisingObjective(Objective):
    """A way of pre-training that denoises; leaves samples for the report."""

    noised = True

    def write(self, run: Run, network: nn.Module, pool: Unlabelled) -> None:
        """``samples.npy``, where the network knows the timesteps that sampling takes; drawn where it was trained."""
        if self.on_imagenet:
            return
        settings, path = self.settings, run.folder / "samples.npy"
        network.to(local_device(settings.machine).device)
        write_samples(
            network,
            settings.diffusion,
            pool.plan,
            path,
            pool.validation_images(),
            settings.training.micro_batch,
        )
        network.cpu()
