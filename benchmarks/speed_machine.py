"""Parts of ``speed.py``: what the machine can do at most, and how fast the commands answer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from contest import Action, Comparison, Contest, timed

WEIGHTS = Path(__file__).parents[1] / "src/radiffuse/train/weights/films-64"


def machine(known: Sequence[str] = ()) -> Contest:
    """Bytes per second of a copy, operations per second of a matrix product and of a convolution."""
    source = torch.zeros(2**26)
    target = torch.zeros_like(source)
    actions: dict[str, Action] = {"copy": lambda: timed(lambda: target.copy_(source))}
    rows = [
        Comparison("copy, read and written", "copy", "", unit="GB/s", scale=2 * source.nbytes / 1e9)
    ]
    size = 1536
    for kind in (torch.float32, torch.bfloat16):
        a = torch.randn(size, size).to(kind)
        name = f"matrix product, {str(kind).removeprefix('torch.')}"
        actions[name] = lambda a=a: timed(lambda: a @ a)  # type: ignore[misc]
        rows.append(Comparison(name, name, "", unit="GFLOP/s", scale=2 * size**3 / 1e9))
    for kind in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 128, 64, 64).to(kind).to(memory_format=torch.channels_last)
        layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(kind)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        name = f"3x3 convolution of 128 channels, {str(kind).removeprefix('torch.')}"
        actions[name] = lambda x=x, layer=layer: timed(lambda: layer(x).detach())  # type: ignore[misc]
        rows.append(Comparison(name, name, "", unit="GFLOP/s", scale=2 * 9 * 128 * x.numel() / 1e9))
    return Contest(actions, lambda: rows)


def commands(known: Sequence[str] = ()) -> Contest:
    """How long a person waits for the small commands."""

    def wait(*words: str) -> Callable[[], Mapping[str, float]]:
        def once() -> Mapping[str, float]:
            began = time.perf_counter()
            command = [sys.executable, "-m", "radiffuse", *words]
            subprocess.run(command, check=True, capture_output=True)
            return {"seconds": time.perf_counter() - began}

        return once

    actions: dict[str, Action] = {
        "radiffuse --help": wait("--help"),
        "radiffuse info RUN": wait("info", str(WEIGHTS)),
    }
    limits = {"radiffuse --help": 0.3, "radiffuse info RUN": 1.0}
    return Contest(
        actions,
        lambda: [Comparison(f"{name} (limit {limits[name]} s)", name, "") for name in actions],
        note="the whole process",
        clock="wall",
    )


PARTS = {"machine": machine, "commands": commands}
