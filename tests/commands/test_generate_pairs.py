"""Drawn pairs of image and mask: a data set that ``fit --with`` reads, and that leaks no held-out patient."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import radiffuse
from conftest import TINY
from radiffuse.config import Data, Diffusion, Fit, Network, resolve_network
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.provenance import read_origins
from radiffuse.data.readers import write_label
from radiffuse.data.splits import Splits
from radiffuse.errors import InputError
from radiffuse.inference import draw as drawing
from radiffuse.nets.joint_denoiser import JointDenoiser
from radiffuse.nets.registry import save_network
from radiffuse.synthesis import joint_generation
from radiffuse.system.files import write_atomic
from radiffuse.train.cases import open_more
from radiffuse.train.further_images import read_pools
from radiffuse.train.run import Run
from radiffuse.train.start import load_pretrained
from radiffuse.train.start_run import start_run
from tiny_runs import shake, volume_plan

MACHINE = {"accelerator": "cpu", "precision": "32-true"}


def joint_run(folder: Path, plan: Plan, patients: tuple[str, ...]) -> Path:
    """A run of image and mask that nobody trained."""
    process = asdict(Diffusion(num_train_timesteps=10, prediction_type="v"))
    settings = {"method": "joint", "joint": {"process": process}, "network": {}}
    with start_run(folder, "fit", settings) as run:
        write_atomic(folder / "plan.json", plan.to_json())
        run.write_data({"split": {"train": list(patients)}, "learned_patients": list(patients)})
        network = Network(
            width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8
        )
        unet = resolve_network(
            network,
            spatial_dims=plan.spatial_dims,
            in_channels=len(plan.channels),
            out_channels=len(plan.classes),
        )
        generator = torch.Generator().manual_seed(1)
        joint = JointDenoiser.from_scratch(unet, timesteps=10, generator=generator)
        shake(joint, 2)
        save_network(joint, run.model)
    return folder


def films_plan(films: Path) -> Plan:
    classes = open_dataset(films).classes
    return Plan(2, ("image",), classes, (32, 32))


def draw(run: Path, out: Path, **changes: object) -> Path:
    settings = {"count": 3, "steps": 4, "machine": MACHINE} | changes
    return Path(radiffuse.generate(run=run, out=out, **settings))


@pytest.mark.parametrize("dims", [2, 3])
def test_pairs_are_a_labelled_data_set(dims: int, tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a", "b"), (16, 24)) if dims == 2 else volume_plan()
    out = draw(joint_run(tmp_path / "run", plan, ("p1", "p2")), tmp_path / "pairs")
    dataset = open_dataset(out)
    assert len(dataset.labelled) == len(dataset) == 3
    assert dataset.classes == plan.classes
    assert {case.group for case in dataset} == {"p1+p2"}
    values = set()
    for case in dataset:
        image, label = read_case_image(case), read_case_label(case)
        assert image.spatial_shape == label.spatial_shape == plan.size
        assert (image.spacing or (1.0,) * dims) == (label.spacing or (1.0,) * dims)
        values |= set(np.unique(label.array).tolist())
        if dims == 3:
            assert float(image.array.min()) >= plan.low
            assert float(image.array.max()) <= plan.high
    assert len(values) > 1
    assert values <= {0, 1, 2}
    with (out / "provenance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert all((out / row["image"]).is_file() and row["synthetic"] == "yes" for row in rows)
    assert {origin.parents for origin in read_origins(dataset).values()} == {("p1", "p2")}


def test_ancestors_are_written_once_and_older_folders_are_read(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    patients = tuple(f"patient+{i:03d}" for i in range(300))
    out = draw(joint_run(tmp_path / "run", plan, patients), tmp_path / "pairs", count=8, steps=1)
    texts = [path.read_text() for path in out.glob("*.*")]
    assert (
        sum(text.count("patient+123") for text in texts) == 2
    )  # once as a patient, once as a case
    for place in (out, out / "provenance.csv"):
        assert {case.group for case in open_dataset(place)} == {"+".join(patients)}
    names = [path.name for path in sorted((out / "images").iterdir())]
    joined = "+".join(patients)
    (out / "ancestors.json").unlink()
    with pytest.raises(InputError, match=r"ancestors\.json: does not say who ancestors-"):
        open_dataset(out)
    (out / "patients.csv").write_text(  # as earlier versions wrote them
        "image,patient\n" + "".join(f"images/{name},{joined}\n" for name in names)
    )
    (out / "provenance.csv").write_text(
        "image,strategy,parents\n" + "".join(f"images/{name},joint,p1+p2\n" for name in names)
    )
    dataset = open_dataset(out)
    assert {case.group for case in dataset} == {joined}
    assert {origin.parents for origin in read_origins(dataset).values()} == {("p1", "p2")}


def test_a_stopped_drawing_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a", "b"), (16, 16))
    run = joint_run(tmp_path / "run", plan, ("p1",))
    out = draw(run, tmp_path / "pairs")
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")}
    (out / "labels" / "pair-00001.png").unlink()
    (out / "patients.csv").unlink()
    draw(run, out)
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")} == before
    with pytest.raises(InputError, match="seed = 0"):
        draw(run, out, seed=1)


def test_what_was_drawn_before_a_stop_is_not_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "TOGETHER", 2)
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    run = joint_run(tmp_path / "run", plan, ("p1",))
    whole = draw(run, tmp_path / "whole", count=5)
    written: list[str] = []

    def write(path: Path, mask: Any, scan: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        write_label(path, mask, scan)

    monkeypatch.setattr(joint_generation, "write_label", write)
    with pytest.raises(KeyboardInterrupt):
        draw(run, tmp_path / "out", count=5)
    assert written == [f"pair-0000{i}.png" for i in range(3)]  # before all were drawn
    written = ["again"] * 4
    draw(run, tmp_path / "out", count=5)
    assert written[4:] == [f"pair-0000{i}.png" for i in (2, 3, 4)]
    outs = (whole / "labels", tmp_path / "out" / "labels")
    files = [{p.name: p.read_bytes() for p in out.iterdir()} for out in outs]
    assert files[0] == files[1]
    assert len(files[0]) == 5


def test_pairs_are_learned_from_unless_they_descend_from_held_out_patients(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "data": films,
        "method": "scratch",
        "network": TINY,
        "plan": {"size": (32, 32)},
        "training": {"steps": 1, "batch_size": 2, "validate_every": 0},
        "labels": 2,
        "reader": {"cache": str(tmp_path / "c")},
        "machine": MACHINE,
    }
    alone = radiffuse.fit(**given, out=tmp_path / "alone")
    split = alone.data["split"]
    taken, held = (
        split["train"],
        sorted({c.group for c in open_dataset(films)} - set(split["train"])),
    )
    for name, patients, count in (("own", tuple(taken), 3), ("leak", (*taken, *held), 0)):
        run = joint_run(tmp_path / f"joint-{name}", films_plan(films), patients)
        pairs = draw(run, tmp_path / name)
        segmenter = radiffuse.fit(**given, out=tmp_path / f"seg-{name}", with_=(str(pairs),))
        assert segmenter.data["with_cases"] == count
        assert ("drawn from them: none is used" in capsys.readouterr().err) == (count == 0)
        assert segmenter.data["split"] == split


def test_drawn_pairs_are_read_by_their_own_record(tmp_path: Path) -> None:
    """How the files of the real set are read says nothing about them: no label is lost, no ancestor hidden."""
    plan = Plan(2, ("image",), ("background", "a", "b"), (16, 16))
    pairs = str(draw(joint_run(tmp_path / "run", plan, ("p1", "p2")), tmp_path / "pairs"))
    labels = [read_case_label(case).array for case in open_more(pairs, Data())]
    assert {0, 1, 2} == set(np.unique(labels))
    for reader in (
        Data(group=r"(\d+)"),
        Data(label_values=(0, 2, 1)),
        Data(label_threshold=128),
        Data(only="film"),
    ):
        more = open_more(pairs, reader)
        assert {case.group for case in more} == {"p1+p2"}
        np.testing.assert_array_equal([read_case_label(case).array for case in more], labels)
    held = Splits((), (), ("real",))
    real = Dataset(tmp_path, "images", (Case("real", (tmp_path / "real.png",), group="p1"),))
    with pytest.raises(InputError, match="all of them of validation or test patients"):
        read_pools(Fit(unlabelled=(pairs,), reader=Data(group=r"(\d+)")), real, held)


def test_the_settings_of_a_drawing_that_drew_nothing_do_not_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused while it was drawn, such as a guidance that ends in NaN, is given again as it should be."""

    def refuse(*_: object, **__: object) -> None:
        raise InputError("images 0 to 2", "are not finite", "Use another run")

    plan = Plan(2, ("image",), ("background", "a", "b"), (16, 16))
    run, out = joint_run(tmp_path / "run", plan, ("p1",)), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(joint_generation.JointGeneration, "write_one", refuse)
        with pytest.raises(InputError, match="are not finite"):
            draw(run, out, seed=1)
    draw(run, out, seed=2)
    with pytest.raises(InputError, match="holds a generation with seed = 2, not 3"):
        draw(run, out, seed=3)


