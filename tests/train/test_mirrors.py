"""Trackers mirror the log, go on after a resume, are told no paths, and cannot stop the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from radiffuse.config import Training
from radiffuse.errors import InputError
from radiffuse.train import mirrors
from radiffuse.train.mirrors import open_mirrors, shown_settings
from radiffuse.train.run import Run
from radiffuse.train.start_run import start_run

SETTINGS = {
    "data": "/home/Doe/films", "out": "/home/Doe/run", "reader": {"cache": "/c", "layout": "auto"},
    "training": {"steps": 3}, "split": {"file": None},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with start_run(tmp_path / "run", "finetune", SETTINGS) as run:
        return run


def test_no_path_is_told() -> None:
    assert shown_settings(SETTINGS) == {"reader.layout": "auto", "training.steps": "3"}


def test_a_tracker_that_is_missing_or_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ImportError

    monkeypatch.setattr(mirrors, "_WandB", missing)
    with pytest.raises(InputError, match=r"--training\.wandb: is not installed"):
        open_mirrors(run, Training(wandb="p"), 0)

    class Fails:
        def __init__(self, *_: object) -> None:
            self.calls = 0

        def log_metrics(self, metrics: object, step: int) -> None:
            self.calls += 1
            raise ConnectionError

        def finalize(self, status: str) -> None:
            raise AssertionError("it was left out")

    monkeypatch.setattr(mirrors, "_WandB", Fails)
    _, tracker = open_mirrors(run, Training(wandb="p"), 0)
    tracker.log(1, {"loss": 1.0})
    tracker.log(2, {"loss": 1.0})
    tracker.close()
    assert capsys.readouterr().err.count("wandb failed and is left out (ConnectionError)") == 1


@pytest.mark.slow
def test_weights_and_biases_offline(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (1, 2):  # as a run that was resumed
        (tracker,) = open_mirrors(run, Training(wandb="project"), step - 1)[1:]
        tracker.log(step, {"loss": 0.5, "validation/dice": 0.25})
        tracker.close()
        identity = json.loads((run.folder / "wandb.json").read_text())["id"]
        files = sorted((run.folder / "wandb").glob(f"offline-run-*-{identity}/*.wandb"))
        assert len(files) >= 1
    content = b"".join(path.read_bytes() for path in files)
    assert b"validation/dice" in content
    assert b"reader.layout" in content
    assert b"/home/Doe/films" not in content


@pytest.mark.slow
def test_mlflow_in_a_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    address = (tmp_path / "store").as_uri()
    for step in (1, 2):
        (tracker,) = open_mirrors(run, Training(mlflow=address), step - 1)[1:]
        tracker.log(step, {"loss": 0.5 / step, "validation/dice": 0.25})
        tracker.close()
    client = MlflowClient(tracking_uri=address)
    identity = json.loads((run.folder / "mlflow.json").read_text())["run_id"]
    found = client.get_run(identity)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"reader.layout": "auto", "training.steps": "3"}
    assert [m.value for m in client.get_metric_history(identity, "loss")] == [0.5, 0.25]
