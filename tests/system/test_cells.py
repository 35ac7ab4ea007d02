"""Cells that a spreadsheet would run are written as text, and read back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiffuse.system.cells import csv_text, read_cell, read_csv, written_cell

HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "''@x"]
HARMLESS = ["", "case 1", "a=b", "'quoted'", "-1", "+1.5e3", "-inf", "o'hara", "\N{MINUS SIGN}1"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_formula_is_written_as_text(text: str) -> None:
    assert written_cell(text) == f"'{text}"
    assert read_cell(written_cell(text)) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_and_numbers_stay(text: str) -> None:
    assert written_cell(text) == text
    assert read_cell(text) == text


def test_a_table_comes_back_and_its_numbers_stay_numbers(tmp_path: Path) -> None:
    names = [name for name in HOSTILE + HARMLESS if name]
    table = pd.DataFrame({"case": names, "=dice": -np.arange(len(names)) / 4, "n": -1})
    (tmp_path / "a.csv").write_text(csv_text(table), newline="")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv", {"case": str}), table)
    with (tmp_path / "a.csv").open(newline="") as file:  # as a spreadsheet sees it
        rows = list(csv.reader(file))
    for cell in (cell for row in rows for cell in row):
        try:
            float(cell)
        except ValueError:
            assert cell[:1] not in "=+-@\t\r\n"
    assert [row[2] for row in rows[1:]] == ["-1"] * len(names)
