"""Training at 256 x 256 pixels on one core, network by network: ``python benchmarks/large_images.py``.

Writes ``large-images.csv``: images per second of forward and backward pass (float32, batch of 8, processor time, best
of three turns), and as against a U-Net on EfficientNet-Lite0 in the same turns, since other work runs here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pandas as pd
import torch
from results import origin, write_table
from torch import Tensor

from radiffuse.config import Network, UNetConfig, network_for, resolve_network
from radiffuse.nets.imagenet import ImageNetUNet
from radiffuse.nets.memory_format import channels_last
from radiffuse.nets.summary import summarize
from radiffuse.nets.unet import UNet

SIZE, BATCH, TURNS = (256, 256), 8, 3
REFERENCE = "EfficientNet-Lite0 U-Net"


def networks() -> dict[str, UNetConfig]:
    """The networks by name."""
    names = ("tiny", "tiny-256")
    found = {
        name: resolve_network(
            Network(preset=name),  # type: ignore[arg-type]
            spatial_dims=2, in_channels=1, out_channels=2,
        )
        for name in names
    }  # fmt: skip
    for folds, width, blocks in ((1, 16, 1), (2, 32, 2), (2, 48, 1), (2, 64, 1)):
        name = f"network_for, folds {folds}, width {width}, blocks {blocks}"
        found[name] = network_for(SIZE, folds=folds, width=width, blocks=blocks, out_channels=2)
    return found


def main() -> None:
    """All networks in turn, three times."""
    torch.set_num_threads(1)
    runs: dict[str, Callable[[Tensor], Tensor]] = {
        REFERENCE: ImageNetUNet(1, 2).to(memory_format=channels_last(2))
    }  # type: ignore[call-overload]
    for name, config in networks().items():
        network = UNet(config).to(memory_format=channels_last(2))  # type: ignore[call-overload]
        runs[name] = lambda x, network=network: network(x, torch.zeros(len(x)))
    x = torch.randn(BATCH, 1, *SIZE).contiguous(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(TURNS):
        for name, run in runs.items():
            start = time.process_time()
            run(x).square().mean().backward()
            seconds[name].append(time.process_time() - start)
            print(turn, name, f"{seconds[name][-1]:.2f}", flush=True)
    best = {name: min(values) for name, values in seconds.items()}
    rows = []
    for name, value in best.items():
        config = networks().get(name)
        cost = summarize(config, SIZE, 1) if config else None
        rows.append(
            {
                "network": name,
                "parameters_m": cost.parameters / 1e6 if cost else None,
                "gflop_forward": cost.forward_flops / 1e9 if cost else None,
                "images_per_second": BATCH / value,
                "of_reference": best[REFERENCE] / value,
            }
        )
    write_table(pd.DataFrame(rows), origin("python benchmarks/large_images.py"), "large-images.csv")


if __name__ == "__main__":
    main()
