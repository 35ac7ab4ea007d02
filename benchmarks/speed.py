"""Speed and memory against MONAI and diffusers: ``python benchmarks/speed.py --part train2d-64 [...]``.

Writes ``results/speed.csv``. All sides of a comparison run in turn in one process, so that they see the same machine;
a ratio is taken within each turn, and its median, lowest and highest are reported. With one thread the clock is the
processor time of that thread, which other processes do not lengthen; with two it is the wall. Every turn is kept in
``--scratch`` as it ends: the same command goes on where it stopped, ``--fresh`` begins again. Pin the threads for
stable numbers: ``taskset -c 0 python benchmarks/speed.py --part all``.

Needs ``monai``, ``einops`` and ``diffusers``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import speed_data
import speed_machine
import speed_networks
from contest import Comparison, Contest
from results import RESULTS, hardware

from radiffuse.system.files import write_atomic

REPETITIONS = 5


def parts() -> dict[str, Callable[[Sequence[str]], Contest]]:
    """Every part, by name; each takes the names of the sides of earlier turns, if there were any."""
    return speed_machine.PARTS | speed_networks.PARTS | speed_data.PARTS


def run(name: str, make: Callable[[Sequence[str]], Contest], scratch: Path, fresh: bool) -> None:
    """Repeat what is not yet there, then write the rows."""
    import torch

    path = scratch / f"{name}.jsonl"
    scratch.mkdir(parents=True, exist_ok=True)
    if fresh:
        path.unlink(missing_ok=True)
    turns = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    torch.set_num_threads(1)
    contest = make(tuple(turns[0]) if turns else ())
    torch.set_num_threads(contest.threads)
    if not turns and contest.warm:
        for action in contest.actions.values():
            action()  # warm up
    while len(turns) < REPETITIONS:
        turn = {side: dict(action()) for side, action in contest.actions.items()}
        with path.open("a") as file:
            file.write(json.dumps(turn) + "\n")
        turns.append(turn)
        print(
            name,
            len(turns),
            {k: {n: round(x, 4) for n, x in v.items()} for k, v in turn.items()},
            flush=True,
        )
    contest.turns = {side: [turn[side] for turn in turns] for side in contest.actions}
    write(name, contest)


def write(name: str, contest: Contest) -> None:
    """Replace the rows of one part in ``results/speed.csv``."""
    rows = [dict(row(name, contest, comparison)) for comparison in contest.comparisons()]
    path = RESULTS / "speed.csv"
    table = pd.DataFrame(rows)
    if path.exists():
        old = pd.read_csv(path, dtype=str)
        table = pd.concat([old[old["part"] != name], table.astype(str)]).sort_values(
            "part", kind="stable"
        )
    write_atomic(path, table.to_csv(index=False))
    print(
        table[table["part"] == name][
            ["what", "ours", "rival", "ratio", "low", "high", "target"]
        ].to_string()
    )


def row(name: str, contest: Contest, it: Comparison) -> Iterator[tuple[str, object]]:
    """One row, column by column."""
    ours = [turn[it.measure] for turn in contest.turns[it.ours]]
    theirs = [turn[it.measure] for turn in contest.turns[it.rival]] if it.rival else []
    memory = it.unit == "MiB"
    ratios = [a / b if memory else b / a for a, b in zip(ours, theirs, strict=False)]

    def shown(values: list[float]) -> str:
        if not values:
            return ""
        middle = statistics.median(values)
        return f"{it.scale / middle if it.scale else middle:.4g}"

    yield "part", name
    yield "what", it.what
    yield "unit", it.unit
    yield "side", it.ours
    yield "ours", shown(ours)
    yield "rival", it.rival
    yield "theirs", shown(theirs)
    middle = statistics.median(ratios) if ratios else None
    yield "ratio", f"{middle:.2f}" if middle is not None else ""
    yield "low", f"{min(ratios):.2f}" if ratios else ""
    yield "high", f"{max(ratios):.2f}" if ratios else ""
    yield "target", (f"{'<=' if memory else '>='} {it.target:g}" if it.target else "")
    reached = (
        None
        if middle is None or not it.target
        else (middle <= it.target) == memory or middle == it.target
    )
    yield "reached", {None: "", True: "yes", False: "no"}[reached]
    yield "repetitions", len(ours)
    yield "threads", contest.threads
    usual = "processor" if contest.threads == 1 else "wall"
    yield "clock", "" if memory else contest.clock or usual
    yield "note", contest.note
    yield "hardware", hardware().replace(", float32", "")
    yield "date", time.strftime("%Y-%m-%d")
    yield "command", f"python benchmarks/speed.py --part {name}"


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", default="all", help="one or several, with commas, or all")
    parser.add_argument("--scratch", type=Path, default=Path.home() / ".cache/radiffuse/speed")
    parser.add_argument("--fresh", action="store_true", help="forget the turns of these parts")
    given = parser.parse_args()
    known = parts()
    chosen = list(known) if given.part == "all" else given.part.split(",")
    if unknown := [name for name in chosen if name not in known]:
        raise SystemExit(f"no part {', '.join(unknown)}: choose from {', '.join(known)}")
    for name in chosen:
        run(name, known[name], given.scratch, given.fresh)


if __name__ == "__main__":
    main()
