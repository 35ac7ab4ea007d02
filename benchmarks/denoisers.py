"""What a denoiser of latents is to predict: ``python benchmarks/denoisers.py CLASSES --work FOLDER``.

Noise, velocity, image, and the velocity of a flow, each with and without alignment with the encoder (REPA), get equal
seconds: the time of a step is measured for both networks, as time of the processor, and steps are counted by it. All
share films, encoder, autoencoder, seed and solver (DDIM with as many steps; of a flow it is Euler's method). Each is
judged at every number of seconds by the Fréchet distance, corrected for its bias, to films of patients never seen; with
``--last``, these predictions alone go on to the last number of seconds, without alignment.

Everything resumes, so the same call goes on; with more ``--seconds`` the trainings are prolonged. Writes
``results/denoisers.csv``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from results import origin, write_table

import radiffuse
from radiffuse.config import Diffusion, LatentNetwork
from radiffuse.synthesis.alignment import AlignedDenoiser
from radiffuse.synthesis.denoiser import LatentBatch, LatentDenoising, build_denoiser
from radiffuse.train.random import StepRandom
from synthesis import part

SCALED: Mapping[str, Any] = {"schedule": "scaled-linear", "zero_terminal_snr": True}
PREDICTIONS: Mapping[str, Mapping[str, Any]] = {
    "epsilon": SCALED | {"prediction_type": "epsilon", "zero_terminal_snr": False},
    "v": SCALED | {"prediction_type": "v"},
    "x_start": SCALED | {"prediction_type": "x_start"},
    "flow": {
        "schedule": "flow",
        "prediction_type": "v",
        "timestep_sampling": "logit-normal",
    },
}
ALIGNMENTS = (0.0, 0.5)
"""Weights of the alignment; .5 is that of Yu et al. 2025."""
TRAINING: Mapping[str, Any] = {
    "decay": "constant",
    "warmup_steps": 50,
    "batch_size": 32,
    "keep_state": True,
    "validate_every": 0,
}
DRAWING: Mapping[str, Any] = {"sampler": "ddim", "steps": 25, "guidance": 1.0}
TIMED = 12
"""Steps whose time is measured; the first two warm up."""
FACTOR = 4
"""By how much the autoencoder reduces a film."""
CPU = {"accelerator": "cpu", "threads": 1}


def main() -> None:
    """Part the films, train the stages once, then every denoiser; write what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classes", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", default="300,900", help="of training, at which each is judged")
    parser.add_argument("--last", help="predictions that alone get the last time, apart by commas")
    parser.add_argument("--count", type=int, default=350, help="films drawn")
    parser.add_argument("--limit", type=int, help="films to train on; all by default")
    parser.add_argument("--dino-steps", type=int, default=1000)
    parser.add_argument("--vae-steps", type=int, default=1500)
    given = parser.parse_args()
    if not (given.work / "parts" / "test").exists():
        part(given)
    stages(given)
    cost = costs(given)
    rows = []
    times = sorted(map(int, given.seconds.split(",")))
    last = given.last.split(",") if given.last else None
    for seconds in times:
        few = last if seconds == times[-1] else None
        for prediction in few or PREDICTIONS:
            for alignment in ALIGNMENTS[:1] if few else ALIGNMENTS:
                rows.append(judged(given, prediction, alignment, seconds, cost[str(alignment)]))
                shown = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in _said(given).items())
                command = f"python benchmarks/denoisers.py ../shared/data/cxr-classes {shown}"
                write_table(pd.DataFrame(rows), origin(command), "denoisers.csv")


def stages(given: argparse.Namespace) -> None:
    """Encoder and autoencoder, which all denoisers share, from a run whose denoiser makes one step."""
    radiffuse.synthesize(
        **_common(given, "stages"),
        dino={"training": {"steps": given.dino_steps}},
        vae={"training": {"steps": given.vae_steps}},
        training={"steps": 1},
    )