def test_where_no_steps_are_given_no_more_are_taken_than_were_trained(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    run = joint_run(tmp_path / "run", plan, ("p1",))  # of 10 timesteps
    out = draw(run, tmp_path / "free", steps=None)
    given = draw(run, tmp_path / "given", steps=10)
    table = (out / "provenance.csv").read_text()
    assert {row["steps"] for row in csv.DictReader(table.splitlines())} == {"10"}
    assert table == (given / "provenance.csv").read_text()
    for file in sorted(given.rglob("*.png")):
        assert (out / file.relative_to(given)).read_bytes() == file.read_bytes()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    run = joint_run(tmp_path / "run", plan, ("p1",))
    for changes, word in (({"strategy": ("manifold",)}, "strategy"), ({"steps": 11}, "10 that")):
        with pytest.raises(InputError, match=word):
            draw(run, tmp_path / "out", **changes)
    published = tmp_path / "published"
    radiffuse.export(run=run, out=published, format="pretrained")
    with pytest.raises(InputError, match="does not say whose labels"):
        draw(published, tmp_path / "out")
    color = Plan(2, ("a", "b"), ("background", "a"), (16, 16))
    with pytest.raises(InputError, match="draws 2 channels"):
        draw(joint_run(tmp_path / "color", color, ("p1",)), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": ["background", "a"]}, "names 2 classes, the network tells 3 apart"),
        ({"classes": ["background", "a", "b", "c"]}, "names 4 classes, the network tells 3"),
        ({"size": [15, 16]}, "has size 15x16, the network takes multiples of 2x2"),
        ({"channels": ["a", "b"]}, "names 2 channels, the network sees 1"),
        (
            {"spatial_dims": 3, "size": [16, 16, 16], "spacing": [1, 1, 1], "resize": "stretch"},
            "is for 3D images, the network for 2D",
        ),
    ],
)
def test_a_plan_edited_for_another_network_draws_nothing(
    change: dict[str, object], word: str, tmp_path: Path
) -> None:
    plan = Plan(2, ("image",), ("background", "a", "b"), (16, 16))
    run = joint_run(tmp_path / "run", plan, ("p1",))
    path = run / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=rf"plan\.json: .*{word}"):
        draw(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if "classes" not in change:
        with pytest.raises(InputError, match=rf"plan\.json: .*{word}"):
            load_pretrained(Run.open(run))
