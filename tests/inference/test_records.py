"""Masks belong to the model, the settings and the scan that their record names; what does not agree is never kept."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import radiffuse
from conftest import TINY
from radiffuse.cli import main
from radiffuse.config import Fit, Machine, Predict
from radiffuse.data.cases import read_case_image
from radiffuse.data.dataset import Case
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.readers import read_label
from radiffuse.data.splits import load_splits
from radiffuse.errors import InputError
from radiffuse.inference.masks import MaskWriter
from radiffuse.inference.predictor import Predictor
from radiffuse.inference.records import MASKS, Record, same_scan, scan_of
from radiffuse.inference.scoring import score_cases
from radiffuse.train.run import Run
from radiffuse.viewer.scans import Scans, mask_layers
from tiny_runs import finished_run

MACHINE = {"accelerator": "cpu", "precision": "32-true"}
SIDE = 16


def film(path: Path, seed: int) -> Path:
    """An uncompressed picture: all have the same number of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    Image.fromarray(values).save(path, compress_level=0)
    return path


def replaced(path: Path, seed: int) -> None:
    """Another picture in its place, of the same size and time."""
    times = path.stat()
    film(path, seed)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)


def made(folder: Path, seed: int, classes: tuple[str, ...] = ("background", "liver")) -> Path:
    return finished_run(folder, Plan(2, ("image",), classes, (SIDE, SIDE)), seed=seed)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "."
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(3):
        film(tmp_path / "data" / f"{number}.png", number)
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made(tmp_path / "liver", 1)


def predict(runs: Path | tuple[Path, ...], data: Path, out: Path, **more: object) -> Path:
    return radiffuse.predict(runs=runs, data=data, out=out, machine=MACHINE, **more)


def test_masks_of_another_model_are_refused_by_name(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tumor = made(tmp_path / "tumor", 2, ("background", "tumor"))
    out = predict(run, data, tmp_path / "masks")
    before = contents(out)
    assert main(["predict", str(tumor), str(data), "--out", str(out), "--accelerator", "cpu"]) == 2
    assert f"{out}: holds masks of {run}, not of {tumor}. " in capsys.readouterr().err
    assert contents(out) == before
    assert json.loads(before["classes.json"])["1"] == "liver"


def test_a_command_that_made_no_mask_leaves_the_folder_to_the_corrected_one(
    run: Path, data: Path, tmp_path: Path
) -> None:
    """The run of another task, whose first scan is refused, and then the one that was meant."""
    other = finished_run(
        tmp_path / "other",
        Plan(3, ("image",), ("background", "tumor"), (8, 8, 8), spacing=(1.0, 1.0, 1.0)),
    )
    with pytest.raises(InputError, match="has 2 spatial axes, the run has 3"):
        predict(other, data, tmp_path / "masks")
    assert (tmp_path / "masks" / "prediction.json").is_file()
    predict(run, data, tmp_path / "masks")
    assert json.loads((tmp_path / "masks" / "classes.json").read_text())["1"] == "liver"
    assert len(list((tmp_path / "masks").glob("*.png"))) == 3


def test_a_run_that_was_trained_again_is_another_model(
    run: Path, data: Path, tmp_path: Path
) -> None:
    predict(run, data, tmp_path / "masks")
    shutil.rmtree(run)
    made(run, 2)
    with pytest.raises(InputError, match=r"holds masks of .*liver before it was trained again"):
        predict(run, data, tmp_path / "masks")


def test_another_plan_is_another_model(run: Path, data: Path, tmp_path: Path) -> None:
    predict(run, data, tmp_path / "masks")
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps(plan, indent=7))
    predict(run, data, tmp_path / "masks")  # written otherwise, the same plan
    (run / "plan.json").write_text(json.dumps(plan | {"postprocess": ["largest"]}))
    with pytest.raises(InputError, match=r"liver made with another plan\.json"):
        predict(run, data, tmp_path / "masks")


