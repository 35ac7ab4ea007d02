"""A model can be trained on each public set of abdominal CT, and scored on another by the names of the organs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from ct_sets import SETS, btcv, flare22

import radiffuse
from conftest import TINY

DECLARED = ("amos22", "totalsegmentator")
"""Sets that say how they are split."""


def finetune(data: Path, out: Path, **reader: object) -> Path:
    split = {} if data.name in DECLARED else {"test": 2, "validation": 1}
    radiffuse.fit(
        data=data,
        out=out,
        method="scratch",
        network=TINY,
        plan={"size": (8, 8, 8)},
        split=split,
        training={"steps": 1, "batch_size": 2, "validate_every": 0},
        reader=reader,
        machine={"accelerator": "cpu", "precision": "32-true"},
    )
    return out


@pytest.mark.parametrize("name", SETS)
def test_finetune_on_a_download(name: str, tmp_path: Path) -> None:
    named = {} if name in ("amos22", "msd", "totalsegmentator") else {"class_names": (name,)}
    run = finetune(SETS[name](tmp_path / name), tmp_path / "run", **named)
    assert (run / "model" / "config.json").is_file()
    plan = pd.read_json(run / "plan.json", typ="series")
    assert len(plan["classes"]) == {"btcv": 14, "flare22": 14, "amos22": 16, "msd": 2}.get(name, 6)


def test_a_model_of_btcv_is_scored_on_flare22(tmp_path: Path) -> None:
    run = finetune(btcv(tmp_path / "btcv"), tmp_path / "run", class_names=("btcv",))
    other = flare22(tmp_path / "flare22")
    masks = radiffuse.predict(runs=run, data=other, out=tmp_path / "masks")
    out = radiffuse.evaluate(
        masks=masks, truth=other, reader={"class_names": ("flare22",)}, out=tmp_path / "out"
    )
    table = pd.read_csv(out / "cases.csv")
    assert table["case"].nunique() == 5
    classes = pd.read_csv(out / "classes.csv").set_index("class")
    assert classes.index[~classes["scored"]].tolist() == ["portal and splenic veins", "duodenum"]
    assert classes.loc["liver", ["prediction", "truth"]].tolist() == [6, 1]
    truth = table[table["class"] == "liver"]["truth_voxels"]
    assert (truth == 3 * 8 * 8).all()
