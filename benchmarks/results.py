"""How the scripts of this folder write to ``results/``: tables with their origin, and claims."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from radiffuse.system.files import write_atomic

RESULTS = Path(__file__).parents[1] / "results"


def hardware() -> str:
    """Processor and cores, in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{os.cpu_count()} cores, {model}, float32"


def origin(command: str) -> dict[str, str]:
    """Columns that say where a table comes from."""
    return {"command": command, "date": date.today().isoformat(), "hardware": hardware()}


def write_table(table: pd.DataFrame, origin: Mapping[str, str], name: str) -> None:
    """Write a table to ``results/``, rounded, with its origin in every row."""
    small = {
        column: table[column].map("{:.2g}".format, na_action="ignore")
        for column in ("p_value", "p_holm")
        if column in table
    }
    write_atomic(RESULTS / name, table.round(4).assign(**small, **dict(origin)).to_csv(index=False))
    print(RESULTS / name)


def fill_claim(claim: str, values: Mapping[str, str]) -> None:
    """Put what became of a claim into its row of ``results/claims.csv``."""
    claims = pd.read_csv(RESULTS / "claims.csv", dtype=str)
    row = claims["id"] == claim
    if not row.any():
        raise SystemExit(f"{claim} is no claim of results/claims.csv")
    for column, value in values.items():
        claims.loc[row, column] = value
    write_atomic(RESULTS / "claims.csv", claims.to_csv(index=False))


def overall(verdicts: Sequence[str]) -> str:
    """One word for several comparisons: it holds or fails only where all agree."""
    return verdicts[0] if len(set(verdicts)) == 1 else "not decided"