def costs(given: argparse.Namespace) -> dict[str, float]:
    """Seconds of the processor per step by weight of the alignment, measured once."""
    path = given.work / "seconds-per-step.json"
    if not path.exists():
        torch.set_num_threads(1)
        path.write_text(json.dumps({str(w): _seconds(given.size // FACTOR, w) for w in ALIGNMENTS}))
    return dict(json.loads(path.read_text()))


def judged(
    given: argparse.Namespace, prediction: str, alignment: float, seconds: int, cost: float
) -> dict[str, object]:
    """A row of the table: train or prolong, draw, judge."""
    steps, name = max(1, round(seconds / cost)), f"{prediction}-{alignment:g}"
    kept = given.work / "runs" / f"{name}-{steps}"
    if not kept.exists():
        stage = given.work / "runs" / "stages"
        run = radiffuse.synthesize(
            **_common(given, name),
            encoder=str(stage / "encoder/model"),
            autoencoder=str(stage / "autoencoder/model"),
            diffusion=PREDICTIONS[prediction],
            alignment=alignment,
            training=TRAINING | {"steps": steps, "average_decay": 0.998},
        )
        shutil.copytree(run.folder, kept)
    fake = given.work / "drawn" / kept.name
    radiffuse.generate(
        run=str(kept),
        out=str(fake),
        references=str(given.work / "parts" / "train"),
        count=given.count,
        reader={"cache": str(given.work / "cache")},
        machine=CPU,
        **DRAWING,
    )
    out = given.work / "fidelity" / kept.name
    if not (out / "fidelity.csv").exists():
        radiffuse.judge(
            real=str(given.work / "parts" / "test"),
            fake=str(fake),
            out=str(out),
            only=("fidelity",),
            reader={"cache": str(given.work / "cache")},
            machine=CPU,
        )
    of = pd.read_csv(out / "fidelity.csv").set_index("measure")
    distance, coverage = of.loc["frechet"], of.loc["coverage"]
    return {
        "prediction": prediction,
        "alignment": alignment,
        "seconds": seconds,
        "steps": steps,
        "size": given.size,
        "synthetic": int(distance["synthetic"]),
        "real": int(distance["real"]),
        "frechet": distance["value"],
        "low": distance["low"],
        "high": distance["high"],
        "floor_high": distance["floor_high"],
        "coverage": coverage["value"],
    }


def _common(given: argparse.Namespace, name: str) -> dict[str, Any]:
    return {
        "data": str(given.work / "parts" / "train"),
        "config": "synth-64",
        "out": str(given.work / "runs" / name),
        "plan": {"size": (given.size, given.size)},
        "reader": {"cache": str(given.work / "cache")},
        "limit": given.limit,
        "machine": CPU,
    }


def _said(given: argparse.Namespace) -> dict[str, object]:
    known = {k: v for k, v in vars(given).items() if k != "classes" and v is not None}
    return known | {"work": "."}


def _seconds(side: int, alignment: float) -> float:
    """Seconds of the processor for a step on latents of a side, forward and backward and the optimizer."""
    process, width, tokens = Diffusion(prediction_type="v"), 192, side * FACTOR // 8
    build = partial(build_denoiser, LatentNetwork(), process, latent_channels=4, size=side)
    network: torch.nn.Module = build(width=width)
    if alignment:
        network = AlignedDenoiser(network, side, (width, tokens, tokens))
    task = LatentDenoising(lambda: network, process, null=0.1, alignment=alignment)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    total = int(TRAINING["batch_size"])
    grid = torch.randn(total, width, tokens, tokens)
    latents = torch.rand(total, 8, side, side)
    batch = LatentBatch(latents, None, ("x",) * total, torch.randn(total, width), grid)
    began = 0.0
    for step in range(TIMED):
        if step == 2:
            began = time.process_time()
        random = StepRandom(0, step, total=total, start=0, stop=total, device=torch.device("cpu"))
        task.loss(network, batch, random).value.backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.process_time() - began) / (TIMED - 2)


if __name__ == "__main__":
    main()
