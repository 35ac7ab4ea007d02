"""What the kernels of our own save: training steps with and without each, side by side on the CPU.

``python benchmarks/kernels.py [--turns 5] [--only TEXT]`` writes ``results/kernels.csv``. Every turn is a process of
its own, of one thread; the sides take turns, so that a machine whose speed drifts slows all of them. Time is that of
the processor.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import pandas as pd
from results import RESULTS, hardware, origin, write_table

STEPS = {
    "2D, 64 x 64, batch 8, tiny": (2, 64, 8, "tiny"),
    "2D, 256 x 256, batch 2, tiny": (2, 256, 2, "tiny"),
    "2D, 128 x 128, batch 2, small": (2, 128, 2, "small"),
    "3D, 48 x 48 x 48, batch 1, tiny": (3, 48, 1, "tiny"),
}
SIDES = ("shipped", "torch's norm", "torch's convolution")
PRECISIONS = ("32-true", "bf16-mixed")


def main() -> None:
    """Run all turns, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="", help="a part of the name of a step")
    parser.add_argument("--one", nargs=3, metavar=("STEP", "PRECISION", "SIDE"))
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(one_turn(*chosen.one)))
        return
    rows = []
    for step in (name for name in STEPS if chosen.only in name):
        for precision in PRECISIONS:
            for _ in range(chosen.turns):
                for side in SIDES:
                    command = [sys.executable, "-W", "ignore", __file__, "--one"]
                    done = subprocess.run(
                        [*command, step, precision, side],
                        check=True,
                        stdout=subprocess.PIPE,
                    )
                    found = json.loads(done.stdout)
                    rows.append({"step": step, "precision": precision, "side": side} | found)
                    print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    by = ["step", "precision", "side"]
    summary = table.groupby(by, sort=False).median().reset_index()
    for column in ("milliseconds", "mib"):
        whole = table.pivot_table(
            index=["step", "precision"], columns="side", values=column, sort=False
        )
        shipped = summary.set_index(["step", "precision"]).index.map(whole["shipped"])
        summary[f"{column} / shipped"] = summary[column] / shipped
    summary["turns"] = chosen.turns
    where = origin("python benchmarks/kernels.py") | {
        "hardware": f"{hardware()} and bf16, one thread"
    }
    if (path := RESULTS / "kernels.csv").exists():
        before = pd.read_csv(path)
        summary = pd.concat([before[~before["step"].isin(summary["step"])], summary])
    write_table(summary, where, "kernels.csv")


def one_turn(step: str, precision: str, side: str) -> dict[str, float]:
    """Milliseconds of a training step (median of four after one), MiB that the steps added, and the last loss."""
    import torch

    from radiffuse.config import Network, resolve_network
    from radiffuse.nets import blocks, channels_last_norm, convolution
    from radiffuse.nets.unet import UNet

    torch.set_num_threads(1)
    if side == "torch's norm":
        channels_last_norm.MANY = dict.fromkeys(channels_last_norm.MANY, sys.maxsize)
        blocks.RECOMPUTED = sys.maxsize
    if side == "torch's convolution":
        convolution.FEW = 0
    dims, size, batch, preset = STEPS[step]
    config = resolve_network(
        Network(preset=preset), spatial_dims=dims, in_channels=1, out_channels=1
    )
    network = UNet(config)
    network.initialize(torch.Generator().manual_seed(0))
    order = torch.channels_last if dims == 2 else torch.channels_last_3d
    network = network.to(memory_format=order)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    x = torch.randn((batch, 1, *(size,) * dims), generator=torch.Generator().manual_seed(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, loss = [], torch.zeros(())
    for _ in range(5):
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            output = network(x, torch.arange(batch))
        loss = (output.float() - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append((time.process_time() - began) * 1000)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    middle = sorted(times[1:])[1:3]
    return {"milliseconds": sum(middle) / 2, "mib": added, "loss": float(loss)}


if __name__ == "__main__":
    main()
