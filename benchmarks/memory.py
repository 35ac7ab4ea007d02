"""Memory of training steps and passes against the estimate: ``python benchmarks/memory.py``.

Writes ``memory.csv``. Every row is a process of its own: how far its resident memory rises, from before the network is
built to the largest of a few steps with Adam and averaged weights (or of a few passes without gradients), beside what
``nets.summary`` says in closed form. What torch itself takes on first use, about 100 MiB, is not in either.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pandas as pd
from results import RESULTS, origin, write_table

from radiffuse.config import Network, UNetConfig, network_for, resolve_network
from radiffuse.nets.summary import summarize

STEP = """
import json, sys, time
import psutil, torch
from radiffuse.config import UNetConfig
from radiffuse.config.values import from_dict
from radiffuse.nets.blocks import channels_last
from radiffuse.nets.unet import UNet
values, size, batch, mode, bfloat16, again = json.loads(sys.argv[1])
config = from_dict(UNetConfig, values)
torch.set_num_threads(1)
order = channels_last(config.spatial_dims)
# Libraries load on first use: a small network of the same kind is trained first.
small = UNetConfig(spatial_dims=config.spatial_dims, width=16, multipliers=(1, 2), blocks=1, attention_factors=(),
                   unshuffle=config.unshuffle)
first = UNet(small).to(memory_format=order)
x = torch.zeros(2, 1, *[2 * n for n in small.size_multiple]).contiguous(memory_format=order)
with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
    first(x, torch.zeros(2)).float().square().sum().backward()
torch.optim.Adam(first.parameters()).step()
del first, x
before = psutil.Process().memory_info().rss
network = UNet(config, again)
network.initialize(torch.Generator().manual_seed(0))
network = network.to(memory_format=order)
optimizer = torch.optim.Adam(network.parameters())
average = [p.detach().clone() for p in network.parameters()] if mode == "training" else []
start = time.process_time()
for _ in range(3):
    x = torch.randn(batch, config.in_channels, *size).contiguous(memory_format=order)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        if mode == "training":
            optimizer.zero_grad()
            network(x, torch.zeros(batch)).float().square().mean().backward()
            optimizer.step()
        else:
            with torch.no_grad():
                network(x, torch.zeros(batch))
import resource
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([peak - before, (time.process_time() - start) / 3]))
"""


def networks() -> dict[str, tuple[UNetConfig, tuple[int, ...], int]]:
    """Network, size and batch by name."""
    tiny = resolve_network(Network(), spatial_dims=2, in_channels=1, out_channels=1)
    return {
        "tiny": (tiny, (64, 64), 32),
        "tiny-256": (network_for((256, 256), width=32, out_channels=2), (256, 256), 8),
        "128 px, width 32, 2 blocks": (network_for((128, 128), width=32, blocks=2), (128, 128), 8),
        "volume": (network_for((48, 48, 48), out_channels=4), (48, 48, 48), 2),
        "thin volume": (
            network_for((16, 96, 96), spacing=(5, 1, 1), folds=0, width=16), (16, 96, 96), 1,
        ),
    }  # fmt: skip


def measure(config: UNetConfig, size: tuple[int, ...], batch: int, *how: Any) -> tuple[int, float]:
    """Bytes by which a process grows, and seconds per step on one core."""
    words = [sys.executable, "-c", STEP, json.dumps([asdict(config), size, batch, *how])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rose, seconds = json.loads(done.stdout)
    return rose, seconds


def main() -> None:
    """Estimate, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimate", action="store_true", help="keep what was measured")
    given = parser.parse_args()
    old = pd.read_csv(RESULTS / "memory.csv") if given.estimate else pd.DataFrame()
    rows: list[dict[str, Any]] = []
    for name, (config, size, batch) in networks().items():
        cost = summarize(config, size, batch, "cpu")
        for mode, bfloat16, again in (
            ("training", False, False), ("training", True, False), ("training", False, True),
            ("prediction", False, False), ("prediction", True, False),
        ):  # fmt: skip
            estimate = (
                cost.training_bytes(bfloat16=bfloat16, checkpointed=again)
                if mode == "training"
                else cost.prediction_bytes(bfloat16=bfloat16)
            )
            if given.estimate:
                before = old.iloc[len(rows)]
                rose, seconds = before["measured_mib"] * 2**20, before["seconds"]
            else:
                rose, seconds = measure(config, size, batch, mode, bfloat16, again)
            rows.append(
                {
                    "network": name,
                    "size": " x ".join(map(str, size)),
                    "batch": batch,
                    "parameters_m": cost.parameters / 1e6,
                    "mode": mode,
                    "precision": "bf16-mixed" if bfloat16 else "float32",
                    "checkpointed": again,
                    "estimated_mib": estimate / 2**20,
                    "measured_mib": rose / 2**20,
                    "estimated_over_measured": estimate / rose,
                    "seconds": seconds,
                }
            )
            print(rows[-1], flush=True)
    write_table(pd.DataFrame(rows), origin("python benchmarks/memory.py"), "memory.csv")


if __name__ == "__main__":
    main()
