"""``radiffuse synthesize``: a DINO encoder, a KL autoencoder, and a latent diffusion model conditioned on embeddings.

DiNO-Diffusion (Jimenez-Perez et al. 2024, arXiv 2407.11594).
"""

from __future__ import annotations

from ..config import Synthesize
from ..config.values import to_dict
from ..errors import InputError
from ..reports.run import write_run_report
from ..synthesis.synthesizer import save_synthesizer
from ..synthesis.training import LatentStage, read_films, train_autoencoder, train_encoder
from ..train.loop import train
from ..train.run import Run, start_run


def synthesize(settings: Synthesize) -> Run:
    """Train a synthesizer on images without annotations.

    Args:
        settings: See ``radiffuse.config.Synthesize``.

    Returns:
        The run: its model is a pipeline of diffusers with averaged weights, and the encoder.

    Raises:
        InputError: Data, settings or given networks that cannot be used.
        TrainingDiverged: The loss of a stage is not finite.
    """
    if settings.machine.strategy == "fsdp":
        raise InputError(
            "--machine.strategy fsdp",
            "does not fit a synthesizer, whose stages use their networks in more ways than one pass",
            "Use ddp",
        )
    with start_run(
        settings.out, "synthesize", to_dict(settings), settings.machine, to_dict(type(settings)())
    ) as run:
        films = read_films(settings, run)
        encoder = train_encoder(settings, run, films, write_run_report)
        autoencoder = train_autoencoder(settings, run, films, write_run_report)
        stage = LatentStage.of(settings, films, encoder, autoencoder)
        trained = train(stage.task(), stage.batches(), run, settings.training, settings.machine)
        if run.main:
            synthesizer = stage.synthesizer(trained.average)
            stage.write_samples(synthesizer, run.folder / "samples.npy")
            save_synthesizer(synthesizer, run.model)
            write_run_report(run.folder)
    return run
