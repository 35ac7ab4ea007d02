"""What many cases cost: ``python benchmarks/scale.py [--part NAME] [--again] [--trial]`` writes ``results/scale.csv``.

Parts: ``growth`` (10 to 10,000 films), ``sizes`` (films by side, volumes by side), ``processes`` (one against two
processes, threads against dask) and ``units`` (what the plan for whole collections is computed from). Every
measurement runs in a forked child, whose peak memory is its own; repetitions of all rows of a part are interleaved, so
that whatever else the machine does falls on all of them. An interrupted part goes on where it was; ``--again`` begins
anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from results import RESULTS, origin
from scale_acts import PARTS

from radiffuse.system.files import write_atomic

TABLE = RESULTS / "scale.csv"
REPETITIONS = 5


@dataclass(frozen=True)
class Row:
    """One thing that is measured.

    Attributes:
        part: Part of the benchmark.
        what: What is done.
        cases: How many cases the set has.
        side: Pixels or voxels along an axis.
        unit: Of ``value``.
        measure: Called in a child with a fresh folder; returns the value.
    """

    part: str
    what: str
    cases: int
    side: int
    unit: str
    measure: Callable[[Path], float]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What tells rows apart."""
        return self.part, self.what, self.cases, self.side


def main() -> None:
    """Measure and write, one part after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=sorted(PARTS), action="append")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--trial", action="store_true", help="one repetition, nothing is kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for part in given.part or list(PARTS):
            if given.again:
                _raw(part).unlink(missing_ok=True)
            rows = [Row(part, *row) for row in PARTS[part](Path(work))]
            if given.trial:
                for row in rows:
                    tell(row, in_child(row.measure, Path(work)))
                continue
            measure(part, rows, Path(work))
            write(part, rows)


def measure(part: str, rows: list[Row], work: Path) -> None:
    """Repeat every row; what an interrupted run has measured is not measured again."""
    raw = _raw(part)
    raw.parent.mkdir(exist_ok=True)
    done = {(entry["row"], entry["repetition"]) for entry in _entries(raw)}
    for repetition in range(REPETITIONS):
        for row in rows:
            if (row.key, repetition) in done:
                continue
            value, peak = in_child(row.measure, work)
            tell(row, (value, peak))
            entry = {"row": row.key, "repetition": repetition, "value": value, "peak": peak}
            entry |= {"load": os.getloadavg()[0]} | origin(
                f"python benchmarks/scale.py --part {part}"
            )
            with raw.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def tell(row: Row, found: tuple[float, float]) -> None:
    """One line about a measurement."""
    print(f"{row.key} {found[0]:.4g} {row.unit}, {found[1]:.0f} MiB", flush=True)


def write(part: str, rows: list[Row]) -> None:
    """Replace the rows of a part in the table."""
    table = pd.DataFrame([summary(row, _entries(_raw(part))) for row in rows])
    if TABLE.exists():
        old = pd.read_csv(TABLE)
        table = pd.concat([old[old["part"] != part], table])
    order = table["part"].map(list(PARTS).index)
    table = table.assign(order=order).sort_values(["order", "what", "side", "cases"], kind="stable")
    write_atomic(TABLE, table.drop(columns="order").to_csv(index=False))
    print(TABLE)


def summary(row: Row, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, range and peak memory of a row."""
    own = [entry for entry in entries if entry["row"] == row.key]
    values = [entry["value"] for entry in own]
    return {
        "part": row.part,
        "what": row.what,
        "cases": row.cases,
        "side": row.side,
        "value": float(f"{statistics.median(values):.4g}"),
        "low": float(f"{min(values):.4g}"),
        "high": float(f"{max(values):.4g}"),
        "unit": row.unit,
        "repetitions": len(values),
        "peak_mib": round(statistics.median(entry["peak"] for entry in own)),
        "load": round(statistics.median(entry["load"] for entry in own), 1),
        **{name: own[-1][name] for name in ("command", "date", "hardware")},
    }


def _raw(part: str) -> Path:
    """Every repetition, beside the repository's other products."""
    return RESULTS.parent / "build" / f"scale-{part}.jsonl"


def _entries(raw: Path) -> list[dict[str, Any]]:
    lines = raw.read_text().splitlines() if raw.exists() else []
    return [(entry := json.loads(line)) | {"row": tuple(entry["row"])} for line in lines]


def in_child(measure: Callable[[Path], float], work: Path) -> tuple[float, float]:
    """The value, and the highest resident memory of the process that measured it, in MiB."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            folder = Path(tempfile.mkdtemp(dir=work))
            with Path(os.devnull).open("w") as quiet:
                os.dup2(quiet.fileno(), 2) if not os.environ.get("SCALE_LOUD") else None
            value = measure(folder)
            shutil.rmtree(folder)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            os.write(write, json.dumps([value, peak]).encode())
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"{getattr(measure, '__name__', measure)} failed")
    value, peak = json.loads(text)
    return float(value), float(peak)


if __name__ == "__main__":
    main()
