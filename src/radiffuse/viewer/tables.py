"""CSV files as tables of text for the page."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system.cells import read_cell

ROWS = 500
"""Most rows of a table."""


def shown_table(path: Path) -> dict[str, Any]:
    """The first ``ROWS`` rows of a CSV file, as text.

    Raises:
        InputError: It is no CSV file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            read = itertools.islice(csv.reader(file), ROWS + 2)
            rows = [list(map(read_cell, row)) for row in read]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", "Restore the file") from None
    return {
        "columns": rows[0] if rows else [],
        "rows": rows[1 : ROWS + 1],
        "cut": len(rows) > ROWS + 1,
    }


def mean_scores(path: Path) -> dict[str, Any]:
    """The means of a table of scores, with intervals, as ``evaluate`` gives them.

    Raises:
        InputError: It is no such table.
    """
    from ..evaluation.tables import METRICS, read_scores, summarize

    try:
        table = read_scores(path)
        metrics = [metric for metric in METRICS if metric in table]
        summary = summarize(table, metrics=metrics)
    except (ValueError, KeyError, OSError) as error:
        raise InputError(path, f"cannot be read ({error})", "Restore the file") from None
    columns = ["class", "metric", "mean", "low", "high", "n"]
    rows = [
        [f"{row[k]:.4f}" if k in ("mean", "low", "high") else str(row[k]) for k in columns]
        for row in summary.to_dict("records")
    ]
    return {"columns": columns, "rows": rows[:ROWS], "cut": len(rows) > ROWS}
