"""The Dice to expect of masks, from scores of cases that the networks had not seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import radiffuse
from radiffuse.data.plan import Plan
from radiffuse.data.readers import write_image
from radiffuse.data.scan import Scan
from radiffuse.evaluation.quality import conformal
from radiffuse.inference import predictor
from radiffuse.inference.expecting import Calibration, in_words, kept, new_scans_in_words, table_of
from radiffuse.viewer.scans import Item, Scans, mask_layers
from tiny_runs import finished_run

MACHINE = {"accelerator": "cpu", "precision": "32-true"}


def scores(rows: list[tuple[str, str, str, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["case", "group", "class", "dice", "expected"])


def test_one_case_of_each_patient_counts_and_classes_have_their_own() -> None:
    table = scores(
        [
            ("1", "p", "a", 0.89, 0.94),  # loss .11 + .01 over .06 + .01
            ("2", "p", "a", 0.10, 0.94),  # the same patient
            ("3", "q", "a", 0.79, 0.94),
            ("3", "q", "b", 0.59, 0.90),
            ("4", "r", "b", np.nan, 0.90),  # not in the truth
        ]
    )
    found = Calibration.of(table).strains
    assert found["a"] == pytest.approx(np.log([0.12 / 0.07, 0.22 / 0.07]))
    assert found["b"] == pytest.approx(np.log([0.42 / 0.11]))
    assert found["all"] == pytest.approx(np.log([0.12 / 0.07, 0.32 / 0.09]))
    expected = Calibration.of(table)([0.94, np.nan], ("background", "a", "b"))
    assert set(expected) == {"all", "a"}
    low, high, level = conformal(found["a"])
    assert expected["a"]["low"] == pytest.approx(max(0, 1.01 - 0.07 * np.exp(high)), abs=1e-4)
    assert expected["a"]["high"] == pytest.approx(min(1, 1.01 - 0.07 * np.exp(low)), abs=1e-4)
    assert (
        expected["a"]["level"] == pytest.approx(level, abs=1e-4) == pytest.approx(2 / 3, abs=1e-4)
    )


def test_an_organ_that_a_mask_lacks_is_taken_for_missed_unless_patients_lack_it_too() -> None:
    """Left out of the mean, masks that miss organs would be expected to be as good as those that show all."""
    rows = []
    for patient in "pqr":
        rows += [(patient, patient, "liver", 0.8, 0.9), (patient, patient, "duct", 0.0, np.nan)]
        rows += [(patient, patient, "stone", np.nan, np.nan)]
    calibration = Calibration.of(scores(rows))
    assert calibration.missed == {"liver", "duct"}
    assert calibration.strains["all"] == pytest.approx([np.log(0.61 / 0.56)] * 3)  # .4, and .45
    classes = ("background", "liver", "duct", "stone")
    assert calibration([0.9, np.nan, np.nan], classes)["all"]["dice"] == pytest.approx(0.4)
    assert calibration([0.9, np.nan, np.nan], classes).keys() == {"all", "liver"}
    assert calibration([np.nan] * 3, classes)["all"]["dice"] < 0.01


def test_masks_are_listed_by_what_is_expected_the_lowest_first() -> None:
    entries = [
        {
            "case": name,
            "expected": {"all": {"dice": d, "low": d - 0.1, "high": 1.0, "level": 5 / 6}},
        }
        for name, d in (("x", 0.9), ("y", 0.7), ("z", 0.8))
    ]
    lines = table_of([*entries, {"case": "old"}])
    assert "of 3 masks: 0.800 in the mean; each interval holds 83%" in lines[0]
    assert [line.split()[-1] for line in lines[1:]] == ["y", "z", "x"]
    assert table_of([{"case": "old"}]) == []
    assert in_words({}) == ""


def test_of_a_new_scan_the_dice_of_unseen_patients_is_expected() -> None:
    """Losses .1 and .2 of two patients: with .01 more, the geometric mean is .152."""
    rows = [
        ("1", "p", "x", 0.9, 0),
        ("2", "p", "x", 0.1, 0),
        ("3", "q", "x", 0.7, 0),
        ("3", "q", "y", 0.9, 0),
    ]
    line = new_scans_in_words(scores(rows))
    low, high, _ = conformal(np.log([0.11, 0.21]))
    assert "these 2 patients: 0.858" in line  # 1.01 - sqrt(.11 * .21)
    assert f"and {1.01 - np.exp(high):.3f} to {1.01 - np.exp(low):.3f} in 67% of scans" in line
    assert new_scans_in_words(scores(rows[:2])) == ""


def test_promises_are_counted_against_the_truth() -> None:
    one = {"dice": 0.9, "low": 0.8, "high": 0.95, "level": 0.9}
    entries = {name: {"case": name, "expected": {"all": one}} for name in "abc"}
    truth = scores([("a", "a", "x", 0.85, 0), ("a", "a", "y", 0.95, 0), ("b", "b", "x", 0.7, 0)])
    line = kept({**entries, "d": {"case": "d"}}, truth)
    assert "held the Dice of 1 of 2 masks (50%, 90% were promised)" in line
    assert "expected 0.900 in the mean, found 0.800" in line
    assert kept({"a": {"case": "a"}}, truth) == ""


def test_nothing_is_worked_out_that_nobody_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without scores expects nothing, and reads its probabilities no second time."""
    monkeypatch.setattr(predictor, "expected_dice", lambda mean: pytest.fail("was asked"))
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    run = finished_run(tmp_path / "run", plan, seed=5)
    (tmp_path / "films").mkdir()
    film = np.zeros((1, 16, 16), np.uint8)
    write_image(tmp_path / "films/one.png", film[0], Scan(film))
    radiffuse.predict(runs=(run,), data=tmp_path / "films", machine=MACHINE, out=tmp_path / "masks")


def test_predict_writes_and_shows_what_is_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the record of the masks, on screen and in the viewer; not for settings that were not scored."""
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    run = finished_run(tmp_path / "run", plan, seed=5)
    (run / "validation").mkdir()
    rows = [(str(i), str(i), "a", 0.8 + 0.01 * i, 0.9) for i in range(9)]
    scores(rows).to_csv(run / "validation/cases.csv", index=False)
    film = np.random.default_rng(0).integers(0, 255, (1, 16, 16)).astype(np.uint8)
    (tmp_path / "films").mkdir()
    write_image(tmp_path / "films/one.png", film[0], Scan(film))
    common = {"runs": (run,), "data": tmp_path / "films", "machine": MACHINE}
    out = radiffuse.predict(**common, out=tmp_path / "masks")
    entry = json.loads((out / "masks.jsonl").read_text())
    one = entry["expected"]["a"]
    assert 0 <= one["low"] <= one["dice"] <= one["high"] <= 1
    assert one["level"] == 0.9
    printed = capsys.readouterr().out
    assert f"{one['dice']:.3f}  ({one['low']:.3f} to {one['high']:.3f})  one" in printed
    radiffuse.predict(**common, out=tmp_path / "masks")
    assert capsys.readouterr().out == printed

    from radiffuse.data.layouts import open_dataset
    from radiffuse.inference.records import Record

    case = open_dataset(tmp_path / "films").cases[0]
    layer = mask_layers(out, Item("0", case), Scans(), Record.read(out))[0]
    assert layer.note.startswith(f"expected Dice {one['dice']:.3f} (")

    other = radiffuse.predict(**common, out=tmp_path / "scaled", tta=("scale",))
    assert "expected" not in json.loads((other / "masks.jsonl").read_text())
    assert capsys.readouterr().out == ""
