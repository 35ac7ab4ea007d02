"""A run that is a choice of runs: it predicts, is named, published and exported as one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import radiffuse
from radiffuse.config import Machine
from radiffuse.data.plan import Plan
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError, RunError
from radiffuse.inference.postprocess import postprocess
from radiffuse.inference.predictor import Predictor
from radiffuse.inference.records import identity
from radiffuse.nets.registry import load_network
from radiffuse.release.pretrained import save_pretrained
from radiffuse.release.program import left_out, one_pass_network
from radiffuse.system.files import seal
from radiffuse.train.members import MEMBERS, members_of
from radiffuse.train.run import Run
from tiny_runs import chosen_run, finished_run

CPU = Machine(accelerator="cpu", precision="32-true")
FILM = Plan(2, ("image",), ("background", "a", "b"), (16, 16))
COARSE = dataclasses.replace(FILM, size=(8, 8), grid=(24, 24), low=2.0)
VOLUMES = tuple(
    Plan(
        3, ("CT",), ("background", "a"), (8, 8, 8), (mm, mm, mm), intensity="window", low=0, high=1
    )
    for mm in (1.0, 1.5)
)


def scan(dims: int = 2) -> Scan:
    shape = (1, 20, 24) if dims == 2 else (1, 11, 9, 10)
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    return Scan(values, (1.0,) * dims if dims == 3 else None, np.eye(4) if dims == 3 else None)


@pytest.mark.parametrize("plans", [(FILM,), (FILM, FILM), (FILM, COARSE), VOLUMES])
def test_it_predicts_the_mean_of_its_members(tmp_path: Path, plans: tuple[Plan, ...]) -> None:
    run = Run.open(chosen_run(tmp_path / "run", *plans))
    image = scan(plans[0].spatial_dims)
    each = [Predictor.open([part], CPU).probabilities(image) for part in members_of(run)]
    found = Predictor.open([run], CPU)
    np.testing.assert_allclose(found.probabilities(image), np.mean(each, 0), atol=1e-5)
    assert np.array_equal(found(image).mask, found.probabilities(image).argmax(0))
    assert len({part.tobytes() for part in each}) == len(plans)


def test_in_an_ensemble_it_has_the_weight_of_one_run(tmp_path: Path) -> None:
    run = Run.open(chosen_run(tmp_path / "run", FILM, COARSE))
    other = Run.open(finished_run(tmp_path / "other", FILM, seed=7))
    one, two = (Predictor.open([part], CPU).probabilities(scan()) for part in (run, other))
    both = Predictor.open([run, other], CPU).probabilities(scan())
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-5)


def test_its_name_is_that_of_its_members(tmp_path: Path) -> None:
    run = Run.open(chosen_run(tmp_path / "run", FILM, COARSE))
    before = identity(run)
    assert identity(Run.open(chosen_run(tmp_path / "again", FILM, COARSE))) == before
    finished_run(members_of(run)[1].folder, COARSE, seed=9)
    assert identity(run)["model"] != before["model"]


@pytest.mark.parametrize("names", [["part-0", "gone"], ["../other"], [], "part-0", ["part-0", 1]])
def test_a_member_that_is_not_there_is_refused(tmp_path: Path, names: object) -> None:
    run = Run.open(chosen_run(tmp_path / "run", FILM))
    finished_run(tmp_path / "run" / "other", FILM)
    seal(run.model, "config.json", {"kind": MEMBERS, "members": names})
    with pytest.raises(RunError, match=r"names no members|is missing, or not whole"):
        Predictor.open([run], CPU)


def test_one_network_is_not_taken_from_it(tmp_path: Path) -> None:
    run = Run.open(chosen_run(tmp_path / "run", FILM))
    with pytest.raises(RunError, match=r"is a choice of runs.*members"):
        load_network(run.model)


def test_it_is_published_whole(tmp_path: Path) -> None:
    run = Run.open(chosen_run(tmp_path / "run", FILM, COARSE))
    out = save_pretrained(run, tmp_path / "out")
    assert not list(out.rglob("splits.json"))
    taken = radiffuse.Segmenter.from_pretrained(out, device="cpu", precision="32-true")
    wanted = Predictor.open([run], CPU).probabilities(scan())
    assert np.array_equal(taken.predict_proba(scan()), wanted)
    assert "A segmentation network" not in (out / "README.md").read_text()
    assert json.loads((out / "model/config.json").read_text())["members"] == ["part-0", "part-1"]


def test_a_program_of_it_is_the_mean_where_the_grid_is_one(tmp_path: Path) -> None:
    run = Run.open(chosen_run(tmp_path / "run", FILM, FILM))
    images = torch.rand((2, 1, 16, 16)) * 2 - 1
    each = [one_pass_network(part)(images).softmax(1) for part in members_of(run)]
    found = one_pass_network(run)(images).softmax(1)
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)
    with pytest.raises(InputError, match="in different ways"):
        one_pass_network(Run.open(chosen_run(tmp_path / "two", FILM, COARSE)))


def test_a_program_brings_whole_films_to_the_grid_of_each_network(tmp_path: Path) -> None:
    small = dataclasses.replace(FILM, size=(8, 8))
    run = Run.open(chosen_run(tmp_path / "run", FILM, small))
    images = torch.rand((2, 1, 16, 16)) * 2 - 1
    fine, coarse = (one_pass_network(part) for part in members_of(run))
    seen = torch.nn.functional.avg_pool2d(images, 2)  # what bilinear sampling at half the size is
    there = torch.nn.functional.interpolate(coarse(seen).softmax(1), (16, 16), mode="bilinear")
    found = one_pass_network(run)(images).softmax(1)
    torch.testing.assert_close(found, (fine(images).softmax(1) + there) / 2)
    (told,) = left_out(run, steps=True)
    assert told.endswith("(16 x 16, 8 x 8)")
    patches = dataclasses.replace(small, grid=(16, 16))
    wide = dataclasses.replace(small, size=(8, 12))
    for number, plan in enumerate((patches, wide)):
        with pytest.raises(InputError, match="in different ways"):
            one_pass_network(Run.open(chosen_run(tmp_path / str(number), FILM, plan)))


def test_the_viewer_lists_it_as_one_run_that_segments(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="needs the extra 'view': pip install 'radiffuse[view]'")
    from radiffuse.viewer.runs import Runs

    runs = Runs()
    assert runs.add(chosen_run(tmp_path / "run", FILM, COARSE))
    entry, *members = runs.all()
    assert (entry.use, entry.dims, entry.draws) == ("segment", 2, False)
    assert [one.command for one in members] == ["member of run"] * 2  # listed for their curves
    assert not any(one.use for one in members)


def test_an_ensemble_does_after_segmentation_what_all_its_runs_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fewer labels say less about the pieces of a structure, so that the plans of two runs may differ there."""
    plans = (("1=keep:1", "2=keep:2"), ("2=keep:2",), ("1=keep:1",))
    one, two, three = (
        Run.open(
            finished_run(tmp_path / str(n), dataclasses.replace(FILM, postprocess=steps), seed=n)
        )
        for n, steps in enumerate(plans)
    )
    both = Predictor.open([one, two], CPU)
    assert (
        "all of them share are taken: b: the 2 largest pieces are kept" in capsys.readouterr().err
    )
    plain = both.probabilities(scan()).argmax(0).astype(np.uint8)
    assert np.array_equal(both(scan()).mask, postprocess(plain, ("2=keep:2",)))
    assert not np.array_equal(both(scan()).mask, plain)
    assert Predictor.open([two, three], CPU).after == ()
    assert "all of them share are taken: none" in capsys.readouterr().err
    plain_runs = [dataclasses.replace(FILM, postprocess=steps) for steps in ((), ("none",))]
    four, five = (
        Run.open(finished_run(tmp_path / f"plain-{i}", p)) for i, p in enumerate(plain_runs)
    )
    assert Predictor.open([four, five], CPU).after == ()  # said in two ways, and the same
    assert Predictor.open([one, one], CPU).after == plans[0]
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": ["background", "a", "b", "c"]}, "names 4 classes, the network tells 3 apart"),
        ({"classes": ["background"]}, "names 1 classes, the network tells 3 apart"),
        ({"size": [15, 16]}, "has size 15x16, the network takes multiples of"),
        (
            {"spatial_dims": 3, "size": [16, 16, 16], "spacing": [1, 1, 1]},
            "is for 3D images, the network for 2D",
        ),
        ({"spacing": [1, 1, 1]}, r"spacing .* is for volumes"),
        ({"postprocess": ["1=keep:2", "3=fill"]}, "3=fill is for class 3, the last one is 2"),
    ],
)
def test_a_plan_that_was_edited_for_another_network_is_refused(
    change: dict[str, object], word: str, tmp_path: Path
) -> None:
    run = finished_run(tmp_path / "run", FILM)
    path = run / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"plan\.json: .*{word}"):
        Predictor.open([Run.open(run)], CPU)(scan())
