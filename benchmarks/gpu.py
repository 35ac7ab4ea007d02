"""All that only a CUDA card can show, in one command: ``python benchmarks/gpu.py``, which is ``make gpu``.

gpu-tests.csv   tests of ``tests/test_card.py``: every act against the processor, resume, bf16, compilation, masks
gpu-speed.csv   training steps and forward passes of U-Nets, float32 and bf16, normalized by our kernels or torch's,
                compiled, with sums in a fixed order (``--machine.deterministic``): images/s and memory
gpu-profile.csv what the time of a training step in bf16 goes into, by operation of torch, on the card and in all
gpu-plan.csv    a plan for this card, predicted against what a real run of it took

``--parts`` does some of it; ``--work`` names a folder for drawn images and runs, which is kept. Without a card it says
so and ends well. ``--accelerator cpu --small`` tries the script itself.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from results import RESULTS, origin, write_table
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

import radiffuse
from radiffuse.config import Machine, Network, UNetConfig, resolve_network
from radiffuse.nets import norm
from radiffuse.nets.memory_format import channels_last
from radiffuse.nets.unet import UNet
from radiffuse.system.files import read_json
from radiffuse.train.device import fixed_order

COMMAND = "python benchmarks/gpu.py"
CASES: dict[str, tuple[int, str, tuple[int, ...], int]] = {
    "2D 256 px, width 128": (2, "paper", (256, 256), 8),
    "2D 256 px, tiny-256": (2, "tiny-256", (256, 256), 32),
    "3D 128 x 128 x 32, width 64": (3, "base", (128, 128, 32), 2),
}
"""Axes, preset, size and batch of what is timed."""
WAYS = ("", "norm of torch", "deterministic", "compiled")
COMPILED = ("2D 256 px, tiny-256",)
"""What is timed compiled as well: larger networks take minutes to compile."""
PARTS = ("speed", "profile", "plan", "tests")
SMALL = {"2D 32 px, width 16": (2, "tiny", (32, 32), 2)}
TURNS = 10


def tests(accelerator: str, scratch: Path) -> pd.DataFrame:
    """Run the tests of the card: outcome and seconds of each."""
    report = scratch / "tests.xml"
    folder = Path(__file__).parents[1] / "tests"
    paths = [str(folder / name) for name in ("test_card.py", "nets/test_triton_norm.py")]
    workers = str(min(8, os.cpu_count() or 1))
    words = ["-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider", *paths]
    words.append(f"--junitxml={report}")
    environment = os.environ | {"RADIFFUSE_TEST_DEVICE": accelerator}
    subprocess.run([sys.executable, *words], env=environment, check=False)
    rows = []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = next((k for k in ("failure", "error", "skipped") if k in kinds), "passed")
        rows.append({"test": case.get("name"), "outcome": outcome, "seconds": case.get("time")})
    return pd.DataFrame(rows)


def speed(accelerator: str, cases: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Images per second and memory of every network, arithmetic and way."""
    device = torch.device(accelerator)
    for name, way in sorted(itertools.product(cases, WAYS), key=lambda each: each[1] == "compiled"):
        if way == "compiled" and name not in COMPILED:
            continue
        dims, preset, size, batch = cases[name]
        unet = resolve_network(
            Network(preset=preset),  # type: ignore[arg-type]
            spatial_dims=dims, in_channels=1, out_channels=1,
        )  # fmt: skip
        for bfloat16 in (False, True) if way in ("", "norm of torch") else (True,):
            row = {"network": name, "batch": batch, "bf16": bfloat16, "way": way}
            ordered = Machine(deterministic=way == "deterministic")
            try:
                with fixed_order(ordered, device), normalized_by(way):
                    row |= timed(unet, size, batch, device, bfloat16, way == "compiled")
            except torch.OutOfMemoryError:
                row |= {"note": "out of memory"}
            print(row, flush=True)
            yield row


