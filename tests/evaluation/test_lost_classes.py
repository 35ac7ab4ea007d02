"""A class that no mask shows is said by name, by whoever makes or scores the masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import radiffuse
from radiffuse.data.plan import Plan
from radiffuse.evaluation.tables import in_no_mask, never_predicted
from tiny_runs import finished_run

CLASSES = ("background", "enamel", "caries", "filling")
SIDE = 16


def picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def label(*shown: int) -> np.ndarray:
    values = np.zeros((SIDE, SIDE))
    for value in shown:
        values[4 * value : 4 * value + 3] = value
    return values


def test_a_class_is_lost_where_the_truth_shows_it_and_no_mask_does() -> None:
    rows = [("a", "enamel", 5, 4), ("a", "caries", 2, 0), ("a", "filling", 0, 0)]
    rows += [("b", "enamel", 5, 0), ("b", "caries", 0, 0), ("b", "filling", 0, 0)]
    table = pd.DataFrame(rows, columns=["case", "class", "truth_voxels", "predicted_voxels"])
    assert never_predicted(table) == ["caries"]
    assert never_predicted(table[["case", "class"]]) == []
    one, two = ["caries"], ["caries", "filling"]
    assert in_no_mask(one, 2) == "class caries appears in none of the 2 masks"
    assert in_no_mask(two, 2) == "classes caries, filling appear in none of the 2 masks"
    assert in_no_mask(one, 1) == "class caries is missing from the only mask"
    assert in_no_mask(two, 1) == "classes caries, filling are missing from the only mask"
    assert in_no_mask([], 2) == ""


def test_evaluate_names_a_class_that_no_mask_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0)
    for name, shown in (("a", (1, 2)), ("b", (1,))):
        picture(tmp_path / "set" / "images" / f"{name}.png", noise.integers(0, 256, (SIDE, SIDE)))
        picture(tmp_path / "set" / "labels" / f"{name}.png", label(*shown))
        picture(tmp_path / "masks" / f"{name}.png", label(1))
    names = {str(value): name for value, name in enumerate(CLASSES[:3])}
    (tmp_path / "set" / "classes.json").write_text(json.dumps(names))
    given = {"masks": tmp_path / "masks", "truth": tmp_path / "set", "out": tmp_path / "out"}
    out = radiffuse.evaluate(**given)
    line = "class caries appears in none of the 2 masks"
    assert f"warning: {line}, though label maps show it" in capsys.readouterr().err
    assert json.loads((out / "evaluation.json").read_text())["never_predicted"] == ["caries"]
    assert line in (out / "report.html").read_text()
    picture(tmp_path / "masks" / "b.png", label(1, 2))  # even where it is wrong
    radiffuse.evaluate(**given)
    assert "in none of" not in capsys.readouterr().err
    assert "never_predicted" not in json.loads((out / "evaluation.json").read_text())
    assert "in none of" not in (out / "report.html").read_text()


@pytest.mark.parametrize("steps", [(), ("2=islands:0.9",)])
def test_predict_names_the_classes_that_no_mask_of_a_folder_shows(
    steps: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is found by another library in the files: caries is dropped by its size, or nothing is."""
    plan = Plan(2, ("image",), CLASSES, (SIDE, SIDE), postprocess=steps)
    run = finished_run(tmp_path / "run", plan, seed=1)
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE))
        picture(tmp_path / "data" / f"{number}.png", noise)
    given = {"runs": run, "machine": {"accelerator": "cpu"}}
    for _ in range(2):  # also where all masks are there
        radiffuse.predict(data=tmp_path / "data", out=tmp_path / "masks", **given)
        files = sorted((tmp_path / "masks").glob("?.png"))
        shown = {int(value) for file in files for value in np.unique(np.asarray(Image.open(file)))}
        assert shown == {0, 1, 3} | ({2} if not steps else set())
        said = "class caries appears in none of the 3 masks" in capsys.readouterr().err
        assert said == bool(steps)
    radiffuse.predict(data=tmp_path / "data" / "0.png", out=tmp_path / "one", **given)
    assert "in none of" not in capsys.readouterr().err
