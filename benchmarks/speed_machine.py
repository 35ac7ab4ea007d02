"""Parts of ``speed.py``: what the machine can do at most, and how fast the commands answer."""

from __future__ import annotations

import atexit
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from contest import Action, Comparison, Contest, timed


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


def cold(known: Sequence[str] = ()) -> Contest:
    """How long a person waits for a process that begins anew: the small commands, a segmenter, one film to its mask."""
    folder = Path(tempfile.mkdtemp(prefix="cold-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    films, run = folder / "films", folder / "run"
    program = [sys.executable, "-m", "radiffuse"]
    quiet = {"check": True, "capture_output": True}
    anatomy = ["anatomy", "chest", "--count"]
    fit = ["fit", str(films), "--method", "finetune", "--from", "films-64", "--steps", "2"]
    for words in (
        [*anatomy, "8", "--size", "64,64", "--out", str(films)],
        [*anatomy, "1", "--size", "512,512", "--out", str(folder / "one")],
        [*fit, "--batch-size", "2", "--out", str(run), "--reader.cache", str(folder / "cache")],
    ):
        subprocess.run([*program, *words], **quiet)  # type: ignore[call-overload]
    film, masks = next((folder / "one" / "images").iterdir()), folder / "masks"

    def wait(command: Sequence[str]) -> Mapping[str, float]:
        shutil.rmtree(masks, ignore_errors=True)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, **quiet)  # type: ignore[call-overload]
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"seconds": wall, "processor": used}

    load = f"from radiffuse import Segmenter; Segmenter.load({str(run)!r})"
    commands = {
        "radiffuse --help": [*program, "--help"],
        "radiffuse info RUN": [*program, "info", str(run)],
        "Segmenter.load(RUN)": [sys.executable, "-c", load],
        "radiffuse predict RUN FILM": [
            *program,
            "predict",
            str(run),
            str(film),
            "--out",
            str(masks),
        ],
    }
    clocks = {"seconds": "wall", "processor": "processor time"}
    return Contest(
        {name: partial(wait, command) for name, command in commands.items()},
        lambda: [
            Comparison(f"{name}, {clock}", name, "", measure)
            for name in commands
            for measure, clock in clocks.items()
        ],
        note="a new process from start to end; files in the page cache; a film of 512 x 512 px, a run on films-64",
        clock="as stated",
    )


PARTS = {"machine": machine, "cold": cold}
