"""Color films and a network that sees one gray channel: what is done with them is said once, with a count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import radiffuse
from radiffuse.config import Data, PlanSettings
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan, read_plan
from radiffuse.errors import InputError
from radiffuse.inference.records import Record
from radiffuse.train.planning.plan_text import rows
from tiny_runs import finished_run

MACHINE = {"accelerator": "cpu", "precision": "32-true"}
TURNED = "in color, and turned to gray (ITU-R BT.601): the run learned from gray images"
SIDE = 16


def picture(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two color films, a gray one that is stored as RGB, and a gray one; each with a label."""
    gray = picture(SIDE, SIDE)
    films = [picture(SIDE, SIDE, 3), 255 - picture(SIDE, SIDE, 3), np.stack([gray] * 3, -1), gray]
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number, film in enumerate(films):
        Image.fromarray(film).save(tmp_path / "data" / "images" / f"{number}.png")
        Image.fromarray(gray % 2).save(tmp_path / "data" / "labels" / f"{number}.png")
    return tmp_path / "data"


def run_of(folder: Path, **plan: object) -> Path:
    return finished_run(folder, Plan(2, ("image",), ("background", "a"), (SIDE, SIDE), **plan), 1)  # type: ignore[arg-type]


def test_predict_and_evaluate_say_how_many_films_lost_their_color(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = run_of(tmp_path / "run"), tmp_path / "masks"
    for _ in range(2):  # masks that are there already were made from color all the same
        radiffuse.predict(runs=run, data=data, out=out, machine=MACHINE)
        assert capsys.readouterr().err.count(f"{data}: 2 of 4 images are {TURNED}\n") == 1
    record = Record.read(out)
    assert record is not None
    assert {name for name, entry in record.entries.items() if entry.get("grayed")} == {"0", "1"}
    radiffuse.evaluate(masks=out, truth=data, out=tmp_path / "scores")
    assert f"warning: 2 of 4 images are {TURNED}\n" in capsys.readouterr().err
    notes = json.loads((tmp_path / "scores" / "evaluation.json").read_text())["notes"]
    assert notes == [f"2 of 4 images are {TURNED}"]


def test_a_run_that_learned_from_color_says_so_in_its_plan_and_nothing_later(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(open_dataset(data, Data()), PlanSettings(), labelled=True)
    why = "2 of the 4 images looked at are in color, and are turned to gray"
    assert ("channels", "1, gray", why) in [*rows(plan)]
    assert (plan.colored, "channels" in plan.reasons) == ((2, 4), False)
    run = run_of(tmp_path / "run", colored=plan.colored)
    radiffuse.predict(runs=run, data=data, out=tmp_path / "masks", machine=MACHINE)
    assert "in color" not in capsys.readouterr().err
    for path in (data / "images").glob("[01].png"):
        path.unlink()
    gray = make_plan(open_dataset(data / "images", Data()), PlanSettings(), labelled=False)
    assert gray.colored is None
    assert "channels" not in [name for name, *_ in rows(gray)]


def test_a_plan_that_has_it_among_its_reasons_is_read(tmp_path: Path) -> None:
    """Those that were written before it had a field of its own; records of masks know the plan as they did."""
    path = tmp_path / "plan.json"
    for why, colored in (("3 of the 12 images looked at are in color", (3, 12)), ("given", None)):
        before = Plan(2, ("image",), ("background", "a"), (32, 32), reasons={"channels": why})
        values = json.loads(before.to_json())
        del values["colored"]
        path.write_text(json.dumps(values))
        found = read_plan(path)
        assert found.colored == colored
        assert found.digest == before.digest
        path.write_text(found.to_json())
        assert read_plan(path) == found
    plain = Plan(2, ("image",), ("background", "a"), (32, 32))
    assert plain.digest.startswith("f1611cd99bfcab8f")  # as before


def test_a_segmenter_says_it_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = radiffuse.Segmenter.load(run_of(tmp_path / "run"), device="cpu")
    film = picture(3, SIDE, SIDE)
    segmenter.predict(film[0])
    assert not capsys.readouterr().err
    segmenter.predict(film)
    segmenter.predict_proba(film)
    assert capsys.readouterr().err == f"radiffuse: the image is {TURNED}\n"
    other = radiffuse.Segmenter.load(tmp_path / "run", device="cpu")
    masks = other.predict(sorted((data / "images").iterdir()))
    assert len(masks) == 4
    assert capsys.readouterr().err == f"radiffuse: 2 of 4 images are {TURNED}\n"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((9, 8, 3), "(9, 8, 3), and (rows, columns) or (1, rows, columns), or (3, rows, columns) in color is expected"),
        ((9, 8, 3), "Put its channels first: np.moveaxis(array, -1, 0)"),
        ((9, 8, 1), "Put its channels first: np.moveaxis(array, -1, 0)"),
        ((9, 8, 4), "first: np.moveaxis(array[..., :3], -1, 0)"),
        ((5, 9, 8), "Give the channels that the run was trained on"),
    ],
)  # fmt: skip
def test_an_array_with_its_channels_last_is_refused_with_what_mends_it(
    shape: tuple[int, ...], words: str, tmp_path: Path
) -> None:
    segmenter = radiffuse.Segmenter.load(run_of(tmp_path / "run"), device="cpu")
    array = picture(*shape)
    with pytest.raises(InputError) as caught:
        segmenter.predict(array)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"array: has the shape {shape}, and ")
    if "moveaxis" in words:
        mended = np.moveaxis(array[..., :3], -1, 0)
        assert segmenter.predict(mended).shape == shape[:2]
