"""Published folders: they segment and start as the run does, tell nothing of single cases, and carry a card."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import radiffuse
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError, RunError
from radiffuse.release.card import Licences, card, sources, write_card
from radiffuse.release.pretrained import FILES, fetch, push_to_hub, save_pretrained
from radiffuse.system.files import read_json, write_atomic, write_json
from radiffuse.train.run import Run
from tiny_runs import finished_run

SECRET = "Doe_John_1970"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on two cases whose files carry names, started from shipped weights."""
    folder = finished_run(
        tmp_path / "run", Plan(2, ("image",), ("background", "a", "b"), (16, 16)), seed=0
    )
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["settings"] = {
        "data": f"/home/{SECRET}/films", "out": f"/home/{SECRET}/run", "from_run": "films-64",
        "reader": {"cache": f"/home/{SECRET}/cache"}, "split": {"file": f"/home/{SECRET}/s.json"},
        "training": {"steps": 3, "batch_size": 2, "learning_rate": 0.1, "seed": 4},
    }  # fmt: skip
    write_atomic(folder / "config.yaml", yaml.safe_dump(config))
    data = {
        "root": f"/home/{SECRET}/films", "cases": 2, "patients": 2, "licence": "CC BY-SA 4.0",
        "split": {"train": [SECRET], "validation": ["other"]}, "skipped": [],
    }  # fmt: skip
    write_json(folder / "data.json", data)
    row = {"step": 3, "validation": {"dice": 0.5}}
    write_atomic(folder / "log.jsonl", json.dumps(row) + "\n")
    return folder


SINGLE = [name for name in FILES if not name.startswith("members/")]
"""Files of a run that is no choice of runs."""


def load(folder: Path | str) -> radiffuse.Segmenter:
    return radiffuse.Segmenter.from_pretrained(folder, device="cpu", precision="32-true")


def test_a_published_folder_segments_as_its_run(run: Path, tmp_path: Path) -> None:
    film = np.random.default_rng(0).uniform(0, 255, (40, 30)).astype(np.float32)
    before = load(run)
    out = before.save_pretrained(tmp_path / "mine", licence="apache-2.0")
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == sorted(SINGLE)
    after = load(out)
    assert np.array_equal(after.predict_proba(film), before.predict_proba(film))
    assert Run.open(out).finished
    for path in out.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    again = load(out).save_pretrained(tmp_path / "again")  # a folder of a folder
    assert np.array_equal(load(again).predict(film), before.predict(film))


def test_what_a_killed_export_left_goes_with_the_next(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    radiffuse.export(run=run, out=out)
    names = {path.relative_to(out) for path in out.rglob("*")}
    for left in (out / ".plan.json.77.9.part", out / "model" / ".model.safetensors.77.9.part"):
        left.write_text("half")
    radiffuse.export(run=run, out=out)
    assert {path.relative_to(out) for path in out.rglob("*")} == names


def test_the_card_says_what_went_in(run: Path) -> None:
    text = card(Run.open(run), Licences("apache-2.0"), "mine")
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "image-segmentation"
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "Network and input", "Data", "Metrics", "Training", "Intended use", "Limits", "Licences",
    ]  # fmt: skip
    for words in (
        "labels: 0 background, 1 a, 2 b", "validation dice: 0.5 at step 3", "CC BY-SA 4.0",
        "not a medical device", "films-64", "Kermany", "3 steps of 2",
    ):  # fmt: skip
        assert words in text, words
    found = {source.name: source.licence for source in sources(Run.open(run))}
    assert found["films-64"] == "Apache-2.0; credit the data as above"
    assert found["cxr-classes"].startswith("CC BY 4.0")
    assert "license: other" in card(Run.open(run))
    assert "weights: not stated" in card(Run.open(run))


def test_a_published_folder_still_says_what_went_in(run: Path, tmp_path: Path) -> None:
    further = {
        "with": ["corrections"],
        "with_cases": 7,
        "unlabelled": ["pool"],
        "unlabelled_cases": 90,
    }
    write_json(run / "data.json", read_json(run / "data.json") | further)
    out = save_pretrained(Run.open(run), tmp_path / "out")
    assert sources(Run.open(out))[:3] == sources(Run.open(run))[:3]
    assert {"corrections", "pool"} <= {source.name for source in sources(Run.open(out))}


def test_a_card_holds_no_markup_of_a_file(run: Path) -> None:
    plan = Plan(2, ("image",), ("background", "<script>x</script>"), (16, 16))
    write_atomic(run / "plan.json", plan.to_json())
    assert "<" not in write_card(run).read_text().replace("<!--", "")


def test_every_run_has_a_card(pretrained: Path) -> None:
    text = (pretrained / "README.md").read_text()
    assert "# pre" in text
    assert "A denoising U-Net, pre-trained on unlabelled images" in text
    assert "pre-training, no labels; licence: not stated" in text


def test_what_cannot_be_published(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is the run itself"):
        save_pretrained(Run.open(run), run)
    with pytest.raises(InputError, match="without a licence"):
        push_to_hub(Run.open(run), "me/mine", Licences())
    with pytest.raises(InputError, match="no name of a repository"):
        push_to_hub(Run.open(run), "mine", Licences("mit"))
    both = radiffuse.Segmenter.load([run, run], device="cpu", precision="32-true")
    with pytest.raises(InputError, match="made of 2 runs"):
        both.save_pretrained(tmp_path / "x")
    (run / "model" / "config.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        save_pretrained(Run.open(run), tmp_path / "x")


class Hub:
    """A hub that remembers what it was told."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.calls: list[tuple[str, object]] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, name: str, **options: object) -> None:
        if self.broken:
            raise ConnectionError("down")
        self.calls.append((name, options))

    def upload_folder(self, *, folder_path: str, **options: object) -> SimpleNamespace:
        root = Path(folder_path)
        paths = [p for p in root.rglob("*") if p.is_file()]
        self.files = {str(p.relative_to(root)): p.read_bytes() for p in paths}
        self.calls.append((folder_path, options))
        return SimpleNamespace(commit_url="https://hub/commit")


def test_the_hub_gets_the_same_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    segmenter = load(run)
    address = segmenter.push_to_hub("me/mine", licence="cc-by-4.0", data_licence="CC BY 4.0")
    assert address == "https://hub/commit"
    assert hub.calls[0] == ("me/mine", {"private": True, "exist_ok": True})
    assert sorted(hub.files) == sorted(SINGLE)
    assert b"# mine" in hub.files["README.md"]
    assert b"license: cc-by-4.0" in hub.files["README.md"]
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(broken=True))
    with pytest.raises(InputError, match=r"could not be uploaded \(ConnectionError\)"):
        push_to_hub(Run.open(run), "me/mine", Licences("mit"))


def test_names_on_the_hub_are_fetched(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = save_pretrained(Run.open(run), tmp_path / "mine")
    asked = []

    def download(name: str, **options: object) -> str:
        asked.append((name, options["revision"]))
        if name == "me/none":
            raise FileNotFoundError
        return str(out)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert radiffuse.Segmenter.from_pretrained(
        "me/mine", revision="v1", device="cpu", precision="32-true"
    ).classes == ("background", "a", "b")
    assert asked == [("me/mine", "v1")]
    with pytest.raises(InputError, match="cannot be fetched by that name"):
        fetch("me/none")
    with pytest.raises(InputError, match="does not exist"):
        fetch("./none")
