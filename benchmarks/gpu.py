"""All that only a CUDA card can show, in one command: ``python benchmarks/gpu.py``, which is ``make gpu``.

gpu-tests.csv   tests of ``tests/test_card.py``: every act against the processor, resume, bf16, compilation, masks
gpu-speed.csv   training steps and forward passes of U-Nets, float32 and bf16, compiled or not: images/s and memory
gpu-plan.csv    a plan for this card, predicted against what a real run of it took

Without a card it says so and ends well. ``--accelerator cpu --small`` tries the script itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from results import RESULTS, origin, write_table

import radiffuse
from radiffuse.config import Network, UNetConfig, resolve_network
from radiffuse.nets.blocks import channels_last
from radiffuse.nets.unet import UNet
from radiffuse.system.files import read_json

COMMAND = "python benchmarks/gpu.py"
CASES: dict[str, tuple[int, str, tuple[int, ...], int]] = {
    "2D 256 px, width 128": (2, "paper", (256, 256), 8),
    "2D 256 px, tiny-256": (2, "tiny-256", (256, 256), 32),
    "3D 128 x 128 x 32, width 64": (3, "base", (128, 128, 32), 2),
}
"""Axes, preset, size and batch of what is timed."""
SMALL = {"2D 32 px, width 16": (2, "tiny", (32, 32), 2)}
TURNS = 20


def tests(accelerator: str, scratch: Path) -> pd.DataFrame:
    """Run the tests of the card: outcome and seconds of each."""
    report = scratch / "tests.xml"
    path = Path(__file__).parents[1] / "tests" / "test_card.py"
    words = ["-m", "pytest", "-q", "-n", "0", f"--junitxml={report}", str(path)]
    environment = os.environ | {"RADIFFUSE_TEST_DEVICE": accelerator}
    subprocess.run([sys.executable, *words], env=environment, check=False)
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = next((k for k in ("failure", "error", "skipped") if k in kinds), "passed")
        rows.append({"test": case.get("name"), "outcome": outcome, "seconds": case.get("time")})
    return pd.DataFrame(rows)


def speed(accelerator: str, cases: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Images per second and memory of every network and arithmetic."""
    device = torch.device(accelerator)
    for name, (dims, preset, size, batch) in cases.items():
        unet = resolve_network(
            Network(preset=preset),  # type: ignore[arg-type]
            spatial_dims=dims, in_channels=1, out_channels=1,
        )  # fmt: skip
        for bfloat16 in (False, True):
            for compiled in (
                (False, True) if accelerator == "cuda" else (False,)
            ):  # minutes on a CPU
                row = {"network": name, "batch": batch, "bf16": bfloat16, "compiled": compiled}
                try:
                    yield row | timed(unet, size, batch, device, bfloat16, compiled)
                except torch.OutOfMemoryError:
                    yield row | {"note": "out of memory"}


def timed(
    unet: UNetConfig,
    size: tuple[int, ...],
    batch: int,
    device: torch.device,
    bfloat16: bool,
    compiled: bool,
) -> dict[str, float]:
    """A training step and a forward pass of a U-Net."""
    network = UNet(unet).to(device, memory_format=channels_last(unet.spatial_dims))  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters())
    model: Callable[..., torch.Tensor] = torch.compile(network) if compiled else network
    images = torch.randn(batch, 1, *size, device=device)
    t = torch.zeros(batch, device=device)

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            return model(images, t)

    def step() -> None:
        optimizer.zero_grad()
        forward().float().square().mean().backward()
        optimizer.step()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    training = batch / seconds(step, device)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    with torch.no_grad():
        prediction = batch / seconds(forward, device)
    return {"trained images/s": training, "predicted images/s": prediction, "GiB": memory}


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one turn, the mean of ``TURNS`` after three that warm up."""
    for turn in range(3 + TURNS):
        if turn == 3:
            synchronize(device)
            began = time.perf_counter()
        work()
    synchronize(device)
    return (time.perf_counter() - began) / TURNS


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def plan(accelerator: str, hours: float, small: bool, scratch: Path) -> pd.DataFrame:
    """A run by its own plan on drawn films and volumes: predicted and measured minutes and memory."""
    rows = []
    sizes = (
        {"chest": "64,64", "abdomen": "48,40,40"}
        if small
        else {"chest": "1024,1024", "abdomen": "192,160,160"}
    )
    for subject, size in sizes.items():
        data, out = scratch / subject, scratch / f"run-{subject}"
        radiffuse.anatomy(kind=subject, count=12, size=tuple(map(int, size.split(","))), out=data)
        run = radiffuse.fit(
            data=data,
            method="scratch",
            hours=hours,
            out=out,
            machine={"accelerator": accelerator},
            reader={"cache": str(scratch / "cache")},
        )
        cost, decided = read_json(out / "cost.json"), run.plan
        rows.append(
            {
                "data": f"{subject} {size}",
                "grid": decided.spacing or decided.film,
                "patch": decided.size,
                "precision": decided.training.precision if decided.training else "",
                "steps": decided.training.steps if decided.training else "",
                **{f"{k}, {side}": cost[side][k] for side in cost for k in cost[side]},
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accelerator", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--hours", type=float, default=0.05)
    parser.add_argument("--small", action="store_true", help="to try the script: writes nothing")
    given = parser.parse_args()
    if given.accelerator == "cuda" and not torch.cuda.is_available():
        print("no card here: nothing was measured")
        return
    card = torch.cuda.get_device_name() if given.accelerator == "cuda" else "none"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        tables = {
            "gpu-speed.csv": pd.DataFrame(
                speed(given.accelerator, SMALL if given.small else CASES)
            ),
            "gpu-plan.csv": plan(given.accelerator, given.hours, given.small, scratch),
        }
        if not given.small:
            tables["gpu-tests.csv"] = tests(given.accelerator, scratch)
    for name, table in tables.items():
        if given.small:
            print(table.to_string())
        else:
            write_table(table.assign(card=card, torch=torch.__version__), origin(COMMAND), name)
    failed = tables.get("gpu-tests.csv", pd.DataFrame(columns=["outcome"]))["outcome"].isin(
        ["failure", "error"]
    )
    if failed.any():
        raise SystemExit(f"{int(failed.sum())} tests failed, see {RESULTS / 'gpu-tests.csv'}")


if __name__ == "__main__":
    main()
