"""What the scripts of ``benchmarks/`` publish: the scores behind a table are kept, and give the same table again."""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("native_size", "publish_recycling", "timestep_curve")
RECYCLING = ("recycle", "standard", "recycle-next", "self-condition", "self-condition-next")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that writes, with folders of the test's own."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = import_module("results")
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(ROOT / "results" / "claims.csv", folder)
    monkeypatch.setattr(module, "RESULTS", folder)
    monkeypatch.setattr(module, "FIGURES", tmp_path / "images")
    for script in SCRIPTS:  # imported again, they take the folders from it
        monkeypatch.delitem(sys.modules, script, raising=False)
    return module


def call(monkeypatch: pytest.MonkeyPatch, script: str, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    import_module(script).main()


def scores(methods: tuple[str, ...], **others: list[Any]) -> pd.DataFrame:
    """Three draws of four cases of two patients, whose names are numbers with zeros before them."""
    values = {"method": methods, "draw": (0, 1, 2), "case": ("001", "002", "003", "004"), **others}
    table = pd.DataFrame(list(product(*values.values())), columns=list(values))
    group = table["case"].map({"001": "01", "002": "01", "003": "02", "004": "02"})
    dice = [0.5 + 0.3 * (7 * i % 11) / 11 for i in range(len(table))]
    metrics = {"dice": dice, "iou": dice, "nsd": dice, "hd95": dice}
    return table.assign(group=group, labels=5, counted=True, truth_voxels=100, **metrics)


def study(folder: Path) -> Path:
    folder.mkdir()
    methods = tuple(f"{name}{end}" for name in RECYCLING for end in ("", "@ddim"))
    table = scores((*methods, "none", "ensemble"), **{"class": ["a"]})
    table.to_csv(folder / "results.csv", index=False)
    scores(methods, step=[0, 4], timestep=[10]).assign(**{"class": "a"}).to_csv(
        folder / "steps.csv", index=False
    )
    leak = scores(("standard", "recycle"), timestep=[0, 100]).drop(columns="dice")
    leak.assign(dice_true=0.9, dice_own=0.7).to_csv(folder / "leak.csv", index=False)
    return folder


def test_claims_of_recycling_follow_from_the_scores_that_were_kept(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(tmp_path / "study")
    leak = f"films={made / 'leak.csv'}"
    script = "publish_recycling"
    call(monkeypatch, script, f"films={made}", "--leak", leak, "--command", "c")
    names = [f"recycling{end}.csv" for end in ("", "-steps", "-claims")]
    first = {name: (results.RESULTS / name).read_text() for name in names}
    (kept,) = results.kept_scores("recycling").values()
    given = results.read_scores(made)
    assert set(kept["case"]) == {"001", "002", "003", "004"}
    pd.testing.assert_frame_equal(kept, given[kept.columns], rtol=0, atol=1e-6)
    shutil.rmtree(made)
    call(monkeypatch, script, "--command", "c")
    assert {name: (results.RESULTS / name).read_text() for name in names} == first
    assert "recycling-1" in first["recycling-claims.csv"]


def test_a_leak_of_other_studies_is_not_taken_for_that_of_new_ones(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(tmp_path / "study")
    leak = f"films={made / 'leak.csv'}"
    script = "publish_recycling"
    call(monkeypatch, script, f"films={made}", "--leak", leak, "--command", "c")
    call(monkeypatch, script, f"films={made}", "--command", "c")
    assert not results.kept_scores("recycling-leak")
    claims = pd.read_csv(results.RESULTS / "recycling-claims.csv")
    assert "recycling-1" not in set(claims["claim"])
    with pytest.raises(SystemExit):
        call(monkeypatch, script, "--leak", leak, "--command", "c")


@pytest.mark.usefixtures("results")
def test_without_studies_and_scores_there_is_nothing_to_publish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "publish_recycling", "--command", "c")


def test_curve_of_timesteps_follows_from_the_scores_that_were_kept(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "study"
    made.mkdir()
    heads = ("diffusion@nonlinear", "diffusion@nonlinear@t=1", "guided@nonlinear")
    table = scores(heads, **{"class": ["a", "b", "c"]})
    sizes = table["class"].map({"a": 10, "b": 100, "c": 1000})
    table.assign(truth_voxels=sizes).to_csv(made / "results.csv", index=False)
    call(monkeypatch, "timestep_curve", made, "--command", "c")
    written = (results.RESULTS / "guided-timesteps.csv", results.FIGURES / "guided-timesteps.svg")
    first = [path.read_text() for path in written]
    shutil.rmtree(made)
    call(monkeypatch, "timestep_curve", results.scores_path("guided-timesteps"), "--command", "c")
    assert [path.read_text() for path in written] == first


def test_a_timestep_alone_counts_and_not_the_one_that_joins_several(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "study"
    made.mkdir()
    heads = tuple(f"guided{end}" for end in ("", "@t=clean", "@t=10", "@t=100"))
    table = scores(heads, **{"class": ["a", "b", "c"]})
    sizes = table["class"].map({"a": 10, "b": 100, "c": 1000})
    dice = table["dice"] / 2 + table["method"].map(
        dict(zip(heads, (0.4, 0.2, 0.1, 0.0), strict=True))
    )
    table.assign(truth_voxels=sizes, dice=dice).to_csv(made / "results.csv", index=False)
    (results.RESULTS / "claims.csv").write_text(
        "id,claim,value,verdict\nguided-4,x,,\nguided-5,y,,\n"
    )
    call(monkeypatch, "timestep_curve", made, "--command", "c", "--data", "drawn")
    found = pd.read_csv(results.RESULTS / "guided-timesteps.csv").set_index(["size", "timestep"])
    assert set(found.index.get_level_values("timestep")) == {0, 10, 100}
    values = table.assign(dice=dice)
    alone = values[(values["method"] == heads[2]) & (values["class"] == "c")]["dice"]
    assert found.loc[("big", 10), "dice"] == pytest.approx(alone.mean(), abs=1e-3)
    claims = pd.read_csv(results.RESULTS / "claims.csv").set_index("id")["value"]
    assert "timestep 0 against 10: +" in claims["guided-4"]
    assert "timestep 100 against 10: -" in claims["guided-5"]


def test_figure_of_a_native_table_shows_each_interval_and_each_draw(
    results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ["name", "class", "labels", "draws", "dice", "dice_low", "dice_high"]
    rows = [("a", "lung", 5, 1, 0.8, 0.7, 0.9), ("b", "lung", 5, 2, 0.5, 0.2, 0.8)]
    table = pd.DataFrame(rows, columns=columns)
    drawn = [("a", 1, 0.7), ("a", 1, 0.9), ("b", 0, 0.4), ("b", 1, 0.6)]
    films = pd.DataFrame(drawn, columns=["name", "draw", "dice"]).assign(labels=5)
    films["class"] = "lung"
    script = import_module("native_size")
    figure = script.draw(table, films, "the lungs")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    spans = {tuple(round(float(x), 6) for x in c.get_segments()[0][:, 0]) for c in axes.collections}
    assert spans == {(0.2, 0.8), (0.7, 0.9)}
    points = {(line.get_marker(), round(float(line.get_xdata()[0]), 6)) for line in axes.lines}
    assert points == {("|", 0.8), ("|", 0.5), ("o", 0.4), ("s", 0.6), ("s", 0.8)}
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == [
        "draw 0 of the labels", "draw 1 of the labels", script.MANY[2], script.ONE[2],
    ]  # fmt: skip
    table.to_csv(results.RESULTS / "t.csv", index=False)
    results.write_scores(films, "t")
    contents = []
    for _ in range(2):
        call(monkeypatch, "native_size", "figure", "t")
        contents.append((results.FIGURES / "t.svg").read_bytes())
    assert contents[0] == contents[1]


def test_the_first_figure_of_the_readme_is_that_of_the_published_table(results: Any) -> None:
    """Its names and numbers; how text is set depends on fonts and versions."""
    published = (ROOT / "docs" / "images" / "lungs-native.svg").read_text()
    table = pd.read_csv(ROOT / "results" / "lungs-native.csv")
    for name in table["name"]:
        assert f"<!-- {name} -->" in published
    kept = results.read_scores(ROOT / "results" / "scores" / "lungs-native.csv.gz")
    means = kept.groupby("name")["dice"].mean()
    assert means.to_dict() == pytest.approx(table.set_index("name")["dice"].to_dict(), abs=1e-4)


def test_intervals_that_were_expected_are_held_against_the_dice(results: Any) -> None:
    """Five films: inside, on an end as far as it is rounded, below, above, and one of which nothing was expected."""
    script = import_module("native_size")
    dice = [0.90, 0.80004, 0.60, 0.99, 0.5]
    films = pd.DataFrame({"dice": dice, "expected_dice": [0.9, 0.85, 0.8, 0.9, None]})
    films["expected_low"], films["expected_high"] = 0.7, [0.95, 0.8, 0.9, 0.95, None]
    films["expected_level"] = 0.8
    assert script._kept(films) == pytest.approx(
        {"expected_dice": (0.9 + 0.85 + 0.8 + 0.9) / 4, "kept": 0.5, "promised": 0.8}
    )
    assert script._kept(films[["dice"]]) == {}


def test_methods_are_compared_on_draws_of_the_same_films_only(results: Any) -> None:
    script = import_module("native_size")
    rows = [(name, d, learned) for d, learned in ((0, "x"), (1, "y")) for name in ("a", "b")]
    films = pd.DataFrame(rows, columns=["name", "draw", "learned"]).assign(labels=5, dice=0.9)
    films = films.assign(hd95=1.0, nsd=0.5, nsd_1pct=0.6, **{"class": "lung"})
    films = pd.concat([films.assign(case=f"{n}", group=f"{n}") for n in range(4)])
    assert len(script._pairs(films, "a")) == 4
    assert len(script._pairs(films.drop(columns="learned"), "a")) == 4
    films.loc[(films["name"] == "b") & (films["draw"] == 1), "learned"] = "z"
    with pytest.raises(SystemExit, match="b and a .* in draw 1. Run both with the same --split"):
        script._pairs(films, "a")
