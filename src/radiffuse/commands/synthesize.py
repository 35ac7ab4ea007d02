"""``radiffuse synthesize``: a DINO encoder, a KL autoencoder, and a latent diffusion model conditioned on embeddings.

DiNO-Diffusion (Jimenez-Perez et al. 2024, arXiv 2407.11594).
"""

from __future__ import annotations

from functools import partial

from ..config import Synthesize
from ..errors import InputError
from ..synthesis.training import prepare_stages
from ..train.act import run_training
from ..train.run import Run
from ._documents import leave_documents


def synthesize(settings: Synthesize) -> Run:
    """Train a synthesizer on images without annotations.

    Returns:
        The run: its model is a pipeline of diffusers with averaged weights, and the encoder.

    Raises:
        InputError: Data, settings or given networks that cannot be used.
        TrainingDiverged: The loss of a stage is not finite.
    """
    if settings.machine.strategy == "fsdp":
        problem = (
            "does not fit a synthesizer, whose stages use their networks in more ways than one pass"
        )
        raise InputError("--machine.strategy fsdp", problem, "Use ddp")
    stages = partial(prepare_stages, settings, leave_documents)
    return run_training("synthesize", settings, stages, leave_documents)
