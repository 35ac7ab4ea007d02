"""Rows of several studies in one table, ensembles of equally good members, sources of segments without labels."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import radiffuse
from conftest import TINY

ROOT = Path(__file__).parents[1]
SCRIPTS = ("results", "publish_rows", "equal_ensemble", "zeroshot")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that writes, with a folder of the test's own."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = import_module("results")
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    yield module
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def call(monkeypatch: pytest.MonkeyPatch, script: str, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    import_module(script).main()


def study(folder: Path, labels: int = 5, **more: float) -> Path:
    """Methods whose Dice is about .5 and ``more``, on eight cases of three draws."""
    rng = np.random.default_rng(len(folder.name))
    rows = [
        {"method": name, "labels": labels, "draw": draw, "case": f"00{case}", "class": kind,
         "dice": 0.5 + gain + 0.002 * rng.standard_normal()}
        for name, gain in more.items() for draw in range(3) for case in range(8)
        for kind in ("a", "b")
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    metrics = dict.fromkeys(("iou", "nsd", "hd95"), table["dice"])
    folder.mkdir(parents=True)
    table.assign(group=table["case"], **metrics).to_csv(folder / "results.csv", index=False)
    return folder


def test_rows_of_several_studies_are_compared_within_each_data_set(
    results: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = study(tmp_path / "base", none=0.0, recycle=0.1)
    other = study(tmp_path / "other", recycle=0.2)
    small = study(tmp_path / "small", labels=1, none=0.05, recycle=0.0)
    rows = [
        "--rows", "films", f"none={base}", f"recycle={base}", f"recycle, other way={other}:recycle",
        "--rows", "volumes", f"none={small}", f"recycle={small}",
    ]  # fmt: skip
    call(monkeypatch, "publish_rows", "t", "--reference", "recycle", "--command", "c", *rows)
    means = pd.read_csv(results.RESULTS / "t.csv").set_index(["data", "method"])
    assert means.loc[("films", "recycle, other way"), "dice"] == pytest.approx(0.7, abs=0.002)
    assert means.loc[("volumes", "none"), "labels"] == 1
    paired = pd.read_csv(results.RESULTS / "t-paired.csv").set_index(["data", "method"])
    differences = {("films", "none"): -0.1, ("films", "recycle, other way"): 0.1}
    differences |= {("volumes", "none"): 0.05}
    assert paired["difference"].to_dict() == pytest.approx(differences, abs=0.002)
    smallest = paired["p_value"].idxmin()  # Holm's factor is the number of comparisons of the table
    assert paired.loc[smallest, "p_holm"] == pytest.approx(
        3 * paired.loc[smallest, "p_value"], 0.05
    )
    written = {path.name: path.read_text() for path in results.RESULTS.glob("*.csv")}
    shutil.rmtree(base)
    call(monkeypatch, "publish_rows", "t", "--reference", "recycle", "--command", "c")
    assert {path.name: path.read_text() for path in results.RESULTS.glob("*.csv")} == written
    both = ("--reference", "none", "recycle", "--command", "c")
    call(monkeypatch, "publish_rows", "t", *both)
    paired = pd.read_csv(results.RESULTS / "t-paired.csv")
    pairs = paired[paired["data"] == "volumes"][["method", "reference"]]
    assert pairs.to_numpy().tolist() == [["recycle", "none"]]  # and not the other way as well


@pytest.mark.usefixtures("results")
def test_rows_of_other_cases_or_methods_that_are_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, other = study(tmp_path / "a", none=0.0), study(tmp_path / "b", recycle=0.1)
    words = ("t", "--reference", "none", "--command", "c", "--rows", "films", f"none={base}")
    with pytest.raises(SystemExit, match="has no method none: it has recycle"):
        call(monkeypatch, "publish_rows", *words, f"again={other}:none")
    table = pd.read_csv(other / "results.csv", dtype={"case": str})
    table[table["case"] != "000"].to_csv(other / "results.csv", index=False)
    with pytest.raises(SystemExit, match="recycle has other cases"):
        call(monkeypatch, "publish_rows", *words, f"recycle={other}")
    with pytest.raises(SystemExit):
        call(monkeypatch, "publish_rows", "u", *words[1:5])


@pytest.mark.usefixtures("results")
def test_an_ensemble_of_equals_is_of_runs_that_differ_in_the_seed_alone(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common: dict[str, Any] = {
        "data": films, "network": TINY, "plan": {"size": (32, 32)},
        "split": {"test": 0.4, "validation": 0.2}, "machine": {"accelerator": "cpu"},
    }  # fmt: skip
    training: dict[str, Any] = {"steps": 2, "batch_size": 2}
    learning = {"network": TINY, "plan": common["plan"], "training": training}
    made = tmp_path / "study"
    radiffuse.study(
        data=films, out=made, labels=2, draws=1, reference="none",
        methods=("none", "recycle", "ensemble"), samplers=("ddpm",),
        finetune={"split": common["split"], "machine": common["machine"]},
        diffusion=learning | {"machine": common["machine"]},
    )  # fmt: skip
    fit = {"method": "diffusion", "labels": 2, "draw": 0, "diffusion": {"strategy": "none"}}
    for name, seed, steps in (("other", 100, 2), ("longer", 100, 3), ("same", 0, 2)):
        changed = {"training": {"batch_size": 2, "validate_every": 0, "seed": seed, "steps": steps}}
        radiffuse.fit(out=tmp_path / f"{name}-0", **common, **fit, **changed)
    for name, found in (("longer", "training.seed, training.steps"), ("same", "nothing")):
        with pytest.raises(SystemExit, match=f"differ in {found}, not in the seed alone"):
            call(monkeypatch, "equal_ensemble", tmp_path / "x", made, tmp_path / f"{name}-{{draw}}")
    out = tmp_path / "out"
    call(monkeypatch, "equal_ensemble", out, made, tmp_path / "other-{draw}")
    table = pd.read_csv(out / "results.csv")
    dice = table.pivot(index=["case", "class"], columns="method", values="dice")
    assert set(dice) == {"none", "recycle", "none, other seed", "none+none", "none+recycle"}
    published = pd.read_csv(made / "results.csv")
    ensemble = published[published["method"] == "ensemble"].set_index(["case", "class"])["dice"]
    pd.testing.assert_series_equal(
        dice["none+recycle"], ensemble, check_names=False, check_like=True
    )
    assert not dice["none+none"].equals(dice["none"])
    settings = yaml.safe_load((tmp_path / "other-0" / "config.yaml").read_text())["settings"]
    assert settings["training"]["seed"] == 100


def test_a_source_of_segments_leaves_the_rows_of_others_and_the_claim_alone(
    results: Any, films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("synthesis-zeroshot.csv", "claims.csv"):
        shutil.copy(ROOT / "results" / name, results.RESULTS)
    new = ["this", "gray values", "untrained network"]
    table = results.RESULTS / "synthesis-zeroshot.csv"
    before = pd.read_csv(table)
    before = before[~before["method"].isin(new)].reset_index(drop=True)
    claims = (results.RESULTS / "claims.csv").read_text()
    monkeypatch.setattr(import_module("zeroshot"), "COUNTS", (2, 3))
    words = ("zeroshot", films, "--work", tmp_path, "--run", pretrained)
    call(monkeypatch, *words, "--name", "this")
    for baseline in ("gray values", "untrained network", "gray values"):
        call(monkeypatch, *words, "--baseline", baseline)
    written = pd.read_csv(table)
    after = written[~written["method"].isin(new)].reset_index(drop=True)
    pd.testing.assert_frame_equal(after, before)
    assert len(before) > 0
    assert (written["method"] == "this").sum() == (written["method"] == "gray values").sum() == 5
    kept = results.read_scores(results.scores_path("synthesis-zeroshot"))
    counts = kept.groupby(["method", "clusters"])["case"].nunique()
    assert counts.loc["this"].to_dict() == counts.loc["gray values"].to_dict() == {2: 12, 3: 12}
    assert (results.RESULTS / "claims.csv").read_text() == claims
    clusters = {
        name: json.loads((tmp_path / f"{name}-2" / "clusters.json").read_text())
        for name in ("this", "gray-values", "untrained-network")
    }
    assert len(clusters["gray-values"]["mean"]) == 1
    assert len(clusters["untrained-network"]["mean"]) == len(clusters["this"]["mean"]) > 1
    assert clusters["untrained-network"]["mean"] != clusters["this"]["mean"]
