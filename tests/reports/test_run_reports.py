"""Reports of runs, evaluations and studies: every part optional, damage named, tables correct."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radiffuse.data.plan import Plan
from radiffuse.errors import InputError, RunError
from radiffuse.reports.run import (
    format_duration,
    write_evaluation_report,
    write_run_report,
)
from radiffuse.reports.study import COLUMNS, compare, write_study_report
from radiffuse.train.run import Run

drawn = pytest.mark.usefixtures("drawn")  # the others read words and tables


def write_log(folder: Path) -> None:
    lines = [
        json.dumps({"step": s, "loss": 1 / s, "images_per_second": 20.0, "seconds": s * 10.0})
        for s in range(1, 20)
    ]
    lines.append(json.dumps({"step": 19, "validation": {"dice": 0.8125}}))
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")


def write_cases(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    table = pd.DataFrame(
        [
            (f"film {i}", c, 0.5 + i / 20, 0.5, 3.0, 0.9, True)
            for i in range(7)
            for c in ("lung", "heart")
        ],
        columns=["case", "class", "dice", "iou", "hd95", "nsd", "counted"],
    )
    table.assign(unit="mm").to_csv(folder / "cases.csv", index=False)
    masks = np.zeros((7, 16, 16), np.uint8)
    masks[:, 4:10, 4:10] = 1
    np.savez(
        folder / "overlays.npz",
        image=masks * 200, truth=masks, prediction=masks,
        names=np.array([f"film {i}" for i in range(7)]),
    )  # fmt: skip


@drawn
def test_hostile_names_stay_text_in_a_run(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    write_log(tmp_path)
    write_cases(tmp_path / "validation")
    table = pd.read_csv(tmp_path / "validation" / "cases.csv")
    table["case"] = table["class"] = hostile
    table.to_csv(tmp_path / "validation" / "cases.csv", index=False)
    (tmp_path / "config.yaml").write_text(f"command: '{hostile}'\n")
    data = {"root": hostile, "layout": hostile, "cases": 1, "classes": [hostile]}
    (tmp_path / "data.json").write_text(json.dumps(data))
    page = write_run_report(tmp_path).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


@drawn
def test_full_run(tmp_path: Path) -> None:
    write_log(tmp_path)
    write_cases(tmp_path / "validation")
    (tmp_path / "config.yaml").write_text("command: finetune\nlabels: 5\n")
    (tmp_path / "plan.json").write_text(Plan(2, ("film",), ("a", "b"), (64, 64)).to_json())
    data = {
        "root": "films", "layout": "pairs", "cases": 59, "patients": 45,
        "split": {"train": ["a", "b"]},
        "skipped": [{"file": "<b>.png", "problem": "zero bytes"}],
    }  # fmt: skip
    (tmp_path / "data.json").write_text(json.dumps(data))
    np.save(tmp_path / "samples.npy", np.zeros((3, 8, 8), np.uint8))
    path = write_run_report(tmp_path)
    assert path == tmp_path / "report.html"
    page = path.read_text()
    for part in ("Validation", "Samples", "Training", "Data", "Settings"):
        assert f">{part}</h2>" in page
    for text in (
        "0.812",
        "3 min 10 s",
        "film 6",
        "film 0",
        "film 3",
        "&lt;b&gt;.png",
        "labels: 5",
        "worst",
    ):
        assert text in page, text
    assert "film 2" not in page


@drawn
def test_an_automatic_run_shows_the_curves_of_what_it_trained(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("command: fit\n")
    chosen = {"decisions": ["chosen: imagenet"], "seconds": 576.0, "hours": 0.1}
    (tmp_path / "choice.json").write_text(json.dumps(chosen))
    (tmp_path / "data.json").write_text(json.dumps({"patients": 5, "patients_named": False}))
    page = write_run_report(tmp_path).read_text()
    assert ">Training</h2>" not in page
    (tmp_path / "members" / "imagenet").mkdir(parents=True)
    write_log(tmp_path / "members" / "imagenet")
    page = write_run_report(tmp_path).read_text()
    assert ">Training</h2>" in page
    for text in ("imagenet, trained on all labels", "9.6 of 6.0 min", "Chosen: imagenet."):
        assert text in page
    assert page.count("each file counts as one") == 1  # under Data, not in a tile


@drawn
def test_a_choice_lists_the_most_uncertain_structures_first(tmp_path: Path) -> None:
    write_cases(tmp_path / "validation")
    title = ">Where it is uncertain</h2>"
    assert title not in write_run_report(tmp_path).read_text()
    path = tmp_path / "validation" / "cases.csv"
    table = pd.read_csv(path)
    expected = [0.9 - i / 100 for i in range(len(table))]
    table.assign(expected=[*expected[:-1], np.nan]).to_csv(path, index=False)  # no such class found
    page = write_run_report(tmp_path).read_text().partition(title)[2]
    assert "13 of 13 structures" in page
    places = [page.index(f"<td>film {i}</td>") for i in (6, 5, 0)]
    assert places == sorted(places)


@pytest.mark.parametrize("part", ["log", "config", "data", "validation"])
def test_a_run_may_hold_any_one_part(tmp_path: Path, part: str) -> None:
    if part == "log":
        write_log(tmp_path)
    elif part == "config":
        (tmp_path / "config.yaml").write_text("steps: 3\n")
    elif part == "data":
        (tmp_path / "data.json").write_text('{"cases": ["a"], "skipped": ["x.png: empty"]}')
    else:
        write_cases(tmp_path / "validation")
    assert write_run_report(tmp_path).stat().st_size > 1000


@drawn
def test_samples_as_files(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("command: pretrain\n")
    (tmp_path / "samples").mkdir()
    for i, mode in enumerate(("L", "RGB", "I;16", "1", "P")):
        Image.new(mode, (4, 4)).save(tmp_path / "samples" / f"{i}.png")
    assert write_run_report(tmp_path).read_text().count("data:image/png") == 5


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        write_run_report(tmp_path / "missing")
    with pytest.raises(RunError, match="nothing of a run"):
        write_run_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"a: [1"),
        ("config.yaml", b"- 1\n- 2\n"),
        ("data.json", b"{"),
        ("data.json", b"[1]"),
        ("log.jsonl", b'{"step": 1\n{"step": 2, "loss": 1}\n'),
        ("samples.npy", b"junk"),
        ("samples/1.png", b"junk"),
        ("validation/cases.csv", b"case,class\na,b\n"),
        ("validation/cases.csv", b""),
        ("validation/overlays.npz", b"junk"),
        ("validation/overlays.npz", b"PK\x03\x04junk"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "config.yaml").write_text("steps: 1\n")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        write_run_report(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("steps: 1\n")
    np.save(tmp_path / "samples.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"samples\.npy"):
        write_run_report(tmp_path)


def test_a_log_cut_short_by_a_kill_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n\n{"step": 2, "loss": 0.5}\n{"step": 3, "lo')
    assert [row["step"] for row in Run(tmp_path).log()] == [1, 2]
    assert Run(tmp_path / "absent").log() == []


@drawn
def test_evaluation_lists_the_lowest_cases_first(tmp_path: Path) -> None:
    write_cases(tmp_path)
    page = write_evaluation_report(tmp_path).read_text()
    rows = page[page.rindex("<tbody>") :]
    assert rows.index("film 0") < rows.index("film 1") < rows.index("film 6")
    assert "HD95, mm" in page


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(4.2, "4 s"), (75, "1 min 15 s"), (3600, "1 h 0 min"), (4680.0, "1 h 18 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def results(gain: dict[int, float], cases: int = 12, draws: int = 2) -> pd.DataFrame:
    """A study in which finetune is above scratch by the gain of each budget."""
    generator = np.random.default_rng(0)
    rows = []
    for labels, more in gain.items():
        for draw in range(draws):
            for case in range(cases):
                base = generator.uniform(0.5, 0.7)
                for method, value in (("scratch", base), ("finetune", base + more)):
                    value += generator.normal(0, 0.001)
                    scores = (value, value / 2, 5.0, value)
                    rows.append((method, labels, draw, f"c{case}", f"p{case}", "lung", *scores))
    return pd.DataFrame(rows, columns=COLUMNS)


@drawn
def test_study_finds_the_gains_that_were_put_in(tmp_path: Path) -> None:
    results({1: 0.1, 5: 0.02, 10: -0.05}).to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "study.yaml").write_text("reference: scratch\n")
    page = write_study_report(tmp_path).read_text()
    assert "With 1 label, finetune is 0.100 Dice above scratch" in page
    table = pd.read_csv(tmp_path / "comparisons.csv")
    dice = table[table["metric"] == "dice"].set_index("labels")
    assert dice["verdict"].to_dict() == {1: "better", 5: "better", 10: "worse"}
    assert dice.loc[1, "difference"] == pytest.approx(0.1, abs=2e-3)
    assert dice.loc[1, "low"] < 0.1 < dice.loc[1, "high"]
    assert (dice["p_holm"] >= dice["p_value"]).all()
    assert (dice["n"] == 12).all()
    gap = pd.read_csv(tmp_path / "gaps.csv").set_index("metric").loc["dice"]
    assert gap["difference"] == pytest.approx(0.15, abs=2e-3)
    assert gap["verdict"] == "better"
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert set(summary["metric"]) == {"dice", "iou", "hd95", "nsd"}
    assert {"method", "labels", "class", "mean", "low", "high", "n"} <= set(summary)


@drawn
def test_a_study_leaves_its_figure_and_tables_for_papers(tmp_path: Path) -> None:
    table = results({1: 0.1, 5: 0.02}).replace({"method": {"finetune": "fine_tune&50%"}})
    table.to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "study.yaml").write_text("reference: scratch\ntolerance: 2.0\n")
    run = tmp_path / "runs" / "scratch-1-0"
    run.mkdir(parents=True)
    settings = "radiffuse: 9.9\nsettings:\n  training:\n    seed: 7\n"
    (run / "config.yaml").write_text(settings)
    (run / "log.jsonl").write_text('{"step": 1, "seconds": 75}\n')
    other = tmp_path / "runs" / "scratch-1-1"
    other.mkdir()
    (other / "log.jsonl").write_text('{"step": 3, "seconds": 15}\n')
    (other / "cost.json").write_text(
        '{"measured": {"memory_gib": 0.5, "hardware": "3 cores of X"}}'
    )
    nnunet = tmp_path / "nnunet" / "5-0"
    nnunet.mkdir(parents=True)
    (nnunet / "seconds.json").write_text('{"train": 120, "predict": 7}')
    (nnunet / "length.json").write_text('{"iterations": 40}')
    (nnunet.parent / "nnunet.json").write_text('{"nnunetv2": "2.8.1", "trainer": "T"}')
    page = write_study_report(tmp_path).read_text()
    shown = ["radiffuse study --config study.yaml", "9.9", "1 min 30 s", "2 mm", "3 cores of X"]
    shown += ["how many of them are above is no test"]
    for text in [*shown, "nnunetv2 2.8.1, trainer T", datetime.date.today().isoformat()]:
        assert text in page, text
    costs = pd.read_csv(tmp_path / "costs.csv").set_index(["method", "labels"])
    assert costs.loc[("scratch", 1)].tolist() == [2, 2, 0.75, 0.5]
    assert costs.loc[("nnunet", 5), ["steps", "minutes"]].tolist() == [40, 2]
    assert np.isnan(costs.loc[("nnunet", 5), "memory_gib"])
    (tmp_path / "data.json").write_text('{"trainings": ["scratch-1-0"]}')
    page = write_study_report(tmp_path).read_text()
    assert "1 min 15 s" in page
    costs = pd.read_csv(tmp_path / "costs.csv").set_index(["method", "labels"])
    assert costs.loc[("scratch", 1), ["trainings", "minutes"]].tolist() == [1, 1.25]
    assert len(costs) == 1
    for name in ("costs.tex", "by-case.svg", "by-case.pdf"):
        assert (tmp_path / name).stat().st_size > 100
    drawing = (tmp_path / "label-efficiency.svg").read_text()
    assert "fine_tune&amp;50%" in drawing
    assert "labelled images" in drawing
    first = (tmp_path / "label-efficiency.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    lines = (tmp_path / "comparisons.tex").read_text().splitlines()
    assert lines[0].startswith(r"\begin{tabular}{lrll")
    assert lines[3].startswith(r"dice & 1 & fine\_tune\&50\% & scratch & 0.1")
    assert lines[-1] == r"\end{tabular}"
    write_study_report(tmp_path)
    assert (tmp_path / "label-efficiency.pdf").read_bytes() == first


@drawn
def test_no_gain_is_not_claimed(tmp_path: Path) -> None:
    results({1: 0.0}).to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "data.json").write_text('{"unused": ["--finetune.x takes no effect on pixel"]}')
    page = write_study_report(tmp_path).read_text()
    assert "--finetune.x takes no effect on pixel." in page
    assert "No method is shown to be above scratch with 1 label" in page
    table = pd.read_csv(tmp_path / "comparisons.csv")
    assert set(table["verdict"]) == {"no difference larger than 0.01"}


@drawn
def test_one_draw_is_said_to_say_nothing_about_others(tmp_path: Path) -> None:
    results({1: 0.1}, draws=1).to_csv(tmp_path / "results.csv", index=False)
    page = write_study_report(tmp_path).read_text()
    assert "better on this draw (one draw says nothing about other draws)" in page
    assert "With 1 label, finetune is 0.100 Dice above scratch on this draw" in page
    table = pd.read_csv(tmp_path / "comparisons.csv")
    assert set(table["verdict"]) == {"better on this draw"}


def test_few_patients_decide_nothing(tmp_path: Path) -> None:
    results({1: 0.2}, cases=4).to_csv(tmp_path / "results.csv", index=False)
    page = write_study_report(tmp_path).read_text()
    assert "not decided (4 patients; the test needs 6)" in page


def test_a_single_method_is_reported_without_comparison(tmp_path: Path) -> None:
    table = results({1: 0.1})
    table[table["method"] == "finetune"].to_csv(tmp_path / "results.csv", index=False)
    assert "Against" not in write_study_report(tmp_path).read_text()


def test_pairs_are_matched_by_draw_and_case() -> None:
    table = results({1: 0.1})
    shuffled = table.sample(frac=1, random_state=0)
    half = shuffled[~((shuffled["method"] == "scratch") & (shuffled["draw"] == 1))]
    row = compare(half, "scratch").against.iloc[0]
    assert row["draws"] == 1
    assert row["difference"] == pytest.approx(0.1, abs=2e-3)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "missing"),
        ("", "not readable"),
        ("method,labels\nx,1\n", "lacks the column draw"),
        (",".join(COLUMNS) + "\n", "no rows"),
        (",".join(COLUMNS) + "\nm,many,0,c,p,lung,1,1,1,1\n", "labels holds text"),
    ],
)
def test_unusable_results_are_named(tmp_path: Path, content: str | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "results.csv").write_text(content)
    with pytest.raises(InputError, match=problem) as caught:
        write_study_report(tmp_path)
    assert "results.csv" in str(caught.value)


def test_an_unknown_reference_is_named(tmp_path: Path) -> None:
    results({1: 0.1}).to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "study.yaml").write_text("reference: ddep\n")
    with pytest.raises(InputError, match="ddep"):
        write_study_report(tmp_path)