@pytest.mark.parametrize(
    ("name", "value"),
    [("overlap", 0.25), ("samples", 2), ("ensemble", "vote"), ("seed", 7), ("steps", 3), ("sampler", "ddim")],
)  # fmt: skip
def test_other_settings_are_refused_by_name(
    name: str, value: object, run: Path, data: Path, tmp_path: Path
) -> None:
    out = predict(run, data, tmp_path / "masks")
    made = json.loads((out / "prediction.json").read_text())
    usual = made["settings"][name]
    made["settings"][name] = value  # as if the run had drawn masks, or seen windows
    (out / "prediction.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match=rf"holds masks with {name} = {value}, not {usual}"):
        predict(run, data, out)


def test_another_ensemble_is_refused(run: Path, data: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", 2)
    predict((run, other), data, tmp_path / "masks")
    with pytest.raises(InputError, match=rf"holds masks of {run}, {other}, not of {run}\."):
        predict(run, data, tmp_path / "masks")


def test_the_mask_of_a_replaced_scan_is_made_again(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = predict(run, data, tmp_path / "masks", confidence=True)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    replaced(data / "1.png", 99)
    os.utime(data / "2.png")  # touched, the same content
    capsys.readouterr()
    predict(run, data, out, confidence=True)
    assert "made again, since their scans had changed: 1\n" in capsys.readouterr().err
    fresh = predict(run, data, tmp_path / "fresh", confidence=True)
    for name in ("0.png", "1.png", "2.png", "1-confidence.tif"):
        assert (out / name).read_bytes() == (fresh / name).read_bytes()
    kept = [path.name for path, time in before.items() if path.stat().st_mtime_ns == time]
    assert sorted(kept) == ["0.png", "2.png"]


def test_maps_that_are_missing_are_made_and_masks_stay(
    run: Path, data: Path, tmp_path: Path
) -> None:
    out = predict(run, data, tmp_path / "masks")
    before = {p.name: p.read_bytes() for p in out.glob("*.png")}
    predict(run, data, out, confidence=True)
    predict(run, data, out, uncertainty=True)
    (out / "2-confidence.tif").unlink()
    predict(run, data, out, confidence=True)
    fresh = predict(run, data, tmp_path / "fresh", confidence=True, uncertainty=True)
    assert {p.name for p in out.iterdir()} - {".lock"} == {p.name for p in fresh.iterdir()} - {
        ".lock"
    }
    for name in before | {"2-confidence.tif": b"", "2-entropy.tif": b""}:
        assert (out / name).read_bytes() == (fresh / name).read_bytes()
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == before
    (out / "2-confidence.tif").unlink()
    predict(run, data, out)  # nobody asks for it
    assert not (out / "2-confidence.tif").exists()


def test_the_folder_of_the_films_is_refused_before_anything_is_written(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(data)
    assert main(["predict", str(run), str(data), "--out", str(data), "--accelerator", "cpu"]) == 2
    assert (
        "is not empty, and nothing in it is of this command (prediction.json)"
        in capsys.readouterr().err
    )
    assert {p.name: p.read_bytes() for p in data.iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file"):
        predict(run, data, tmp_path / "file")


@pytest.mark.parametrize("name", ["1.png", "1-confidence.tif"])
def test_a_mask_that_was_changed_by_hand_is_refused_not_overwritten(
    name: str, run: Path, data: Path, tmp_path: Path
) -> None:
    out = predict(run, data, tmp_path / "masks", confidence=True)
    (out / name).write_bytes(b"the work of an hour")
    with pytest.raises(InputError, match=rf"{name}: is not as radiffuse wrote it"):
        predict(run, data, out, confidence=True)
    assert (out / name).read_bytes() == b"the work of an hour"
    (out / name).unlink()
    predict(run, data, out, confidence=True)


def test_after_a_kill_at_any_moment_each_mask_is_made_and_recorded_once(
    run: Path, data: Path, tmp_path: Path
) -> None:
    whole = predict(run, data, tmp_path / "whole")
    lines = (whole / MASKS).read_bytes().splitlines(keepends=True)
    expected = {p.name: p.read_bytes() for p in whole.glob("*.png")}
    states = {
        "nothing": ([], []),
        "header alone": (["prediction.json"], []),
        "line without mask": (["prediction.json", "0.png"], lines[:2]),
        "line cut short": (["prediction.json", "0.png"], [lines[0], lines[1][:30]]),
        "no line at all": (["prediction.json"], [b"\0\0\0\0\n"]),
    }
    for number, (files, written) in enumerate(states.values()):
        out = tmp_path / f"killed-{number}"
        (out / ".1.part").mkdir(parents=True)
        (out / ".1.part" / "1.png").write_bytes(b"half")
        for name in files:
            shutil.copy(whole / name, out / name)
        (out / MASKS).write_bytes(b"".join(written))
        if not files:
            (out / MASKS).unlink()
        predict(run, data, out)
        assert {p.name: p.read_bytes() for p in out.glob("*.png")} == expected
        assert not list(out.glob(".*.part"))
        record = Record.read(out)
        assert record is not None
        assert all(not record.altered(out / f"{i}.png", str(i)) for i in range(3))


def test_a_mask_without_a_line_is_someone_elses(run: Path, data: Path, tmp_path: Path) -> None:
    out = predict(run, data, tmp_path / "masks")
    film(data / "3.png", 3)
    shutil.copy(out / "0.png", out / "3.png")
    with pytest.raises(InputError, match=r"3\.png: is not as radiffuse wrote it"):
        predict(run, data, out)


def test_a_scan_that_became_unreadable_keeps_no_mask_of_the_scan_before(
    run: Path, data: Path, tmp_path: Path
) -> None:
    out = predict(run, data, tmp_path / "masks")
    (data / "1.png").write_bytes((data / "1.png").read_bytes()[:60])
    predict(run, data, out, reader={"skip_bad": True})
    assert sorted(p.name for p in out.glob("*.png")) == ["0.png", "2.png"]
    assert [row["case"] for row in json.loads((out / "skipped.json").read_text())] == ["1"]
    film(data / "1.png", 5)
    predict(run, data, out, reader={"skip_bad": True})
    assert (out / "1.png").exists()
    assert not (out / "skipped.json").exists()  # it would be stale


def test_every_scan_bad_is_an_error(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.iterdir():
        path.write_bytes(path.read_bytes()[:60])
    out = tmp_path / "masks"
    line = ["predict", str(run), str(data), "--out", str(out), "--accelerator", "cpu", "--skip-bad"]
    assert main(line) == 2
    assert "holds no scan that can be segmented" in capsys.readouterr().err
    assert len(json.loads((out / "skipped.json").read_text())) == 3


def test_a_record_of_a_stranger_deletes_nothing_outside(
    run: Path, data: Path, tmp_path: Path
) -> None:
    out = predict(run, data, tmp_path / "masks")
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (out / "link").symlink_to(tmp_path)
    for name in ("../victim.txt", str(victim), "link/victim.txt", "x/../../victim.txt"):
        entry = {"case": "1", "scan": {}, "trained": False, "files": {"mask": {name: "0"}}}
        with (out / MASKS).open("a") as file:
            file.write(json.dumps(entry) + "\n")
    for line in ("[]", "7", '{"case": 1}', '{"case": "1", "scan": {}, "files": []}', "{", "null"):
        with (out / MASKS).open("a") as file:
            file.write(line + "\n")
    predict(run, data, out)
    assert victim.read_text() == "precious"
    for text in ("[]", "{}", '{"runs": 1, "settings": {}, "classes": {}}', "no json"):
        (out / "prediction.json").write_text(text)
        with pytest.raises(InputError, match=r"prediction\.json"):
            predict(run, data, out)


def test_the_voxels_behind_a_header_are_part_of_the_scan(tmp_path: Path) -> None:
    for name, line in (("a.mhd", "ElementDataFile = a.raw"), ("b.nhdr", None)):
        raw = tmp_path / f"{name[0]}.raw"
        raw.write_bytes(bytes(8))
        if line:
            text = f"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n{line}\n"
        else:
            text = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: b.raw\n\n"
        (tmp_path / name).write_text(text)
        case = Case(name, (tmp_path / name,))
        read_case_image(case)
        before = scan_of(case) | {"sha256": "of zeros"}
        assert same_scan(before, case)
        raw.write_bytes(bytes(7) + b"\1")
        assert not same_scan(before, case)


def test_a_worker_refuses_a_run_that_is_no_longer_what_the_command_saw(
    run: Path, data: Path, tmp_path: Path
) -> None:
    settings = Predict(runs=(str(run),), data=str(data), out=str(tmp_path / "masks"))
    sent = pickle.dumps(MaskWriter(settings))
    assert pickle.loads(sent).predictor.plan.classes == ("background", "liver")
    shutil.rmtree(run)
    made(run, 2)
    with pytest.raises(InputError, match="has changed since the command began"):
        pickle.loads(sent).predictor  # noqa: B018


# ------------------------------------------------------------------------------------------------ who reads it


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    for number in range(3):
        film(tmp_path / "truth" / "images" / f"{number}.png", number)
        label = np.random.default_rng(number + 50).integers(0, 2, (SIDE, SIDE), dtype=np.uint8)
        (tmp_path / "truth" / "labels").mkdir(exist_ok=True)
        Image.fromarray(label).save(tmp_path / "truth" / "labels" / f"{number}.png")
    return tmp_path / "truth"


def scores(masks: Path, truth: Path, out: Path, **more: object) -> dict[str, object]:
    radiffuse.evaluate(masks=masks, truth=truth, out=out, **more)
    found: dict[str, object] = json.loads((out / "evaluation.json").read_text())
    return found


def test_masks_of_another_scan_are_not_scored(
    run: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = predict(run, truth, tmp_path / "masks")
    assert scores(out, truth, tmp_path / "scores")["notes"] == []
    replaced(truth / "images" / "1.png", 77)
    with pytest.raises(InputError, match=r"1\.png: was made from another scan than"):
        scores(out, truth, tmp_path / "scores")
    capsys.readouterr()
    noted = scores(out, truth, tmp_path / "scores", reader={"skip_bad": True})
    assert noted["notes"] == ["1 cases were left out: 1"]
    assert "was made from another scan" in capsys.readouterr().err
    for number in (0, 2):
        replaced(truth / "images" / f"{number}.png", 80 + number)
    with pytest.raises(InputError, match="holds no case that can be scored"):
        scores(out, truth, tmp_path / "scores", reader={"skip_bad": True})


def test_the_same_scans_elsewhere_or_saved_anew_are_scored_without_a_word(
    run: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = predict(run, truth, tmp_path / "masks")
    shutil.copytree(truth, tmp_path / "copy")
    for path in (tmp_path / "copy" / "images").iterdir():
        Image.open(path).save(path, compress_level=9)
    capsys.readouterr()
    assert scores(out, tmp_path / "copy", tmp_path / "scores")["notes"] == []
    assert "warning" not in capsys.readouterr().err


def test_masks_of_other_programs_are_scored_without_a_word(
    truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = scores(truth / "labels", truth, tmp_path / "scores")
    assert noted["models"] == []
    assert "warning" not in capsys.readouterr().err


def test_scores_of_training_cases_and_of_changed_masks_are_said(
    run: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = {"root": str(truth), "split": {"train": ["0", "2"], "validation": ["1"]}}
    (run / "data.json").write_text(json.dumps(described))
    out = predict(run, truth, tmp_path / "masks")
    Image.fromarray(np.ones((SIDE, SIDE), np.uint8)).save(out / "2.png")
    capsys.readouterr()
    noted = scores(out, truth, tmp_path / "scores")
    expected = [
        "2 of 3 cases are of patients of the training set, so their scores are not those of new ones: 0, 2",
        "1 masks are not as radiffuse wrote them: 2",
    ]
    assert noted["notes"] == expected
    said = capsys.readouterr().err
    assert all(f"warning: {line}\n" in said for line in expected)
    page = (tmp_path / "scores" / "report.html").read_text()
    assert "2 of 3 cases are of patients of the training set" in page
    record = Record.read(out)
    assert record is not None
    assert record.models in page
    (truth / "patients.csv").write_text("image,patient\n0.png,p\n1.png,p\n2.png,q\n")
    described["split"] = {"train": ["0"]}
    (run / "data.json").write_text(json.dumps(described))
    by_patient = scores(predict(run, truth, tmp_path / "again"), truth, tmp_path / "s")
    assert by_patient["notes"][0].endswith("not those of new ones: 0, 1")


def test_classes_that_contradict_the_record_are_refused(
    run: Path, truth: Path, tmp_path: Path
) -> None:
    out = predict(run, truth, tmp_path / "masks")
    (out / "classes.json").write_text('{"0": "background", "1": "tumor"}')
    with pytest.raises(
        InputError, match=r"classes\.json: names other classes than prediction\.json"
    ):
        scores(out, truth, tmp_path / "scores")
    (tmp_path / "named.json").write_text('{"0": "background", "1": "lesion"}')
    named = str(tmp_path / "named.json")
    scores(out, truth, tmp_path / "s", prediction_classes=named, truth_classes=named)


def test_the_page_refuses_masks_of_another_scan_and_names_changed_ones(
    run: Path, data: Path, tmp_path: Path
) -> None:
    out = predict(run, data, tmp_path / "masks", confidence=True)
    replaced(data / "1.png", 99)
    with Image.open(data / "0.png") as same:
        same.save(data / "0.png", compress_level=9)  # other bytes, the same pixels
    (out / "2.png").write_bytes((out / "0.png").read_bytes())
    record, scans = Record.read(out), Scans()
    assert record is not None
    items = scans.add(open_dataset(data).cases)
    layers = [mask_layers(out, item, scans, record) for item in items]
    assert [found[0].name for found in layers] == [
        "prediction",
        "prediction",
        "prediction, changed since",
    ]
    assert [found[0].model for found in layers] == [record.models, record.models, ""]
    assert layers[0][0].classes == ("background", "liver")
    assert [layer.kind for layer in layers[0]] == ["mask", "map"]
    for layer in layers[0]:
        assert scans.array(items[0], layer).shape == (1, SIDE, SIDE)
    for layer in layers[1]:  # the mask and its map
        with pytest.raises(InputError, match=r"1\.png: was made from another scan than"):
            scans.array(items[1], layer)


def test_predicted_masks_in_a_data_set_are_not_found_as_scans(run: Path, data: Path) -> None:
    for _ in range(3):
        out = predict(run, data, data / "pred")
        assert len(list(out.glob("*.png"))) == 3
    assert [case.name for case in open_dataset(data)] == ["0", "1", "2"]
    with pytest.raises(InputError, match="is a folder of masks that radiffuse predicted"):
        open_dataset(data / "pred")
    radiffuse.evaluate(masks=data / "pred", truth=_labelled(data), out=data / "scores")
    assert len(open_dataset(data)) == 3


def _labelled(data: Path) -> Path:
    root = data.parent / "labelled"
    shutil.copytree(data, root / "images", ignore=shutil.ignore_patterns("pred"))
    shutil.copytree(data, root / "labels", ignore=shutil.ignore_patterns("pred"))
    for path in (root / "labels").iterdir():
        Image.fromarray(read_label(path).array[0].astype(np.uint8) % 2).save(path)
    return root


# ------------------------------------------------------------------------------------------------ bad cases


def test_a_bad_case_is_left_out_of_scores_and_all_bad_is_an_error(
    run: Path, truth: Path, tmp_path: Path
) -> None:
    predictor = Predictor.open([Run.open(run)], Machine(accelerator="cpu", precision="32-true"))
    dataset, out = open_dataset(truth), tmp_path / "scores"
    bad = truth / "images" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(InputError, match=r"1\.png"):
        score_cases(predictor, dataset, ["0", "1"], out)
    path = score_cases(predictor, dataset, ["0", "1"], out, skip_bad=True)
    assert {line.split(",")[0] for line in path.read_text().splitlines()[1:]} == {"0"}
    with pytest.raises(InputError, match="holds no case that can be scored"):
        score_cases(predictor, dataset, ["1"], out, skip_bad=True)


def test_a_case_that_proves_bad_once_it_is_segmented_counts_in_no_table(
    run: Path, truth: Path, tmp_path: Path
) -> None:
    predictor = Predictor.open([Run.open(run)], Machine(accelerator="cpu", precision="32-true"))
    dataset = open_dataset(truth)
    score_cases(predictor, dataset, ["0"], tmp_path / "one")
    label = truth / "labels" / "1.png"
    Image.fromarray(np.full_like(read_label(label).array[0], 77, np.uint8)).save(label)
    score_cases(predictor, dataset, ["0", "1"], tmp_path / "two", skip_bad=True)
    for name in ("cases.csv", "calibration.csv"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_part_without_a_usable_case_is_refused_before_training(
    part: str, films: Path, tmp_path: Path
) -> None:
    data = tmp_path / "films"
    shutil.copytree(films, data)
    settings = {
        "data": data,
        "method": "scratch",
        "labels": 2,
        "reader": {"skip_bad": True},
        "machine": MACHINE,
        "plan": {"size": (32, 32)},
        "training": {"steps": 1, "batch_size": 2},
    }
    splits = load_splits(open_dataset(data), Fit().split, tmp_path / "cache", 0)
    for name in splits.budget(2, 0) if part == "train" else splits.validation:
        path = data / "images" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:60])
    purpose = "learn from" if part == "train" else "validate on"
    with pytest.raises(InputError, match=f"has no usable case to {purpose}"):
        radiffuse.fit(out=tmp_path / "run", network=TINY, **settings)
    assert not (tmp_path / "run" / "log.jsonl").exists()


@pytest.mark.parametrize(
    "line",
    [
        "evaluate {masks} {data} --out {data}",
        "evaluate {masks} {data} --out {data}/images",
        "evaluate {masks} {data} --out {data}/tables",
        "anatomy chest --out {data}/images --count 1 --size 16,16",
        "anatomy chest --out {data} --count 1 --size 16,16 --labelled",
        "anatomy chest --out {data} --count 1 --size 16,16",
        "study {data} --out {data} --methods scratch --labels 1 --draws 1",
        "export {run} --out {data}",
        "judge {data} {data} --out {data} --only fidelity",
    ],
)
def test_no_command_writes_results_among_the_images(
    line: str, run: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which would overwrite some of them, and make the folder one of radiffuse."""
    masks = predict(run, truth, tmp_path / "masks")
    (truth / "tables").mkdir()
    (truth / "tables" / "classes.csv").write_text("of someone else\n")
    before = {path: path.stat().st_mtime_ns for path in truth.rglob("*")}
    assert main(line.format(data=truth, run=run, masks=masks).split()) == 2
    assert "Choose another --out" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in truth.rglob("*")} == before
    assert len(open_dataset(truth)) == 3
