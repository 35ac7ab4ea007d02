"""Probing of frozen features (Li et al. 2025, arXiv 2501.19265; heads after vox2vec, arXiv 2307.14725).

The pre-trained network is frozen and sees the image noised to a few timesteps. Linear and non-linear heads turn its
feature pyramid into a segmentation; all of them learn in one pass. Features are made anew for every batch and never
stored. A sweep trains further heads on single timesteps or levels, in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..config import Probe
from ..config.values import to_dict
from ..errors import InputError
from ..evaluation.tables import class_sizes, size_groups
from ..inference.members import Overrides
from ..inference.scoring import score_cases, score_validation
from ..nets.probe import HeadConfig, ProbedNetwork, pyramid
from ..nets.registry import save_network
from ..nets.unet import UNet
from ..objectives.segmentation import Probing
from ..reports.run import write_run_report
from ..system.files import write_atomic
from ..train.labelled import Labelled, labelled_data
from ..train.loop import train
from ..train.run import Run, start_run
from ..train.start import load_denoiser, noising_of, verify_size


def probe(settings: Probe) -> Run:
    """Train heads on the frozen features of a pre-trained run.

    Args:
        settings: See ``radiffuse.config.Probe``.

    Returns:
        The run: its model is the frozen network with its heads; ``sweep.csv`` has the validation Dice of every head,
        where there are several.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    with start_run(
        settings.out, "probe", to_dict(settings), settings.machine, to_dict(type(settings)())
    ) as run:
        labelled = labelled_data(run, settings)
        network = build_network(settings, labelled)
        task = Probing(network, settings.loss, labelled.held_out)
        trained = train(task, labelled.batches, run, settings.training, settings.machine)
        if not run.main:
            return run
        save_network(trained.average, run.model)
        score_validation(run, labelled, settings)
        _score_heads(run, network, labelled, settings)
        write_run_report(run.folder)
    return run


def build_network(settings: Probe, labelled: Labelled) -> ProbedNetwork:
    """The frozen network under fresh heads.

    Raises:
        InputError: The run, a timestep or a level does not fit.
    """
    assert labelled.source is not None
    denoiser = load_denoiser(labelled.source, settings.weights)
    verify_size(labelled.plan, denoiser.config)
    diffusion = noising_of(labelled.source)
    clean = diffusion is None
    try:
        return ProbedNetwork(
            denoiser,
            diffusion,
            len(labelled.plan.classes),
            list(heads(settings, denoiser, clean=clean)),
            width=settings.width,
            seed=settings.training.seed,
            draws=settings.noise_draws,
        )
    except ValueError as error:
        raise InputError("radiffuse probe", str(error), "See radiffuse probe --help") from None


def heads(settings: Probe, denoiser: UNet, *, clean: bool) -> Iterator[HeadConfig]:
    """The heads that the settings ask for, the main one first.

    Args:
        settings: What is asked for.
        denoiser: Whose features they see.
        clean: The network was not trained on noise: timestep 0 alone, nothing to sweep over.
    """
    whole = pyramid(denoiser)
    wanted = {tap if tap == "middle" else f"level.{tap}" for tap in settings.levels}
    taps = tuple(tap for tap in whole if tap in wanted) if wanted else whole
    if unknown := sorted(wanted - set(whole)):
        raise ValueError(f"--levels {', '.join(unknown)}: choose from {', '.join(whole)}")
    timesteps = (0,) if clean else settings.timesteps
    for kind in settings.heads:
        yield HeadConfig(kind, kind, timesteps, taps)
    for kind in settings.heads:
        for t in () if clean else settings.sweep:
            yield HeadConfig(f"{kind}@t={t}", kind, (t,), taps)
        for tap in taps if settings.sweep_levels else ():
            yield HeadConfig(f"{kind}@{tap}", kind, timesteps, (tap,))


# ------------------------------------------------------------------------------------------------ internal


def _score_heads(run: Run, network: ProbedNetwork, labelled: Labelled, settings: Probe) -> None:
    """``sweep.csv``: validation Dice of every head, by class and by how large the class is."""
    import pandas as pd

    names = labelled.splits.validation
    if not names or not settings.training.validate_every or len(network.configs) < 2:
        return
    prepared = labelled.batches.prepared
    maps = (prepared.label(i) for i in range(len(prepared)))
    groups = size_groups(class_sizes(maps, labelled.plan.classes))
    frames = []
    for head in network.configs:
        cases = score_cases(
            run,
            labelled.dataset,
            names,
            run.folder / "heads" / head.name,
            settings.machine,
            overrides=Overrides(head=head.name),
        )
        frame = pd.read_csv(cases, dtype={"case": str, "group": str, "class": str})
        frame = frame[["case", "group", "class", "dice"]]
        frame.insert(0, "levels", " ".join(head.taps))
        frame.insert(0, "timesteps", " ".join(map(str, head.timesteps)))
        frame.insert(0, "kind", head.kind)
        frame.insert(0, "head", head.name)
        frame["size"] = frame["class"].map(groups)
        frames.append(frame)
    table = pd.concat(frames).replace({np.nan: None})
    write_atomic(run.folder / "sweep.csv", table.to_csv(index=False, float_format="%.6g"))
