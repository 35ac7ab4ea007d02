"""What the changes of images cost: ``python benchmarks/augmentation_cost.py`` writes ``results/augmentation-cost.csv``.

A training step of ``fit`` by its own settings, from reading the arrays to the step of the optimizer: with its changes
of images, with the milder ones of mask diffusion, and without any, in turn in one process. Medians with the range over
the repetitions, on the processor's clock, since the machine may have other work. Patches of volumes are cut from 96
voxels a side, so that there is something around them.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from functools import cache

import pandas as pd
import torch
from results import origin, write_table

from radiffuse.config import (
    FINETUNE_AUGMENTATION,
    FIT,
    FIT_AUGMENTATION,
    Augmentation,
    Fit,
    Network,
)
from radiffuse.data.batches import Batches
from radiffuse.data.plan import Plan
from radiffuse.objectives import METHODS
from radiffuse.train.planning.measuring import Blank
from radiffuse.train.random import StepRandom
from radiffuse.train.step import new_optimizer

CLASSES = ("background", "a", "b")
CHANGES = {
    "none": Augmentation(),
    "mild": FINETUNE_AUGMENTATION,
    "fit": FIT_AUGMENTATION,
}
FILMS = Plan(2, ("film",), CLASSES, (256, 256), mirror=(1,))
VOLUMES = Plan(3, ("CT",), CLASSES, (48, 48, 48), (1.0,) * 3, mirror=(0,))
BATCH, REPEATS = 2, 3
LIMIT = 0.15
"""Largest share of a step that the changes may add."""


class Kept(Blank):
    """Blank arrays that are made once."""

    image = cache(Blank.image)
    label = cache(Blank.label)
    __hash__ = object.__hash__


def main() -> None:
    """Measure and write."""
    torch.manual_seed(0)
    rows = []
    for plan, methods in (
        (FILMS, ("imagenet", "scratch")),
        (VOLUMES, ("scratch", "dynunet")),
    ):
        for method in methods:
            steps = {name: step(plan, method, change) for name, change in CHANGES.items()}
            rows += in_turn(steps, f"{method}, {'x'.join(map(str, plan.size))}, batch of {BATCH}")
            print(pd.DataFrame(rows).tail(3).to_string(header=False, index=False), flush=True)
    more = {"threads": str(torch.get_num_threads()), "load": f"{os.getloadavg()[0]:.1f}"}
    made = origin("python benchmarks/augmentation_cost.py") | more
    write_table(pd.DataFrame(rows), made, "augmentation-cost.csv")


def step(plan: Plan, method: str, changes: Augmentation) -> Callable[[], object]:
    """A training step, each call the next one."""
    chosen = Network(preset="tiny") if method == "scratch" else Network()
    training = dataclasses.replace(FIT[method].training, batch_size=BATCH)
    settings: Fit = dataclasses.replace(FIT[method], network=chosen, training=training)
    task = METHODS[method].build(settings, plan, None, None)
    order = torch.channels_last if plan.spatial_dims == 2 else torch.channels_last_3d
    network = task.network.to(memory_format=order).train()  # type: ignore[call-overload]
    optimizer = new_optimizer(network, training)
    shape = plan.size if plan.whole else (96, 96, 96)
    arrays = Kept.like(plan, shape, labelled=True)
    batches = Batches(arrays, batch_size=BATCH, seed=0, augmentation=changes)
    done = iter(range(10**6))

    def act() -> None:
        number = next(done)
        seen = StepRandom(0, number, total=BATCH, start=0, stop=BATCH, device=torch.device("cpu"))
        task.loss(network, batches(number), seen).value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return act


def in_turn(steps: dict[str, Callable[[], object]], what: str) -> list[dict[str, object]]:
    """Rows of each side: seconds, and how much more than without changes."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(REPEATS + 1):  # the first warms up
        for name, act in steps.items():
            began = time.process_time()
            act()
            if turn:
                seconds[name].append(time.process_time() - began)
    rows = []
    for name, values in seconds.items():
        more = [a / b - 1 for a, b in zip(values, seconds["none"], strict=True)]
        share = statistics.median(values) / statistics.median(seconds["none"]) - 1
        rows.append({
            "what": what, "changes": name, "seconds": statistics.median(values), "more": share,
            "lowest": min(more), "highest": max(more), "limit": LIMIT,
            "reached": "yes" if share <= LIMIT else "no", "repetitions": REPEATS, "clock": "processor",
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
