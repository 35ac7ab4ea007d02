"""A pool beside the labels: which of its images enter, when, and that a run with it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import radiffuse
from conftest import TINY, Begun, line_of
from radiffuse.commands import fit as commands
from radiffuse.config import Augmentation, Fit, Pool, Training
from radiffuse.data.batches import Batches
from radiffuse.data.dataset import Case
from radiffuse.data.plan import Plan
from radiffuse.data.pool import PoolBatches, PooledBatch, WithPool
from radiffuse.data.provenance import descent_from
from radiffuse.errors import InputError
from radiffuse.synthesis.joint_generation import JointGeneration
from radiffuse.train.planning.measuring import Blank
from radiffuse.train.pool import beside
from radiffuse.train.run import Run
from tiny_runs import volume_plan


def settings(films: Path, out: Path, *pools: Path, **changes: object) -> dict[str, object]:
    training = {
        "steps": 6,
        "batch_size": 2,
        "log_every": 1,
        "checkpoint_every": 1,
        "keep_state": True,
    }
    return {
        "data": films,
        "unlabelled": tuple(map(str, pools)),
        "out": out,
        "method": "scratch",
        "labels": 2,
        "network": TINY,
        "plan": {"size": (32, 32)},
        "split": {"test": 0.4, "validation": 0.2},
        "training": training | {"validate_every": 3},
        "reader": {"cache": str(out.parent / "cache")},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


def test_a_run_with_a_pool_goes_on_bit_for_bit(
    films: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("score_validation", "leave_documents"):
        monkeypatch.setattr(commands, name, lambda *_: None)
    straight = radiffuse.fit(**settings(films, tmp_path / "straight", unlabelled))
    given = settings(films, tmp_path / "resumed", unlabelled)
    with monkeypatch.context() as patch:
        whole = WithPool.__call__

        def until(self: WithPool, step: int, *process: int) -> Any:
            if step == 4:
                raise Begun
            return whole(self, step, *process)

        patch.setattr(WithPool, "__call__", until)
        with pytest.raises(Begun):
            radiffuse.fit(**given)
    resumed = radiffuse.fit(**given)
    for name in ("average", "network", "optimizer"):
        files = [r.state / f"step-00000006/{name}.safetensors" for r in (straight, resumed)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    rows = [[row for row in run.log() if "loss" in row] for run in (straight, resumed)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    assert ["pool" in row for row in rows[0]] == [False] + 5 * [True]  # .3 of 6 steps are 1.8
    longer = dict(given["training"], steps=9, decay="constant")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="holds a run with training"):
        radiffuse.fit(**given | {"training": longer})


def begin(films: Path, out: Path, *pools: Path, **changes: object) -> dict[str, Any]:
    with pytest.raises(Begun):
        radiffuse.fit(**settings(films, out, *pools, **changes))
    return Run(out).data


def test_no_image_of_a_held_out_patient_enters(films: Path, tmp_path: Path, begins: None) -> None:
    out, first, second = (tmp_path / name for name in ("run", "first", "second"))
    for pool in (first, second):
        pool.mkdir()
    names = sorted(path.stem for path in (films / "images").glob("*.png"))
    for i, name in enumerate(
        names
    ):  # the same films: by name as other files, and under other names
        film = Image.open(films / "images" / f"{name}.png")
        film.point(lambda v: 255 - v).save(first / f"{name}.png")
        film.save(second / f"x{i:02}.tif")
    data = begin(films, out, first, second)
    splits = json.loads((out / "splits.json").read_text())
    held = {*splits["validation"], *splits["test"]}
    assert len(held) == 7
    assert data["unlabelled"] == ["first", "second"]
    assert data["unlabelled_cases"] == 2 * (12 - len(held))
    cases = json.loads((out / "cases.json").read_text())
    assert set(cases["unlabelled 0"]) == set(names) - held
    for name in set(names) - held:
        (first / f"{name}.png").unlink()
    with pytest.raises(
        InputError, match=r"^unlabelled=.*first.*: holds 7 images, all of them of v"
    ):
        radiffuse.fit(**settings(films, tmp_path / "other", first))


def test_what_a_joint_run_draws_descends_from_its_pool(
    films: Path, tmp_path: Path, begins: None
) -> None:
    """From the patients of the pool that were learned from, not from those that were held out."""
    pool, out = tmp_path / "pool", tmp_path / "run"
    pool.mkdir()
    names = sorted(path.stem for path in (films / "images").glob("*.png"))
    for name in [*names, "other+one"]:
        film = Image.open(films / "images" / f"{name if name in names else names[0]}.png")
        film.point(lambda v: 255 - v).save(pool / f"{name}.png")
    training = {"steps": 2, "batch_size": 2}
    data = begin(films, out, pool, method="joint", training=training)
    splits = json.loads((out / "splits.json").read_text())
    held = {*splits["validation"], *splits["test"]}
    assert set(data["unlabelled_patients"]) == {*names, "other+one"} - held
    data |= {"learned_patients": splits["train"][:2]}
    run = SimpleNamespace(folder=out, data=data)
    drawing = object.__new__(JointGeneration)
    drawing.run = run  # type: ignore[assignment]
    patients = drawing.ancestors["patients"]
    pair = Case("pair", (Path("x"),), group="+".join(patients))
    for name in (*(set(names) - held), "other+one"):
        assert descent_from({name})(pair)
    for name in (*held, "other+on"):
        assert not descent_from({name})(pair)


def test_another_pool_is_refused_once_something_was_trained(
    films: Path, unlabelled: Path, tmp_path: Path, begins: None
) -> None:
    pool, out = tmp_path / "pool", tmp_path / "run"
    shutil.copytree(unlabelled, pool)
    for path in list(pool.glob("*.png")):  # none has the name of a labelled film
        path.rename(pool / f"p{path.name}")
    begin(films, out, pool)
    begin(films, out, pool)
    one, other, *_ = sorted(pool.glob("*.png"))
    kept = one.read_bytes()
    for change, words in (
        (lambda: one.unlink(), f"begun with other cases: {one.stem} went"),
        (lambda: shutil.copy(other, one), f"begun with other images.* of {one.stem}"),
        (lambda: shutil.copy(other, pool / "new.png"), "begun with other cases: new came"),
    ):
        change()
        with pytest.raises(InputError, match=words):
            radiffuse.fit(**settings(films, out, pool))
        one.write_bytes(kept)
    (pool / "new.png").unlink()
    begin(films, out, pool)
    with pytest.raises(InputError, match=r"holds a run with unlabelled = "):
        radiffuse.fit(**settings(films, out))


def test_labelled_images_and_plan_stand_from_the_first_call_on(
    films: Path, unlabelled: Path, tmp_path: Path, begins: None
) -> None:
    """The record of the pool, written after theirs, leaves theirs in place."""
    mine, out = tmp_path / "films", tmp_path / "run"
    shutil.copytree(films, mine)
    begin(mine, out, unlabelled)
    plan = (out / "plan.json").read_text()
    (out / "plan.json").write_text(plan.replace('"crop": null', '"crop": "nonzero"'))
    with pytest.raises(InputError, match="plan.json: was edited after training began: crop"):
        radiffuse.fit(**settings(mine, out, unlabelled))
    (out / "plan.json").write_text(plan)
    learned = json.loads((out / "splits.json").read_text())["train"][0]
    label = mine / "labels" / f"{learned}.png"
    Image.fromarray(np.roll(np.asarray(Image.open(label)), 5)).save(label)
    with pytest.raises(InputError, match=f"begun with other images, labels.* of {learned}"):
        radiffuse.fit(**settings(mine, out, unlabelled))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--method", "diffusion", "--unlabelled", "p"],
            "--unlabelled: is for --method auto or --method finetune",
        ),
        (["--method", "scratch", "--pool.weight", "2"], "--pool.weight: takes no effect, since"),
        (
            ["--method", "scratch", "--unlabelled", "p", "--pool.strong.rotate", "5"],
            "--pool.strong.rotate: takes no effect, since images are moved as --augmentation says",
        ),
    ],
)
def test_what_takes_no_effect_is_refused(
    flags: list[str], words: str, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = line_of(["fit", str(films), "--out", str(tmp_path / "run"), *flags], capsys)
    assert words in line


def batches(plan: Plan, **pool: float) -> WithPool:
    training = Training(steps=20, batch_size=4, seed=3)
    given = Fit(augmentation=Augmentation(rotate=9.0), pool=Pool(**pool), training=training)  # type: ignore[arg-type]
    shape = tuple(n + 3 for n in plan.size) if plan.spatial_dims == 3 else plan.film
    sets = [Blank.like(plan, shape, labelled=k == 0, count=5 + k) for k in range(3)]
    labelled = Batches(
        sets[0], batch_size=4, seed=3, augmentation=given.augmentation, indices=[0, 1]
    )
    return beside(labelled, [(sets[1], [0, 2]), (sets[2], range(7))], given)


@pytest.mark.parametrize("plan", [Plan(2, ("x",), ("a", "b"), (16, 16)), volume_plan()])
def test_batches_of_the_pool_depend_on_the_step_alone(plan: Plan) -> None:
    both = batches(plan, start=0.25, ramp=0.2)
    assert not isinstance(both(4), PooledBatch)
    found = {step: both(step) for step in (5, 6, 9, 19)}
    strengths = [batch.strength for batch in found.values() if isinstance(batch, PooledBatch)]
    assert strengths == pytest.approx([0.25, 0.5, 1, 1])
    for step, batch in found.items():
        assert torch.equal(batch.images, both.labelled(step, 0, 1).images)  # as without a pool
        halves = [both(step, rank, 2) for rank in (0, 1)]
        assert isinstance(batch, PooledBatch)
        assert batch.pool.shape == batch.images.shape
        for name in ("images", "pool"):
            parts = torch.cat([getattr(half, name) for half in halves])
            assert torch.equal(parts, getattr(batch, name))
        parts = [batch.part(0, 2), batch.part(2, 4)]
        for half, part in zip(halves, parts, strict=True):
            changes = zip(half.changes, part.changes, strict=True)  # type: ignore[union-attr]
            assert all(np.array_equal(a.matrix, b.matrix) for a, b in changes)
    # Of 2 and 7 images the 2 come twice, the whole number next to the root of 7 / 2; 44 places are four epochs of 11.
    visited = [both.pool(step).cases for step in range(11)]
    assert sorted(name for names in visited for name in names) == sorted(
        4 * [f"blank-{i}" for i in (0, 0, 2, 2, *range(7))]
    )


def test_the_pool_counts_at_once_without_a_ramp() -> None:
    both = batches(Plan(2, ("x",), ("a", "b"), (16, 16)), start=0.0, ramp=0.0)
    assert both.strength(0) == 1
    assert dataclasses.replace(Pool(), start=1.0).start == 1.0
    assert batches(both.pool.places[0][0].prepared.plan, start=1.0).strength(19) == 0


def test_several_processes_are_refused(
    films: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radiffuse.train.pool.world_size", lambda: 2)
    with pytest.raises(InputError, match="^unlabelled: is learned from by one process, and 2"):
        radiffuse.fit(**settings(films, tmp_path / "run", unlabelled))


def test_a_small_pool_is_not_drowned_and_one_pool_is_drawn_as_it_is() -> None:
    """Shares grow with the square root: 4 beside 36 images are seen 3 times each, 12 of 48, and not 4 of 40."""
    plan = volume_plan()

    def seen(*counts: int) -> list[dict[int, int]]:
        """How often each image of each pool comes in an epoch."""
        blanks = [Blank.like(plan, plan.size, labelled=False, count=n) for n in counts]
        pools = [(blank, range(len(blank))) for blank in blanks]
        still = Augmentation()
        source = PoolBatches(pools, batch_size=1, seed=3, augmentation=still, strong=still)
        assert sorted(source.indices) == list(range(len(source.places)))
        drawn = [(one.prepared, index) for one, index in source.places]
        return [Counter(index for of, index in drawn if of is blank) for blank in blanks]

    assert seen(4, 36) == [dict.fromkeys(range(4), 3), dict.fromkeys(range(36), 1)]
    assert seen(5) == [dict.fromkeys(range(5), 1)]
    assert seen(5, 6) == [dict.fromkeys(range(5), 1), dict.fromkeys(range(6), 1)]
