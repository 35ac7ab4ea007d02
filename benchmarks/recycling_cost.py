"""What recycling costs: ``python benchmarks/recycling_cost.py`` writes ``results/recycling-cost.csv``.

A training step of each strategy against a standard one, and sampling with n steps against n forward passes, interleaved
in one process, medians with the range over the repetitions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import get_args

import pandas as pd
import torch
from results import origin, write_table

from radiffuse.config import FIT, MaskDiffusion, Network, Sampling, Strategy, resolve_network
from radiffuse.data.batches import Batch
from radiffuse.inference.mask_sampler import MaskSampler
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.objectives.mask_diffusion import SELF_CONDITIONED, MaskDenoising
from radiffuse.train.random import StepRandom

SIZE, BATCH, CLASSES, REPEATS, STEPS = 64, 16, 2, 7, 5
DIFFUSION = FIT["diffusion"].diffusion.process


def main() -> None:
    """Measure and write."""
    torch.manual_seed(0)
    images = torch.rand(BATCH, 1, SIZE, SIZE) * 2 - 1
    labels = torch.randint(0, CLASSES, (BATCH, SIZE, SIZE))
    batch = Batch(images, labels, tuple(map(str, range(BATCH))))
    strategies: list[Strategy] = [s for s in get_args(Strategy) if s != "none"]
    rows = _ratios({s: _training(s, batch) for s in strategies}, "standard", "training step")
    network = _network("recycle").eval()
    sampler = MaskSampler(network, DIFFUSION, Sampling(steps=STEPS))
    one = images[:1]
    x_t, t = torch.randn(1, CLASSES, SIZE, SIZE), torch.tensor([500])

    @torch.no_grad()
    def passes() -> None:
        for _ in range(STEPS):
            network(one, x_t, t)

    sampling = {
        f"{STEPS} forward passes": passes,
        f"sampling in {STEPS} steps": lambda: sampler(one, torch.Generator().manual_seed(0)),
    }
    rows += _ratios(sampling, f"{STEPS} forward passes", "prediction")
    write_table(
        pd.DataFrame(rows),
        origin("python benchmarks/recycling_cost.py") | {"threads": str(torch.get_num_threads())},
        "recycling-cost.csv",
    )


def _network(strategy: Strategy) -> MaskDenoiser:
    unet = resolve_network(Network(), spatial_dims=2, in_channels=1, out_channels=CLASSES)
    network = MaskDenoiser.from_scratch(
        unet,
        self_condition=strategy in SELF_CONDITIONED,
        generator=torch.Generator().manual_seed(0),
    )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _training(strategy: Strategy, batch: Batch) -> Callable[[], object]:
    network = _network(strategy)
    task = MaskDenoising(
        network,
        MaskDiffusion(strategy=strategy, process=DIFFUSION),
        FIT["diffusion"].loss,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        random = StepRandom(0, 0, total=BATCH, start=0, stop=BATCH, device=torch.device("cpu"))
        task.loss(network, batch, random).value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _ratios(
    actions: Mapping[str, Callable[[], object]], reference: str, what: str
) -> list[dict[str, object]]:
    for action in actions.values():
        action()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(REPEATS):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - began)
    rows = []
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds[reference], strict=True)]
        rows.append({
            "what": what, "name": name, "seconds": statistics.median(values),
            "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
            "repetitions": REPEATS,
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
