"""What ``torch.compile`` gains on a processor: ``python benchmarks/compiled.py`` writes ``results/compiled.csv``.

A training step of the networks that plans take (noise in, mean squared error, AdamW), as it is and compiled, in turns
in one process and on one thread; seconds are those of the processor, that of the compiler included. Compiled code of
earlier calls is not used, for which the script starts itself anew with a cache of its own. ``pays_from_minutes`` is the
training from which on compiling costs less than it saves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping

import pandas as pd
import torch
from results import origin, write_table
from torch import Tensor, nn

from radiffuse.config import Network, Training, resolve_network
from radiffuse.nets.imagenet import ImageNetDenoiser
from radiffuse.nets.unet import UNet
from radiffuse.train.step import new_optimizer

COMMAND = "python benchmarks/compiled.py"
ROUNDS, TURNS = 5, 3
"""Rounds in which both take turns, and steps of each in a round; the least round counts, as other work only delays."""
NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "ImageNet U-Net, 128 x 128, batch of 8": lambda: ImageNetDenoiser(1),
    "tiny-256, 128 x 128, batch of 8": lambda: UNet(
        resolve_network(Network(preset="tiny-256"), spatial_dims=2, in_channels=1, out_channels=1)
    ),
}


def main() -> None:
    """Time all networks."""
    torch.set_num_threads(1)
    found = []
    for row in rows():
        print(row, flush=True)
        found.append(row)
        write_table(pd.DataFrame(found), origin(COMMAND), "compiled.csv")


def rows() -> Iterator[dict[str, object]]:
    """One row a network."""
    for name, build in NETWORKS.items():
        torch.manual_seed(0)
        images = torch.randn(8, 1, 128, 128)
        # In the order of memory of a training.
        one, other = (build().to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
        plain, compiled = stepper(one, images), stepper(torch.compile(other), images)
        plain()
        made = spent(compiled) + spent(compiled)
        least = {step: float("inf") for step in (plain, compiled)}
        for _ in range(ROUNDS):
            for step in least:
                least[step] = min(least[step], sum(spent(step) for _ in range(TURNS)) / TURNS)
        before, after = least.values()
        saved = 1 - after / before
        yield {
            "network": name,
            "seconds": before,
            "seconds_compiled": after,
            "saved": saved,
            "seconds_of_compiling": made - 2 * after,
            "pays_from_minutes": (made - 2 * after) / saved / 60 if saved > 0 else float("inf"),
            "rounds": ROUNDS,
            "threads": 1,
        }


def stepper(model: Callable[..., Tensor], images: Tensor) -> Callable[[], None]:
    """A training step."""
    assert isinstance(model, nn.Module)
    optimizer = new_optimizer(model, Training())
    times = torch.zeros(len(images))

    def step() -> None:
        optimizer.zero_grad()
        model(images, times).square().mean().backward()
        optimizer.step()

    return step


def spent(work: Callable[[], None]) -> float:
    """Seconds of the processor, those of compilers that it starts included."""

    def now() -> float:
        return sum(os.times()[:4])

    began = now()
    work()
    return now() - began


if __name__ == "__main__":
    if "--apart" in sys.argv:
        main()
    else:
        with tempfile.TemporaryDirectory() as cache:
            apart = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            words = [sys.executable, __file__, "--apart"]
            sys.exit(subprocess.run(words, env=os.environ | apart, check=False).returncode)
