"""``radiffuse judge``: fidelity of synthetic images, and the search for copies among them."""

from __future__ import annotations

import sys
from pathlib import Path

from ..config import Judge
from ..data.arrays import write_arrays
from ..errors import printable
from ..reports.judge import write_judge_report
from ..synthesis.judging import Judgment, judge_images
from ..system.cells import csv_text
from ..system.files import refuse_foreign, write_atomic, write_json
from ..system.leftovers import sweep

TABLES = ("fidelity", "nearest", "real", "summary")
"""Of a judgment; each has a file."""


def judge(settings: Judge) -> Judgment:
    """Judge a set of synthetic images against real ones.

    With ``out``: ``fidelity.csv``; ``nearest.csv``, ``real.csv``, ``summary.csv`` and ``pairs.npz`` of the search for
    copies; ``judge.json`` and ``report.html``.

    Raises:
        InputError: Images or a network that cannot be used, or too few images; or the network is the one that the
            generator was conditioned on, and copies are looked for.
    """
    verify_out(settings)
    judgment = judge_images(settings)
    _print(judgment)
    if settings.out is not None:
        out = Path(settings.out)
        _write(judgment, out)
        print(f"report: {write_judge_report(out)}")
    return judgment


def verify_out(settings: Judge) -> None:
    """Refuse a folder that holds anything but a judgment."""
    if settings.out is not None:
        refuse_foreign(Path(settings.out), "judge.json", *(f"{name}.csv" for name in TABLES))


def _write(judgment: Judgment, out: Path) -> None:
    import pandas as pd

    sweep(out)
    for name in (*(f"{table}.csv" for table in TABLES), "pairs.npz"):
        (out / name).unlink(missing_ok=True)  # of a judgment before this one
    for name, rows in judgment.tables.items():
        write_atomic(out / f"{name}.csv", csv_text(pd.DataFrame(rows)))
    if judgment.pairs:
        write_arrays(out / "pairs.npz", judgment.pairs)
    facts = {
        "network": judgment.network,
        "warnings": judgment.warnings,
        "fidelity": "fidelity" in judgment.tables,
        "copies": judgment.copies,
    }
    write_json(out / "judge.json", facts)


def _print(judgment: Judgment) -> None:
    lines = [f"features: {judgment.network}"]
    measured = judgment.tables.get("fidelity", [])
    for row in measured[:1]:
        lines.append(
            f"{row['real']} real images of {row['patients']} patients, {row['synthetic']} synthetic"
        )
    for row in measured:
        line = f"{row['part']:<12} {row['measure']:<9} {row['value']:9.4f}"
        line += f"  ({row['low']:.4f} to {row['high']:.4f})"
        if "uncorrected" in row:
            line += f"  uncorrected {row['uncorrected']:.4f}"
        if "floor" in row:
            line += f"  at {row['floor_size']} images: {row['at_floor_size']:.4f}"
            line += f", real to real {row['floor']:.4f}"
        lines.append(line)
    if copies := judgment.copies:
        lines.append(
            f"suspected below a distance of {copies['threshold']:.3f}, as are {100 - copies['percentile']:g} % of real "
            "images of other patients"
        )
    for row in judgment.tables.get("summary", []):
        lines.append(
            f"{row['strategy']:<12} {row['images']:>6} images  suspected {row['suspected']:.1%}"
            f"  ({row['low']:.1%} to {row['high']:.1%})  smallest distance {row['smallest']:.3f}"
        )
    print("\n".join(map(printable, lines)))
    for warning in judgment.warnings:
        print(f"warning: {warning}", file=sys.stderr)
