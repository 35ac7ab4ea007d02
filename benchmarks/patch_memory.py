"""Memory and time of a 3D training step by patch and width: ``python benchmarks/patch_memory.py [--measure]``.

Writes ``patch-memory.csv``: memory estimated without holding anything (tensors on the meta device; what autograd keeps,
weights, gradients, averages and Adam's moments), in float32, in bf16 with a float32 copy, and with activations computed
again. With ``--measure`` the patches that fit this machine are also trained for a few steps in a process of their own:
seconds per step, and how far its resident memory rose.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pandas as pd
from results import origin, write_table

PATCHES = ((32, 32, 32), (48, 48, 48), (64, 64, 32), (96, 96, 32), (128, 128, 32))
WIDTHS = (16, 32, 48)
MEASURED = 0.8
"""GiB of estimated memory up to which a patch is trained here."""

STEP = """
import json, resource, sys, time
import torch
from radiffuse.config import Network, resolve_network
from radiffuse.nets.unet import UNet
patch, width, again = json.loads(sys.argv[1])
torch.set_num_threads(1)
tiny = Network(preset="tiny", width=width)
network = UNet(resolve_network(tiny, spatial_dims=3, in_channels=4, out_channels=1), again)
network.initialize(torch.Generator().manual_seed(0))
network = network.to(memory_format=torch.channels_last_3d)  # as the training loop does
average = [p.detach().clone() for p in network.parameters()]
optimizer = torch.optim.Adam(network.parameters())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times = []
for _ in range(4):
    start = time.process_time()
    optimizer.zero_grad()
    x = torch.randn(1, 4, *patch).to(memory_format=torch.channels_last_3d)
    network(x, torch.tensor([10])).square().mean().backward()
    optimizer.step()
    times.append(time.process_time() - start)
rose = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps([sorted(times[1:])[1], rose]))
"""


def main() -> None:
    """Estimate, measure, write."""
    from radiffuse.config import Network, resolve_network
    from radiffuse.nets.summary import summarize

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true")
    given = parser.parse_args()
    rows = []
    for width in WIDTHS:
        config = resolve_network(
            Network(preset="tiny", width=width), spatial_dims=3, in_channels=4, out_channels=1
        )
        for patch in PATCHES:
            cost = summarize(config, patch)
            row = {
                "patch": " x ".join(map(str, patch)),
                "width": width,
                "parameters_m": cost.parameters / 1e6,
                "gflop_step": 3 * cost.forward_flops / 1e9,
                "gib_float32": cost.training_bytes() / 2**30,
                "gib_bf16": cost.training_bytes(bfloat16=True) / 2**30,
                "gib_float32_checkpointed": cost.training_bytes(checkpointed=True) / 2**30,
                "gib_bf16_checkpointed": cost.training_bytes(bfloat16=True, checkpointed=True)
                / 2**30,
            }
            for again in (False, True):
                name = "_checkpointed" if again else ""
                if given.measure and row["gib_float32"] < MEASURED:
                    seconds, rose = measure(patch, width, again)
                    row[f"seconds_step{name}"] = seconds
                    row[f"gib_measured{name}"] = rose / 2**30
            rows.append(row)
            print(row, flush=True)
    command = "python benchmarks/patch_memory.py" + (" --measure" if given.measure else "")
    write_table(pd.DataFrame(rows), origin(command), "patch-memory.csv")


def measure(patch: tuple[int, ...], width: int, again: bool) -> tuple[float, float]:
    """Seconds per step (median of three, one thread) and bytes by which the process grew."""
    words = [sys.executable, "-c", STEP, json.dumps([patch, width, again])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, rose = json.loads(done.stdout)
    return seconds, rose


if __name__ == "__main__":
    main()
