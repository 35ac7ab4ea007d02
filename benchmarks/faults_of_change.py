"""Faults that leave every file whole: what changes under a command, and what comes from strangers; for ``faults.py``.

Each is a function of the bench that gives the outcome and details.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from layout_files import coco, film, film_label, volume
from layout_files import dicom as dicom_slice
from PIL import Image
from safetensors.torch import load_file, save_file

from fault_runs import COMMANDS, Bench, Outcome, differences, fingerprint
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import read_plan
from tiny_runs import finished_run

Result = tuple[str, str]
Fault = Callable[[Bench], Result]

GOOD = {"refused in one line", "identical", "made again", "read, one line", "nothing left behind"}
FAULTS: dict[tuple[str, str], Fault] = {}


def fault(kind: str, where: str) -> Callable[[Fault], Fault]:
    """Enter a fault."""

    def enter(made: Fault) -> Fault:
        FAULTS[kind, where] = made
        return made

    return enter


def refused(outcome: Outcome, *words: str) -> Result:
    """Whether it ended with one line that holds the words."""
    good = outcome.clear and all(word in outcome.text for word in words)
    return ("refused in one line", "") if good else ("no clear line", outcome.text)


def equal(
    outcome: Outcome, wanted: dict[str, str], folder: Path, name: str = "identical"
) -> Result:
    """Whether it went well and left what it should."""
    if outcome.code:
        return "does not finish", outcome.text
    wrong = differences(wanted, fingerprint(folder))
    return ("differs", ", ".join(wrong)) if wrong else (name, "")


def predict(bench: Bench, cwd: Path, more: str = "", run: str = "seg") -> Outcome:
    """Predict the labelled films into ``out``."""
    words = (
        COMMANDS["predict"].replace("predict seg", f"predict {run}").replace(" --confidence", "")
    )
    return bench.run([*words.split(), *more.split()], cwd)


def _first(cwd: Path, pattern: str) -> Path:
    return sorted(cwd.glob(pattern))[0]


# -------------------------------------------------------------------------- masks of something else


@fault("masks of another model in the folder", "predict")
def other_model(bench: Bench) -> Result:
    cwd = bench.place("predict")
    predict(bench, cwd)
    finished_run(cwd / "other", read_plan(cwd / "seg" / "plan.json"), seed=3)
    return refused(predict(bench, cwd, run="other"), "another --out")


@fault("masks of another setting in the folder", "predict")
def other_setting(bench: Bench) -> Result:
    cwd = bench.place("predict")
    finished_run(cwd / "other", read_plan(cwd / "seg" / "plan.json"), seed=3)
    words = COMMANDS["predict"].replace("predict seg", "predict seg other").split()
    bench.run(words, cwd)
    return refused(bench.run([*words, "--ensemble", "vote"], cwd), "ensemble")


@fault("maps asked for later", "predict --confidence")
def maps_later(bench: Bench) -> Result:
    cwd, straight = bench.place("predict"), bench.place("predict")
    predict(bench, straight, "--confidence")
    predict(bench, cwd)
    outcome = predict(bench, cwd, "--confidence")
    return equal(outcome, fingerprint(straight / "out"), cwd / "out", "made again")


@fault("image replaced after its mask", "predict")
def other_image(bench: Bench) -> Result:
    cwd, straight = bench.place("predict"), bench.place("predict")
    predict(bench, cwd)
    for folder in (cwd, straight):
        pixels = np.asarray(Image.open(path := _first(folder, "labelled/images/*.png")))
        Image.fromarray(pixels[::-1]).save(path)
    predict(bench, straight)
    return equal(predict(bench, cwd), fingerprint(straight / "out"), cwd / "out", "made again")


@fault("image replaced after its mask", "evaluate")
def other_image_scored(bench: Bench) -> Result:
    cwd = bench.place("evaluate")
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(_first(cwd, "labelled/images/*.png"))
    return refused(bench.run(COMMANDS["evaluate"].split(), cwd), "another scan")


@fault("--out is the folder of the films", "predict")
def out_is_in(bench: Bench) -> Result:
    cwd = bench.place("predict")
    before = fingerprint(cwd / "labelled")
    outcome = bench.run(["predict", "seg", "labelled/images", "--out", "labelled/images"], cwd)
    kept = before == fingerprint(cwd / "labelled")
    return refused(outcome, "Choose another --out") if kept else ("overwritten", "")


@fault("masks below the films", "predict, three times")
def outputs_as_inputs(bench: Bench) -> Result:
    cwd = bench.place("predict")
    words = [
        "predict",
        "seg",
        "labelled/images",
        "--out",
        "labelled/images/pred",
        "--accelerator",
        "cpu",
    ]
    for _ in range(3):
        outcome = bench.run(words, cwd)
    masks = len(list((cwd / "labelled" / "images" / "pred").glob("*.png")))
    good = outcome.code == 0 and masks == 10
    return ("identical", "") if good else ("reads its own masks", f"{masks} {outcome.text}")


@fault("every scan bad", "predict --skip-bad")
def all_bad(bench: Bench) -> Result:
    cwd = bench.place("predict")
    for path in (cwd / "labelled" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    outcome = bench.run(["predict", "seg", "labelled/images", "--out", "out", "--skip-bad"], cwd)
    good = outcome.code == 2 and "Traceback" not in outcome.text
    return ("refused in one line", "") if good else ("no clear line", outcome.text)


# ------------------------------------------------------------------------ data and runs that change


def _changed(bench: Bench, change: Callable[[Path], object]) -> Result:
    """The data set changes between a kill and the next command."""
    straight, _ = bench.reference("finetune")
    cwd = bench.place("finetune")
    words = COMMANDS["finetune"].split()
    bench.run(words, cwd, kill_at_write=int(0.75 * straight.writes))
    change(cwd / "labelled")
    return refused(bench.run(words, cwd), "out")


@fault("films removed before a resume", "fit")
def films_gone(bench: Bench) -> Result:
    def change(data: Path) -> None:
        path = _first(data, "images/*.png")
        path.unlink()
        (data / "labels" / path.name).unlink()

    return _changed(bench, change)


@fault("films added before a resume", "fit")
def films_more(bench: Bench) -> Result:
    def change(data: Path) -> None:
        for inner in ("images", "labels"):
            first = _first(data, f"{inner}/*.png")
            shutil.copy(first, first.with_name("new.png"))
        pixels = np.asarray(Image.open(data / "images" / "new.png"))
        Image.fromarray(pixels[::-1]).save(data / "images" / "new.png")

    return _changed(bench, change)


@fault("a label redrawn before a resume", "fit")
def label_redrawn(bench: Bench) -> Result:
    def change(data: Path) -> None:
        for path in data.glob("labels/*.png"):
            Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)

    return _changed(bench, change)


def _edited(bench: Bench, edit: Callable[[dict[str, Any]], object]) -> Result:
    """Both checkpoints of a killed run say something else: they are not used, and the run ends the same."""
    straight, reference = bench.reference("finetune")
    cwd = bench.place("finetune")
    words = COMMANDS["finetune"].split()
    bench.run(words, cwd, kill_at_write=int(0.75 * straight.writes))
    for path in (cwd / "out" / "state").glob("*/state.json"):
        edit(content := json.loads(path.read_text()))
        path.write_text(json.dumps(content))
    outcome = bench.run(words, cwd)
    if outcome.code == 2:
        return refused(outcome)
    return equal(outcome, bench.result("finetune", reference), cwd / "out")


@fault("step edited in state.json", "fit")
def step_edited(bench: Bench) -> Result:
    return _edited(bench, lambda content: content.update(step=content["step"] + 1))


@fault("micro_batch -1 in state.json", "fit")
def passes_edited(bench: Bench) -> Result:
    return _edited(bench, lambda content: content.update(micro_batch=-1))


@fault("betas and weight decay edited in state.json", "fit")
def optimizer_edited(bench: Bench) -> Result:
    def edit(content: dict[str, Any]) -> None:
        text = json.dumps(content)
        for name in ("betas", "weight_decay"):
            assert name in text, text[:500]
        content.clear()
        content.update(json.loads(text.replace('"weight_decay": 0', '"weight_decay": 5')))

    return _edited(bench, edit)


@fault("weights that are NaN, with their hash", "predict")
def not_a_number(bench: Bench) -> Result:
    cwd = bench.place("predict")
    path = cwd / "seg" / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors[max(tensors)] *= float("nan")
    save_file(tensors, path)
    sums = path.with_name("SHA256SUMS")
    lines = [line.split(maxsplit=1) for line in sums.read_text().splitlines()]
    hashes = {
        name: sha256(path.with_name(name.strip("* ")).read_bytes()).hexdigest() for _, name in lines
    }
    sums.write_text("".join(f"{digest}  {name}\n" for name, digest in hashes.items()))
    return refused(predict(bench, cwd), "not finite")


# ------------------------------------------------------------------------------------ data of strangers


def _fit(bench: Bench, cwd: Path, data: str = "labelled") -> Outcome:
    words = COMMANDS["finetune"].replace("fit labelled --from pre --labels 4", f"fit {data}")
    return bench.run(words.split(), cwd)


@fault("a table in UTF-16 that names no file", "fit")
def foreign_table(bench: Bench) -> Result:
    cwd = bench.place("finetune")
    text = "image,label,patient\nD:\\x\\a.png,D:\\x\\b.png,Müller\n"
    (cwd / "labelled" / "cases.csv").write_bytes(text.encode("utf-16"))
    return refused(_fit(bench, cwd), "cases.csv")


@fault("patients.csv that lists other files", "fit")
def foreign_patients(bench: Bench) -> Result:
    cwd = bench.place("finetune")
    (cwd / "labelled" / "patients.csv").write_text("image,patient\nx\\a.png,1\nx\\b.png,1.0\n")
    return refused(_fit(bench, cwd), "patients.csv")


@fault("a scout in a DICOM tree", "check")
def scout(bench: Bench) -> Result:
    cwd = bench.place("anatomy")
    for series in range(2):
        for i in range(4):
            where = cwd / "data" / f"S{series}" / f"{i}.dcm"
            dicom_slice(where, series=series, instance=10 * series + i, position=2.0 * i)
    import pydicom

    dicom_slice(cwd / "data" / "scout.dcm", series=7, instance=99, position=0.0)
    data = pydicom.dcmread(cwd / "data" / "scout.dcm")
    data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    data.save_as(cwd / "data" / "scout.dcm")
    outcome = bench.run(["check", "data"], cwd)
    good = (
        outcome.code == 0 and "scout.dcm" in outcome.text and len(open_dataset(cwd / "data")) == 2
    )
    return ("read, one line", "") if good else ("no clear line", outcome.text)


@fault("EXIF orientation", "fit")
def turned(bench: Bench) -> Result:
    cwd = bench.place("anatomy")
    coco(cwd / "data", files=("a.jpg", "b.jpg"))
    for path in (cwd / "data" / "images").iterdir():
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).save(path, exif=exif)
    return refused(_fit(bench, cwd, "data"), "orientation 6")


@fault("masks with other axes in the same place", "read")
def axes_swapped(bench: Bench) -> Result:
    cwd = bench.place("anatomy")
    image = volume(cwd / "data" / "images" / "a.nii.gz")
    affine = nib.load(image).affine
    label = np.random.default_rng(1).integers(0, 2, (8, 7, 6)).astype(np.uint8)
    swapped = affine @ np.array([[0, 0, -1, 7], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    (cwd / "data" / "labels").mkdir()
    nib.save(nib.Nifti1Image(label[::-1].transpose(2, 1, 0), swapped), cwd / "data/labels/a.nii.gz")
    (case,) = open_dataset(cwd / "data")
    same = np.array_equal(read_case_label(case, read_case_image(case)).array[0], label)
    return ("identical", "") if same else ("labels on the wrong voxels", "")


@fault("soft edges in masks", "fit")
def soft(bench: Bench) -> Result:
    cwd = bench.place("anatomy")
    ramp = np.clip(np.hypot(*np.mgrid[-12:12, -10:10]) * 25, 0, 255).astype(np.uint8)
    for i in range(4):
        film(cwd / "data" / "images" / f"{i}.png", seed=i)
        film_label(cwd / "data" / "labels" / f"{i}.png")
        Image.fromarray(np.roll(ramp, i, 0)).save(cwd / "data" / "labels" / f"{i}.png")
    return refused(_fit(bench, cwd, "data"), "--label-threshold")


@fault("auto_map and code of a stranger in an encoder", "generate")
def code_of_a_stranger(bench: Bench) -> Result:
    cwd = bench.place("generate")
    canary = cwd / "ran"
    for path in (cwd / "synth").rglob("encoder/**/config.json"):
        values = json.loads(path.read_text())
        values["auto_map"] = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}
        path.write_text(json.dumps(values | {"model_type": "theirs"}))
        (path.parent / "theirs.py").write_text(f"open({str(canary)!r}, 'w')\n")
    outcome = bench.run(COMMANDS["generate"].split(), cwd)
    if canary.exists():
        return "runs code of a stranger", outcome.text
    return refused(outcome)


# --------------------------------------------------------------------------------- processes that end


@fault("SIGTERM", "view")
def viewer_ends(bench: Bench) -> Result:
    cwd = bench.place("anatomy")
    server = subprocess.Popen(
        [sys.executable, "-m", "radiffuse", "view"],
        env=os.environ
        | {"TMPDIR": str(cwd), "BROWSER": "true %s", "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    server.stderr.readline()
    (folder,) = cwd.glob("radiffuse*")
    (folder / "dropped.png").write_bytes(b"a patient")
    server.send_signal(signal.SIGTERM)
    server.wait(30)
    return ("nothing left behind", "") if not folder.exists() else ("scans are left", str(folder))


@fault("kill -9", "check, its workers")
def workers_end(bench: Bench) -> Result:
    cwd = bench.place("anatomy")
    for i in range(300):
        film(cwd / "data" / f"{i}.png", seed=i, size=(400, 400))
    process = subprocess.Popen(
        [sys.executable, "-m", "radiffuse", "check", "data"],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
    )
    parent, children = psutil.Process(process.pid), []
    for _ in range(600):
        if len(children := parent.children(recursive=True)) > 1 or process.poll() is not None:
            break
        time.sleep(0.05)
    if len(children) < 2:
        return "no workers", ""
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    return ("nothing left behind", "") if not alive else ("workers are left", f"{len(alive)}")