def grown(rows: Iterable[dict[str, object]]) -> Iterator[pd.DataFrame]:
    """The table after each row: what takes long may be interrupted."""
    found: list[dict[str, object]] = []
    for row in rows:
        found.append(row)
        yield pd.DataFrame(found)


@contextmanager
def normalized_by(way: str) -> Iterator[None]:
    """With torch's kernels instead of ours, for that way."""
    ours = norm.prefers_triton
    if way == "norm of torch":
        norm.prefers_triton = lambda x: False
    try:
        yield
    finally:
        norm.prefers_triton = ours


def timed(
    unet: UNetConfig,
    size: tuple[int, ...],
    batch: int,
    device: torch.device,
    bfloat16: bool,
    compiled: bool,
) -> dict[str, float]:
    """A training step and a forward pass of a U-Net."""
    forward, step = steps_of(unet, size, batch, device, bfloat16, compiled)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    training = batch / seconds(step, device)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    with torch.no_grad():
        prediction = batch / seconds(forward, device)
    return {"trained images/s": training, "predicted images/s": prediction, "GiB": memory}


def steps_of(
    unet: UNetConfig,
    size: tuple[int, ...],
    batch: int,
    device: torch.device,
    bfloat16: bool,
    compiled: bool = False,
) -> tuple[Callable[[], torch.Tensor], Callable[[], None]]:
    """A forward pass and a training step of a fresh network, to be repeated."""
    network = UNet(unet).to(device, memory_format=channels_last(unet.spatial_dims))  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
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

    return forward, step


def profile(accelerator: str, cases: dict[str, Any]) -> pd.DataFrame:
    """Milliseconds of a training step by operation of torch, of each network and normalization."""
    device, rows = torch.device(accelerator), []
    cuda = accelerator == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    for name, way in itertools.product(cases, WAYS[:2]):
        dims, preset, size, batch = cases[name]
        network = Network(preset=preset)
        unet = resolve_network(network, spatial_dims=dims, in_channels=1, out_channels=1)
        with normalized_by(way):
            _, step = steps_of(unet, size, batch, device, bfloat16=True)
            for _ in range(3):
                step()
            with torch_profile(activities=kinds) as found:
                step()
                synchronize(device)
        row = {"network": name, "batch": batch, "bf16": True, "way": way}
        for each in found.key_averages():
            spent = each.self_device_time_total if cuda else each.self_cpu_time_total
            if each.key.startswith(("aten::", "_")) and spent > 0:
                rows.append(row | {"operation": each.key, "calls": each.count, "ms": spent / 1e3})
    table = pd.DataFrame(rows).sort_values("ms", ascending=False)
    return table.groupby(["network", "way"], sort=False).head(12)


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
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--hours", type=float, default=0.05, help="of each run whose plan is tried")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--small", action="store_true", help="to try the script: writes nothing")
    given = parser.parse_args()
    if given.accelerator == "cuda" and not torch.cuda.is_available():
        print("no card here: nothing was measured")
        return
    card = torch.cuda.get_device_name() if given.accelerator == "cuda" else "none"
    with tempfile.TemporaryDirectory() as folder:
        scratch, cases = given.work or Path(folder), SMALL if given.small else CASES
        make: dict[str, Callable[[], Iterable[pd.DataFrame]]] = {
            "speed": lambda: grown(speed(given.accelerator, cases)),
            "profile": lambda: [profile(given.accelerator, cases)],
            "plan": lambda: [plan(given.accelerator, given.hours, given.small, scratch)],
            "tests": lambda: [tests(given.accelerator, scratch)],
        }
        for part in given.parts:
            for table in make[part]():
                table = table.assign(card=card, torch=torch.__version__)
                if given.small:
                    print(table.to_string())
                else:
                    write_table(table, origin(COMMAND), f"gpu-{part}.csv")
            if part == "tests" and (failed := table["outcome"].isin(["failure", "error"])).any():
                raise SystemExit(
                    f"{int(failed.sum())} tests failed, see {RESULTS / 'gpu-tests.csv'}"
                )


if __name__ == "__main__":
    main()
