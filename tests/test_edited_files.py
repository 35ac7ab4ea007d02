"""Edited files of runs, evaluations and synthesizers: used, or refused in one line, never a traceback."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import pretrain_settings
from edited_files import edits
from radiffuse.automatic.record import Record
from radiffuse.cli import main
from radiffuse.config import Diffusion, Fit, Machine, Pretrain, Study
from radiffuse.config.values import to_dict
from radiffuse.data import tables
from radiffuse.data.arrays import read_arrays, write_arrays
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.provenance import read_origins
from radiffuse.errors import InputError, RadiffuseError
from radiffuse.inference.members import Overrides
from radiffuse.inference.predictor import Predictor
from radiffuse.nets.pixel import PixelClassifier
from radiffuse.nets.registry import load_network, save_network
from radiffuse.phantoms import write_dataset
from radiffuse.release.card import card
from radiffuse.reports.html import Report
from radiffuse.reports.origin import origin_table
from radiffuse.reports.parts import settings_section
from radiffuse.studies.folder import study_folder
from radiffuse.studies.study import FIXED
from radiffuse.synthesis.generation import Provenance
from radiffuse.system.files import read_json, write_json
from radiffuse.train.run import DataFile, Run
from radiffuse.train.start import diffusion_of, load_denoiser
from radiffuse.train.start_run import start_run
from radiffuse.viewer.runs import Runs, described
from tiny_runs import tiny
from viewer_files import make_choice

CPU = Machine(accelerator="cpu", precision="32-true")
SOME = {
    "config.yaml": 701,
    "config.json": 41,
    "data.json": 31,
    "plan.json": 31,
    "log.jsonl": 17,
    "density.json": 11,
    "study.yaml": 211,
    "provenance.csv": 5,
}
"""Of the edits of a file, one in so many is tried; with the marker slow, all are."""
SPEEDS = pytest.mark.parametrize("all_edits", [False, pytest.param(True, marks=pytest.mark.slow)])


def survive(file: Path, read: Callable[[], object], every: int) -> int:
    """Read every edit of a file; returns how many were refused. Anything but one line is an error of the test."""
    sound, refused = file.read_bytes(), 0
    try:
        for what, content in itertools.islice(edits(file), 0, None, every):
            file.write_bytes(content)
            try:
                read()
            except RadiffuseError as error:
                refused += 1
                lines = str(error).splitlines()
            except Exception as error:
                raise AssertionError(f"{file.name}: {what}") from error
            else:
                continue
            assert len(lines) == 1 and len(lines[0]) < 3000, what  # noqa: PT018
    finally:
        file.write_bytes(sound)
    read()
    return refused


def test_a_choice_that_was_edited(tmp_path: Path) -> None:
    """Whatever is in it, the page shows it or names the file; the report of the run as well."""
    from radiffuse.reports.run import write_run_report

    folder = make_choice(tmp_path / "best")
    record = Record.read(folder, 0.0)
    assert record is not None
    together = {"members": ["scratch", "imagenet"], "dice": 0.8, "nsd": 0.7, "gain": 0.1}
    record.ensembles.append(together | {"low": 0.0, "high": 0.2})
    record.write()

    def read() -> None:
        entries = Runs()
        assert entries.add(folder)
        if problems := described(entries.all()[0])["problems"]:
            raise InputError("the page", problems[0], "See the line")
        write_run_report(folder)

    assert survive(folder / "choice.json", read, 61) > 0
    content = json.loads((folder / "choice.json").read_text())
    known = {one["name"] for one in content["candidates"]}
    assert known == {"scratch", "imagenet"}
    for name in known:
        left = [one for one in content["candidates"] if one["name"] != name]
        write_json(folder / "choice.json", content | {"candidates": left})
        with pytest.raises(InputError, match=f"damaged .{name} is not among the candidates"):
            Record.read(folder, 0.0)
    for group, change in (
        ("tried", {"steps": 0}),
        ("tried", {"dice": "x"}),
        ("members", {"seed": -1}),
    ):
        write_json(folder / "choice.json", content | {group: [content[group][0] | change]})
        with pytest.raises(InputError, match=r"choice\.json: is "):
            Record.read(folder, 0.0)


def every(name: str, all_edits: bool) -> int:
    return 1 if all_edits else SOME[Path(name).name]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Path:
    """A run of mask diffusion without training, with all the files of a run."""
    folder = tmp_path_factory.mktemp("edited") / "seg"
    plan = Plan(2, ("image",), ("background", "a", "b"), (32, 32))
    with start_run(folder, "fit", to_dict(Fit(method="scratch", data="d", out="o"))) as run:
        left = shutil.ignore_patterns("model", "state", "config.yaml", ".lock")
        shutil.copytree(pretrained, folder, ignore=left, dirs_exist_ok=True)
        (folder / "plan.json").write_text(plan.to_json())
        save_network(tiny(2, 3), run.model)
        write_json(folder / "splits.json", {"train": [], "validation": [], "test": ["b"]})
    return folder


def opened(folder: Path) -> None:
    """All that is read of a run but its report."""
    entries = Runs()
    assert entries.add(folder)
    described(entries.all()[0])
    run = Run.open(folder)
    card(run)
    Predictor.open([run], CPU, Overrides())
    assert main(["info", str(folder)]) == 0


def started(folder: Path) -> None:
    """All that is read of a pre-trained run that another one starts from."""
    run = Run.open(folder)
    load_denoiser(run)
    diffusion_of(run)
    card(run)


FILES = ["plan.json", "data.json", "config.yaml", "log.jsonl", "model/config.json"]


@SPEEDS
@pytest.mark.parametrize("name", FILES)
def test_a_run_that_was_edited(segmenter: Path, name: str, all_edits: bool) -> None:
    def read() -> None:
        try:
            opened(segmenter)
        except AssertionError:  # what ``info`` refused, it has printed
            raise InputError("info", "refused", "See the line") from None

    assert survive(segmenter / name, read, every(name, all_edits)) > 0


@SPEEDS
@pytest.mark.parametrize("name", ["config.yaml", "model/config.json", "data.json"])
def test_a_start_that_was_edited(
    pretrained: Path, tmp_path: Path, name: str, all_edits: bool
) -> None:
    folder = tmp_path / "pre"
    shutil.copytree(pretrained, folder)
    assert survive(folder / name, lambda: started(folder), every(name, all_edits)) > 0


@SPEEDS
@pytest.mark.parametrize(
    "name", ["config.json", "density.json", "unet/config.json", "vae/config.json"]
)
def test_a_synthesizer_that_was_edited(
    synthesizer: Path, tmp_path: Path, name: str, all_edits: bool
) -> None:
    from radiffuse.synthesis.synthesizer import load_synthesizer

    folder = tmp_path / "model"
    shutil.copytree(synthesizer / "model", folder)
    (folder / "SHA256SUMS").unlink()  # whoever edits a file can hash it
    step = every(name, all_edits) * (7 if "/" in name else 1)
    assert survive(folder / name, lambda: load_synthesizer(folder, 1), step) > 0


@SPEEDS
def test_a_study_that_was_edited(tmp_path: Path, all_edits: bool) -> None:
    settings = Study(data="d", out=str(tmp_path), methods=("scratch", "finetune"))

    def read() -> None:
        entries = Runs()
        assert entries.add(tmp_path)
        described(entries.all()[0])
        settings_section(Report("a", "b"), tmp_path)
        with study_folder(settings, "study.yaml", FIXED):
            pass

    with study_folder(settings, "study.yaml", FIXED):
        pass
    (tmp_path / "results.csv").write_text("method\nscratch\n")
    assert survive(tmp_path / "study.yaml", read, every("study.yaml", all_edits)) > 0


@pytest.mark.parametrize("group", [None, [], "x", 3, {"seed": [1]}, {"seed": None}])
def test_the_page_of_a_study_whose_runs_were_edited(tmp_path: Path, group: object) -> None:
    """A group of settings in a ``config.yaml`` that is no group: the page is written, or the file is named."""
    for name, training in (("scratch-1-0", group), ("finetune-1-0", {"seed": 7})):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        content = {"radiffuse": "0.1", "settings": {"training": training}}
        (run / "config.yaml").write_text(yaml.safe_dump(content))
        write_json(run / "cost.json", {"measured": {"hardware": group}})
    rows = dict(origin_table(tmp_path, "radiffuse study", {}).to_numpy().tolist())
    assert "7" in rows["seeds of training"].split(", ")


@SPEEDS
def test_generated_images_whose_table_was_edited(tmp_path: Path, all_edits: bool) -> None:
    write_dataset("chest", tmp_path, count=2, labelled=False, seed=1, size=(32, 32))
    films = sorted(tmp_path.rglob("*.png"))
    rows = [
        Provenance(
            image=film.relative_to(tmp_path).as_posix(),
            patient="p",
            seed=1,
            sampler="ddim",
            steps=2,
            model="m",
        ).row()
        for film in films
    ]
    table = tmp_path / "provenance.csv"
    pd.DataFrame(rows).to_csv(table, index=False)

    def read() -> None:
        read_origins(open_dataset(tmp_path))

    assert survive(table, read, every(table.name, all_edits)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data.json", "log.jsonl", "samples.npy", "config.yaml"])
def test_a_report_of_what_was_edited(pretrained: Path, tmp_path: Path, name: str) -> None:
    from radiffuse.reports.run import write_run_report

    folder = tmp_path / "pre"
    shutil.copytree(pretrained, folder)
    survive(folder / name, lambda: write_run_report(folder), 3)


def test_a_report_of_tables_and_arrays_that_were_edited(tmp_path: Path) -> None:
    from radiffuse.reports.run import write_evaluation_report

    scores = {"dice": [0.5, 0.7], "iou": [0.4, 0.6], "hd95": [3.0, 2.0], "nsd": [0.8, 0.9]}
    names = {"case": ["a", "b"], "class": ["x", "x"], "unit": ["px", "px"]}
    pd.DataFrame(names | scores).to_csv(tmp_path / "cases.csv", index=False)
    picture = np.zeros((2, 8, 8), np.uint8)
    arrays = {"image": picture, "truth": picture, "prediction": picture}
    write_arrays(tmp_path / "overlays.npz", arrays | {"names": np.array(["a", "b"])})
    for name, step in (("cases.csv", 7), ("overlays.npz", 3)):
        assert survive(tmp_path / name, lambda: write_evaluation_report(tmp_path), step) > 0


def test_arrays_that_unfold_without_bound_are_refused(tmp_path: Path) -> None:
    """One that is deflated 1000 times, one whose header promises more, one that holds objects."""
    write_arrays(tmp_path / "a.npz", {"x": np.zeros(2**20, np.uint8)})
    assert (tmp_path / "a.npz").stat().st_size < 2**12
    from radiffuse.data import arrays

    assert read_arrays(tmp_path / "a.npz", "x")["x"].nbytes == 2**20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "MOST_BYTES", 2**19)
        with pytest.raises(InputError, match="unfolds to more than"):
            read_arrays(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.zeros(4))
    content = (tmp_path / "b.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(content.replace(b"(4,), }    ", b"(99999,), }"))
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object))
    (tmp_path / "d.npy").write_bytes((tmp_path / "a.npz").read_bytes())
    (tmp_path / "e.npy").write_bytes(content.replace(b"(4,)", b"(9**"))
    for name in ("b.npy", "c.npy", "d.npy", "e.npy"):
        with pytest.raises(InputError, match=f"{name}: not readable"):
            read_arrays(tmp_path / name)


def test_an_array_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = {
        "rows": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "none": np.zeros((0, 3)),
        "names": np.array(["a", "longer"]),
        "empty": np.array(["", ""]),
    }
    write_arrays(tmp_path / "a.npz", saved)
    found = read_arrays(tmp_path / "a.npz", *saved)
    for name, array in saved.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"x": {"b": 1, "b": 1}}', "{" * 10**5])
def test_json_that_says_a_thing_twice_or_endlessly_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.json: is not readable JSON"):
        read_json(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"cases": "many"}, "cases is many, not a whole number"),
        ({"cases": True}, "cases is True, not a whole number"),
        ({"classes": "ab"}, "classes is ab, not a list"),
        ({"split": {"train": [3]}}, r"split.train\[0\] is 3, not text"),
        ({"skipped": [[]]}, r"skipped\[0\] is list, not a group of values"),
        ([], "it is list, not a group of values"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: object, word: str) -> None:
    write_json(tmp_path / "data.json", content)
    with pytest.raises(InputError, match=word):
        read_json(tmp_path / "data.json", DataFile)


@pytest.mark.slow
def test_a_resumed_run_that_was_edited(tmp_path: Path) -> None:
    """All that a training reads of its own folder."""
    import radiffuse

    write_dataset("chest", tmp_path / "data", count=8, labelled=False, seed=1, size=(32, 32))
    settings = pretrain_settings(
        tmp_path / "data", tmp_path / "run", tmp_path / "cache", training={"steps": 2}
    )
    radiffuse.pretrain(**settings)
    files = ["cases.json", "log.jsonl", "plan.json", "data.json"]
    for name in files:
        survive(tmp_path / "run" / name, lambda: radiffuse.pretrain(**settings), 60)
    state = json.loads(next((tmp_path / "run" / "state").glob("*2/state.json")).read_text())
    assert state["step"] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", "many"), ("steps", True), ("steps", 10**30 + 0.5), ("seed", []), ("optimizer", "x")],
)
def test_settings_of_a_run_are_held_against_their_types(
    tmp_path: Path, name: str, value: object
) -> None:
    with start_run(tmp_path / "run", "pretrain", to_dict(Pretrain(data="d", out="o"))) as run:
        pass
    path = run.folder / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["settings"]["training"][name] = value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=rf"config\.yaml: is damaged \(training\.{name} is "):
        Run.open(run.folder)


@pytest.mark.parametrize("change", [{"blocks": 10**9}, {"width": 10**9}, {"multipliers": [1] * 60}])
def test_a_network_that_is_too_large_is_refused_before_it_is_built(
    tmp_path: Path, change: dict[str, object]
) -> None:
    save_network(tiny(2, 3), tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"unet": config["unet"] | change}))
    with pytest.raises(
        InputError, match=f"config.json: describes no network .{next(iter(change))}"
    ):
        load_network(tmp_path)


def test_a_network_with_more_tensors_than_its_file_is_not_built(tmp_path: Path) -> None:
    """Of the kinds that no bound is known for."""
    with torch.random.fork_rng():
        network = PixelClassifier(tiny(2, 1).unet, Diffusion(), 2, voters=2)
    save_network(network, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"voters": 10**9}))
    with pytest.raises(InputError, match="describes no network .more than [0-9]+ tensors"):
        load_network(tmp_path)


@pytest.mark.parametrize(("limit", "most"), [("MOST_CELLS", 19_999), ("MOST_TEXT", 10**6)])
def test_a_parquet_table_that_unfolds_without_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """A text that is stored once and stands in every row: 2 MB in a file of few kB."""
    rows = pd.DataFrame({"image": ["a" * 200] * 10_000, "age": range(10_000)})
    rows.to_parquet(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 10**5
    found = tables.read_table(tmp_path / "a.parquet")
    assert found[9_999] == {"image": "a" * 200, "age": "9999"}
    monkeypatch.setattr(tables, limit, most)
    with pytest.raises(InputError, match="a.parquet: unfolds to [0-9]+ bytes in 10000 rows"):
        tables.read_table(tmp_path / "a.parquet")
