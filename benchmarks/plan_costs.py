"""What a plan promises against what its run took: ``python benchmarks/plan_costs.py``, ``results/plan-costs.csv``.

Six trainings as a user would start them, each with a few minutes in ``--hours``: films and volumes, from scratch, from
shipped weights, on an encoder of ImageNet, and pre-training. Time and memory as each run wrote them into ``cost.json``.
The clock is the wall's, so the machine, or the one core that ``--threads 1`` takes, has to be idle.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from results import origin, write_table

DATA = Path(__file__).parents[2] / "shared" / "data"
RUNS = {
    "lungs, from scratch": ("fit cxr-lungs --method scratch --labels 5", 0.06),
    "lungs, from films": (
        "fit cxr-lungs --method finetune --from films --size 256 --labels 5",
        0.08,
    ),
    "lungs, ImageNet encoder": ("fit cxr-lungs --method imagenet --labels 5", 0.06),
    "sarcoma, from scratch": ("fit ct-sarcoma --method scratch", 0.08),
    "films, denoising": ("pretrain cxr-classes --size 128", 0.1),
    "sarcoma, denoising": ("pretrain ct-sarcoma", 0.08),
}
LIMIT = 0.25
"""Largest relative error that is wanted."""


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=0, help="0: those of the machine")
    threads = parser.parse_args().threads
    rows = []
    for name, (line, hours) in RUNS.items():
        act, data, *flags = line.split()
        words = [act, str(DATA / data), *flags, "--hours", str(hours)]
        words += ["--machine.threads", str(threads)] if threads else []
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            subprocess.run(
                [sys.executable, "-m", "radiffuse", *words, "--out", str(run)], check=True
            )
            cost = json.loads((run / "cost.json").read_text())
            plan = json.loads((run / "plan.json").read_text())
        row: dict[str, object] = {"run": name, "hours": hours, "size": plan["size"]}
        for what in ("minutes", "memory_gib"):
            predicted, measured = cost["predicted"][what], cost["measured"][what]
            row |= {
                f"{what}_predicted": predicted,
                f"{what}_measured": measured,
                f"{what}_error": predicted / measured - 1,
            }
            if abs(predicted / measured - 1) > LIMIT:
                print(f"{name}: {what} {predicted} predicted, {measured} measured")
        rows.append(row | {"threads": threads or "all", "flags": line})
    command = "python benchmarks/plan_costs.py" + (f" --threads {threads}" if threads else "")
    write_table(pd.DataFrame(rows), origin(command), "plan-costs.csv")


if __name__ == "__main__":
    main()
