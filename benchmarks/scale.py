"""What many cases cost: ``python benchmarks/scale.py [--part NAME] [--again] [--trial]`` writes ``results/scale.csv``.

Parts: ``growth`` (10 to 10,000 films), ``sizes`` (films by side, volumes by side), ``processes`` (one against two
processes, threads against dask) and ``units`` (what the plan for whole collections is computed from). Every
measurement runs in a forked child, whose peak memory is its own; repetitions of all rows of a part are interleaved, so
that whatever else the machine does falls on all of them. Rows that are there are kept; ``--again`` measures anew.
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
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from results import RESULTS, origin
from scale_acts import PARTS

from radiffuse.files import write_atomic

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
    parser.add_argument("--again", action="store_true", help="measure rows that are there anew")
    parser.add_argument("--trial", action="store_true", help="one repetition, nothing is written")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for part in given.part or list(PARTS):
            found = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame()
            known = set() if given.again or found.empty else set(_keys(found))
            rows = [Row(part, *row) for row in PARTS[part](Path(work))]
            rows = [row for row in rows if row.key not in known]
            table = pd.DataFrame(measured(rows, Path(work), 1 if given.trial else REPETITIONS))
            if given.trial or table.empty:
                continue
            old = found[[key not in set(_keys(table)) for key in _keys(found)]]
            fresh = table.assign(**origin(f"python benchmarks/scale.py --part {part}"))
            merged = pd.concat([old, fresh]).sort_values(["part", "what", "side", "cases"])
            write_atomic(TABLE, merged.to_csv(index=False))


def _keys(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(
        zip(*(table[name] for name in ("part", "what", "cases", "side")), strict=True)
        if len(table)
        else []
    )


def measured(rows: list[Row], work: Path, repetitions: int) -> Iterator[dict[str, Any]]:
    """Median, range and peak memory of every row."""
    found: dict[tuple[str, str, int, int], list[tuple[float, float]]] = {}
    for repetition in range(repetitions):
        for row in rows:
            began = time.monotonic()
            value, peak = in_child(row.measure, work)
            found.setdefault(row.key, []).append((value, peak))
            spent = time.monotonic() - began
            print(
                f"{repetition} {row.key} {value:.6g} {row.unit} {peak:.0f} MiB {spent:.1f} s",
                flush=True,
            )
    for row in rows:
        values = [value for value, _ in found[row.key]]
        yield {
            "part": row.part,
            "what": row.what,
            "cases": row.cases,
            "side": row.side,
            "value": float(f"{statistics.median(values):.4g}"),
            "low": float(f"{min(values):.4g}"),
            "high": float(f"{max(values):.4g}"),
            "unit": row.unit,
            "repetitions": len(values),
            "peak_mib": round(statistics.median(peak for _, peak in found[row.key])),
            "load": round(os.getloadavg()[0], 1),
        }


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
