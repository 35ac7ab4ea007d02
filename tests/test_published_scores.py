"""What the scripts of ``benchmarks/`` publish: the scores behind a table are kept, and give the same table again."""

from __future__ import annotations

import io
import json
import shutil
import sys
from argparse import Namespace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from radiffuse.system.files import seal

ROOT = Path(__file__).parents[1]
SCRIPTS = (
    "images_that_help",
    "native_size",
    "native_figures",
    "native_tables",
    "publish_recycling",
    "timestep_curve",
    "zeroshot",
)
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
    figures = import_module("native_figures")
    assert words == [
        "draw 0 of the labels", "draw 1 of the labels", figures.MANY[2], figures.ONE[2],
    ]  # fmt: skip
    table.to_csv(results.RESULTS / "t.csv", index=False)
    results.write_scores(films, "t")
    contents = []
    for _ in range(2):
        call(monkeypatch, "native_size", "figure", "t")
        contents.append((results.FIGURES / "t.svg").read_bytes())
    assert contents[0] == contents[1]


def test_figure_along_the_numbers_of_labels_has_a_line_for_each_method(
    results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ["name", "class", "labels", "draws", "dice", "dice_low", "dice_high"]
    rows = [
        ("b", "lung", 20, 2, 0.9, 0.8, 0.95), ("b", "lung", 1, 2, 0.5, 0.3, 0.7),
        ("a", "lung", 1, 2, 0.6, 0.5, 0.65), ("a", "lung", 20, 1, 0.7, 0.6, 0.8),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    drawn = [("b", 1, 0, 0.4), ("b", 1, 1, 0.6), ("b", 20, 0, 0.9), ("b", 20, 1, 0.9)]
    drawn += [("a", 1, 0, 0.55), ("a", 1, 1, 0.65), ("a", 20, 0, 0.7)]
    films = pd.DataFrame(drawn, columns=["name", "labels", "draw", "dice"])
    films["class"] = "lung"
    script = import_module("native_size")
    (axes,) = script.draw(table, films, "the lungs").axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "20"]
    lines = {tuple(line.get_ydata()) for line in axes.lines if line.get_linestyle() != "None"}
    assert lines == {(0.6, 0.7), (0.5, 0.9)}
    dots = sorted(float(line.get_ydata()[0]) for line in axes.lines if line.get_marker() == ".")
    assert dots == sorted(dice for *_, dice in drawn)
    ends = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert ends["a"] < ends["b"]
    spans, dashed = {}, {}
    for bars in axes.collections:
        for segment, (_, dashes) in zip(bars.get_segments(), bars.get_linestyle(), strict=True):
            low, high = map(float, segment[:, 1])
            spans[low], dashed[low] = high, dashes is not None
    assert spans == {0.5: 0.65, 0.6: 0.8, 0.3: 0.7, 0.8: 0.95}
    assert [low for low, broken in dashed.items() if broken] == [0.6]
    table.to_csv(results.RESULTS / "t.csv", index=False)
    results.write_scores(films, "t")
    call(monkeypatch, "native_size", "figure", "t", "--names", "b")
    drawing = (results.FIGURES / "t.svg").read_text()
    assert "<!-- b -->" in drawing
    assert "<!-- a -->" not in drawing
    with pytest.raises(SystemExit, match="no row of t.csv is called c"):
        call(monkeypatch, "native_size", "figure", "t", "--names", "b", "c")


def test_pools_of_a_classifier_stand_beside_each_other_and_fill_the_claims(results: Any) -> None:
    script = import_module("images_that_help")
    classes = ("ill", "well")
    arms = ("real", "interpolate: alone", "interpolate: with the real ones")
    rows = [
        {"arm": arm, "draw": draw, "case": f"{case:02}", "group": f"{case:02}", "class": classes[case % 2],
         "ill": chance, "well": 1 - chance}
        for arm, draw, case in product(arms, (0, 1, 2), range(12))
        for chance in [(7 * case + 5 * draw + 3 * len(arm)) % 12 / 12]
    ]  # fmt: skip
    for pool in (200, 50, 50):  # the second time in the place of the first
        given = Namespace(classes="C", work="W", size=64, pool=pool)
        script.publish(given, pd.DataFrame(rows).assign(pool=pool), classes)
    table = pd.read_csv(results.RESULTS / "images-that-help.csv")
    assert list(table.groupby("pool").size()) == [9, 9]
    assert set(table.loc[table["pool"] == 200, "command"].str[-8:]) == {"pool 200"}
    kept = results.read_scores(results.scores_path("images-that-help"))
    assert list(kept.groupby("pool").size()) == [len(rows)] * 2
    claims = pd.read_csv(results.RESULTS / "claims.csv", dtype=str).set_index("id")
    gains = table[(table["class"] == "mean") & (table["trained on"] == arms[2])]["gain"]
    words = [
        f"{pool} films, interpolate: {gain:+.3f}"
        for pool, gain in zip((50, 200), gains, strict=True)
    ]
    assert claims.loc["dino-4", "value"] == "; ".join(words)
    assert claims.loc["dino-5", "value"] == words[0]


@pytest.mark.usefixtures("results")
def test_the_steps_of_an_automatic_run_are_those_of_all_who_vote(tmp_path: Path) -> None:
    script = import_module("native_size")

    def trained(folder: Path, steps: int) -> None:
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text('{"kind": "unet"}')
        (folder / "config.yaml").write_text("command: fit\n")
        lines = (json.dumps({"step": step, "loss": 1.0}) for step in (1, steps))
        (folder / "log.jsonl").write_text("".join(f"{line}\n" for line in lines))

    trained(tmp_path / "one", 30)
    assert script._steps(tmp_path / "one") == 30
    for name, steps in (("imagenet", 20), ("imagenet+pool", 12), ("outlook", 99)):
        trained(tmp_path / "auto" / "members" / name, steps)
    members = {"kind": "members", "members": ["imagenet", "imagenet+pool"]}
    seal(tmp_path / "auto" / "model", "config.json", members)
    assert script._steps(tmp_path / "auto") == 32
    assert script._steps(tmp_path / "none") == 0


def run_with_masks(work: Path, name: str, dice: dict[str, float], part: str = "test") -> Path:
    """A run of ``native_size.py`` on films of 40 x 30 pixels whose masks are a square."""
    data = work / "data"
    for folder in ("images", "labels"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    square = np.zeros((40, 30), np.uint8)
    square[10:20, 5:25] = 1
    run, masks = work / f"{name}-5-0", work / f"{name}-5-0-masks"
    run.mkdir()
    masks.mkdir()
    for case in dice:
        Image.fromarray(square * 200).save(data / "images" / f"{case}.png")
        Image.fromarray(square).save(data / "labels" / f"{case}.png")
        Image.fromarray(square).save(masks / f"{case}.png")
    (run / "config.yaml").write_text(f"settings: {{data: {data}}}\n")
    rows = pd.DataFrame({"case": list(dice), "dice": list(dice.values())})
    rows = rows.assign(name=name, part=part, nsd=0.5, hd95=12.0, **{"class": "a"})
    rows.to_csv(f"{run}.csv", index=False)
    return run


def test_outlines_show_the_best_median_and_worst_film_of_the_first_run(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_with_masks(tmp_path, "a", {"01": 0.7, "02": 0.9, "03": 0.8, "04": 0.1, "05": 0.75})
    other = run_with_masks(tmp_path, "b", {"01": 0.2, "02": 0.3, "03": 0.99, "05": 0.4})
    script, seen = import_module("native_size"), []
    kept = script.outlines
    monkeypatch.setattr(script, "outlines", lambda rows: seen.append(rows) or kept(rows))
    call(monkeypatch, "native_size", "outlines", "o", first, other, "--names", "ours", "theirs")
    (rows,) = seen
    # 04 is no film of the other run, so the worst is 01.
    shown = {name: [(c.heading, c.name, c.dice) for c, _ in row] for name, row in rows.items()}
    assert shown == {
        "ours": [("best of 4", "02", 0.9), ("median of 4", "05", 0.75), ("worst of 4", "01", 0.7)],
        "theirs": [("best of 4", "02", 0.3), ("median of 4", "05", 0.4), ("worst of 4", "01", 0.2)],
    }
    assert rows["ours"][0][1] == "02: Dice 0.900\nsurface Dice 0.50, HD95 12 px"
    picture = Image.open(results.FIGURES / "o.png").convert("RGB")
    assert picture.width == pytest.approx(1012, abs=2)
    assert (results.FIGURES / "o.png").stat().st_size < 300_000
    colors = {color for _, color in picture.getcolors(1 << 24)}
    assert {(0x35, 0xD0, 0xFF), (0xFF, 0xB0, 0)} <= colors
    with pytest.raises(SystemExit, match="need as many different"):
        call(monkeypatch, "native_size", "outlines", "o", first, other, "--names", "a", "a")
    unseen = run_with_masks(tmp_path, "c", {"01": 0.2}, part="dev")
    with pytest.raises(SystemExit, match="share no film"):
        call(monkeypatch, "native_size", "outlines", "o", first, unseen)


def test_a_picture_is_made_small_by_fewer_grays(results: Any) -> None:
    figures = import_module("native_figures")
    figure = Figure(figsize=(2, 2), facecolor="white")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200)).astype(np.uint8)
    figure.figimage(noise, cmap="gray", vmin=0, vmax=255)
    whole, small = (figures.small_png(figure, limit, dpi=100) for limit in (60_000, 25_000))
    assert len(whole) <= 60_000
    assert len(small) <= 25_000
    found = [np.asarray(Image.open(io.BytesIO(data)).convert("L"), int) for data in (whole, small)]
    levels = [len(np.unique(pixels)) for pixels in found]
    assert levels[0] > 60
    assert 16 <= levels[1] <= 32
    off = [abs(pixels - noise).max() for pixels in found]  # half a level, and Pillow's cells of 4
    assert off[0] <= 255 / 63 / 2 + 4
    assert off[1] <= 255 / 15 / 2 + 4
    with pytest.raises(ValueError, match="16 grays"):
        figures.small_png(figure, 1_000, dpi=100)


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
    script = import_module("native_tables")
    dice = [0.90, 0.80004, 0.60, 0.99, 0.5]
    films = pd.DataFrame({"dice": dice, "expected_dice": [0.9, 0.85, 0.8, 0.9, None]})
    films["expected_low"], films["expected_high"] = 0.7, [0.95, 0.8, 0.9, 0.95, None]
    films["expected_level"] = 0.8
    assert script.kept(films) == pytest.approx(
        {"expected_dice": (0.9 + 0.85 + 0.8 + 0.9) / 4, "kept": 0.5, "promised": 0.8}
    )
    assert script.kept(films[["dice"]]) == {}


def test_methods_are_compared_on_draws_of_the_same_films_only(results: Any) -> None:
    script = import_module("native_tables")
    rows = [(name, d, learned) for d, learned in ((0, "x"), (1, "y")) for name in ("a", "b")]
    films = pd.DataFrame(rows, columns=["name", "draw", "learned"]).assign(labels=5, dice=0.9)
    films = films.assign(hd95=1.0, nsd=0.5, nsd_1pct=0.6, **{"class": "lung"})
    films = pd.concat([films.assign(case=f"{n}", group=f"{n}") for n in range(4)])
    assert len(script.pairs(films, "a")) == 4
    assert len(script.pairs(films.drop(columns="learned"), "a")) == 4
    films.loc[(films["name"] == "b") & (films["draw"] == 1), "learned"] = "z"
    with pytest.raises(SystemExit, match="b and a .* in draw 1. Run both with the same --split"):
        script.pairs(films, "a")


def test_every_reference_has_comparisons_of_its_own_and_memory_is_told_where_known(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = scores(("a", "b", "c"), **{"class": ["lung"]}).rename(columns={"method": "name"})
    films["dice"] += films["name"].map({"a": 0.0, "b": 0.02, "c": 0.09})
    films = films.assign(part="test", nsd_1pct=films["nsd"], flags="", steps=9, train_seconds=8)
    films = films.assign(predict_seconds=7, memory_gib=films["name"].map({"a": 1.5, "b": 2.5}))
    films["group"] = films["case"]
    films = pd.concat([films, films.assign(case="1" + films["case"], group="1" + films["group"])])
    films.to_csv(tmp_path / "s.csv", index=False)
    words = ("publish", tmp_path / "s.csv", "t", "--reference", "a", "c")
    call(monkeypatch, "native_size", *words)
    pairs = pd.read_csv(results.RESULTS / "t-paired.csv").query("metric == 'dice'")
    assert list(zip(pairs["name"], pairs["reference"], strict=True)) == [
        ("b", "a"), ("c", "a"), ("a", "c"), ("b", "c"),
    ]  # fmt: skip
    script = import_module("native_size")
    alone = (
        import_module("native_tables")
        .pairs(results.read_scores(tmp_path / "s.csv"), "c")
        .query("metric == 'dice'")
    )
    assert list(pairs["p_holm"][2:]) == pytest.approx(list(alone["p_holm"]), rel=0.06)
    table = pd.read_csv(results.RESULTS / "t.csv").set_index("name")
    assert table["memory_gib"].fillna(0).to_dict() == {"a": 1.5, "b": 2.5, "c": 0}
    for name, cost in (("a", {"memory_gib": 1.5}), ("b", {"memory_gib": 2.5}), ("c", {})):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "cost.json").write_text(json.dumps({"measured": cost}))
    assert np.isnan(script.memory_of(tmp_path / "run" / "c"))
    assert script.memory_of(tmp_path / "run") == 2.5


def test_a_name_is_compared_with_itself_at_another_number_of_labels(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At five labels it has three draws, at twenty two of them; the other name has five labels only."""
    films = scores(("a", "b"), **{"class": ["lung"]}).rename(columns={"method": "name"})
    films = films.assign(part="test", flags="", learned=films["draw"].map("{}e9".format))
    many = films[(films["name"] == "a") & (films["draw"] != 1)]
    many = many.assign(labels=20, learned="x", dice=many["dice"] + 0.2)
    films = pd.concat([films, many]).assign(steps=9, train_seconds=8, predict_seconds=7)
    films.assign(nsd_1pct=films["nsd"]).to_csv(tmp_path / "w-5-0.csv", index=False)
    call(monkeypatch, "native_size", "publish", tmp_path, "t", "--reference", "b", "--budget", "5")
    found = pd.read_csv(results.RESULTS / "t-labels.csv").query("metric == 'dice'")
    assert found[["name", "labels", "reference", "draws"]].to_numpy().tolist() == [["a", 20, 5, 2]]
    assert found["difference"].item() == pytest.approx(0.2)


def test_the_digest_of_what_was_learned_from_is_no_number(results: Any) -> None:
    """1e999999 would be infinite, 00655270 lose its zeros; then other films would count as the same."""
    digests = ["1e999999", "00655270", "2e999999"]
    kept = results.write_scores(pd.DataFrame({"learned": digests, "dice": 0.5}), "t")
    assert kept["learned"].tolist() == digests


def test_masks_are_scored_once_more_with_steps_after_segmentation(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lungs of 40 pixels that were found, and an island of 20: Dice 160 / 180, and 1 without it."""
    data, run = tmp_path / "films", tmp_path / "work" / "a-5-0"
    truth = np.zeros((32, 32), np.uint8)
    truth[4:14, 4:8] = truth[4:14, 20:24] = 1
    found = truth.copy()
    found[20:25, 10:14] = 1
    for folder, array in ((data / "images", 100 * truth), (data / "labels", truth)):
        folder.mkdir(parents=True)
        Image.fromarray(array).save(folder / "film.png")
    masks = Path(f"{run}-masks")
    for folder in (run, masks):
        folder.mkdir(parents=True)
    Image.fromarray(found).save(masks / "film.png")
    (masks / "classes.json").write_text('{"0": "background", "1": "lung"}')
    (masks / "masks.jsonl").write_text('{"case": "film"}\n')
    (run / "splits.json").write_text('{"test": ["film"], "validation": []}')
    (run / "data.json").write_text('{"split": {"train": []}}')
    known = {"train_seconds": [9], "predict_seconds": [2], "flags": ["--hours 1"]}
    pd.DataFrame(known).to_csv(f"{run}.csv", index=False)
    words = ("after", run.parent, data, "a", "--steps", "1=keep:2", "--to", "b")
    call(monkeypatch, "native_size", *words)
    row = pd.read_csv(tmp_path / "work" / "b-5-0.csv").iloc[0]
    assert (row["name"], row["part"], row["dice"], row["train_seconds"]) == ("b", "test", 1, 9)
    assert row["flags"] == "--hours 1 --plan.postprocess 1=keep:2"
    assert (tmp_path / "work" / "b-5-0" / "splits.json").is_file()  # as figures need it
    assert np.array_equal(np.asarray(Image.open(masks / "film.png")), found)
    call(monkeypatch, "native_size", *words[:5], "none", "--to", "c")
    again = pd.read_csv(tmp_path / "work" / "c-5-0.csv").iloc[0]
    assert again["dice"] == pytest.approx(160 / 180, abs=1e-4)

    def segmented(command: list[str]) -> float:
        shutil.copytree(masks, command[command.index("--out") + 1])
        assert command[:3] == ["predict", str(run), str(data)]
        assert command[command.index("--tta") + 1] == "mirror"
        return 7.2

    monkeypatch.setattr(import_module("native_size"), "seconds_of", segmented)
    call(monkeypatch, "native_size", *words[:4], "--tta", "mirror", "--to", "d")
    views = pd.read_csv(tmp_path / "work" / "d-5-0.csv").iloc[0]
    assert (views["dice"], views["predict_seconds"]) == (again["dice"], 7)
    assert views["flags"] == "--hours 1 --tta mirror"


def test_the_claim_without_labels_says_what_gave_its_dice(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "synthesis-zeroshot.csv"
    shutil.copy(ROOT / "results" / name, results.RESULTS)
    script = import_module("zeroshot")
    films = scores(("a",)).query("draw == 0").set_index("group")
    films = films.assign(dice_rule=films["dice"], dice_matched=films["dice"])
    monkeypatch.setattr(script, "_segment", lambda given, count: films.assign(group=films.index))
    monkeypatch.setattr(script, "_ceiling", lambda lungs: films["dice"])
    claims = pd.read_csv(results.RESULTS / "claims.csv", dtype=str).set_index("id")
    published = claims.loc["dino-6", "done"]
    claims.assign(done="").to_csv(results.RESULTS / "claims.csv")
    call(monkeypatch, "zeroshot", "lungs", "--work", tmp_path)
    written = pd.read_csv(results.RESULTS / "claims.csv").set_index("id").loc["dino-6"]
    assert written["value"] == f"Dice {films['dice'].mean():.3f}"
    assert "cluster" in written["done"]
    assert published == written["done"]
