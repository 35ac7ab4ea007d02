"""Checkpoints and run folders: whole or not at all, and never two at once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from radiffuse.config import Machine, Pretrain, Training
from radiffuse.data.batches import Batch
from radiffuse.errors import InputError, RunError, TrainingDiverged
from radiffuse.system.files import sha256
from radiffuse.train import checkpoint as module
from radiffuse.train.checkpoint import Checkpoint, load_newest, save_checkpoint
from radiffuse.train.loop import _averaged, train
from radiffuse.train.random import StepRandom
from radiffuse.train.start_run import start_run
from radiffuse.train.task import Loss, Task


def checkpoint(step: int) -> Checkpoint:
    tensor = torch.full((50,), float(step))
    return Checkpoint(step, {"network": {"w": tensor}, "task": {}}, {"note": step})


def test_the_newest_whole_checkpoint_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    found = load_newest(tmp_path)
    assert found is not None
    assert (found.step, found.info["note"], float(found.tensors["network"]["w"][0])) == (3, 3, 3.0)
    for damage in ("flip", "truncate", "missing"):
        save_checkpoint(tmp_path, checkpoint(3))
        path = tmp_path / "step-00000003" / "network.safetensors"
        data = bytearray(path.read_bytes())
        if damage == "flip":
            data[-1] ^= 1
            path.write_bytes(data)
        elif damage == "truncate":
            path.write_bytes(data[:-9])
        else:
            path.unlink()
        found = load_newest(tmp_path)
        assert found is not None
        assert found.step == 2, damage
        assert "step-00000003: is damaged" in capsys.readouterr().err
    (tmp_path / "step-00000003" / "state.json").write_text("{")
    assert load_newest(tmp_path).step == 2  # type: ignore[union-attr]


def test_a_full_disk_keeps_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(1))

    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(InputError, match="step 2 cannot be written.*No space left.*Free the disk"):
        save_checkpoint(tmp_path, checkpoint(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert load_newest(tmp_path).step == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("lie", ["length", "offsets", "type", "text"])
def test_a_checkpoint_whose_header_lies_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lie: str
) -> None:
    """Its hash is right: whoever can write the file can write the hash as well."""
    header = {"w": {"dtype": "F32", "shape": [50], "data_offsets": [0, 200]}}
    body = bytes(200)
    if lie == "offsets":
        header["w"] |= {"shape": [2**40], "data_offsets": [0, 2**42]}
    elif lie == "type":
        header["w"]["dtype"] = "PICKLE"
    text = b"{" if lie == "text" else json.dumps(header).encode()
    length = 2**62 if lie == "length" else len(text)
    save_checkpoint(tmp_path, checkpoint(1))
    folder = save_checkpoint(tmp_path, checkpoint(2))
    path = folder / "network.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + text + body)
    state = json.loads((folder / "state.json").read_text())
    state["files"][path.name] = sha256(path)
    (folder / "state.json").write_text(json.dumps(state))
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "step-00000002: is damaged" in capsys.readouterr().err


def edit(folder: Path, change: dict[str, Any], *, seal: bool) -> None:
    """Change values of ``state.json``; with ``seal`` its hash as well, as someone who knows the format could."""
    path = folder / "state.json"
    state = json.loads(path.read_text()) | change
    if seal:
        del state["sha256"]
        text = json.dumps(state, indent=2, ensure_ascii=False) + "\n"
        state["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(state))


@pytest.mark.parametrize(
    "change",
    [{"step": 9}, {"info": {"note": 4}}, {"info": {}}, {"files": {}}, {"sha256": 0}, {"more": 1}],
)
def test_every_value_of_a_checkpoint_is_hashed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    edit(save_checkpoint(tmp_path, checkpoint(2)), change, seal=False)
    assert load_newest(tmp_path).step == 1  # type: ignore[union-attr]
    assert "does not match its hash); using the one before" in capsys.readouterr().err


def test_a_checkpoint_without_its_own_hash_is_read_if_it_is_older_than_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1)) / "state.json"
    state = json.loads(path.read_text())
    del state["sha256"]
    path.write_text(json.dumps(state))
    assert load_newest(tmp_path) is None
    assert "starting from the beginning" in capsys.readouterr().err
    path.write_text(json.dumps(state | {"version": 1}))
    assert load_newest(tmp_path).step == 1  # type: ignore[union-attr]
    path.write_text(json.dumps(state | {"version": 1, "step": 7}))
    assert load_newest(tmp_path) is None


def test_a_checkpoint_of_weights_that_are_not_finite_is_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    tensors = {"network": {"w": torch.tensor([1.0, float("nan")])}}
    save_checkpoint(tmp_path, Checkpoint(2, tensors, {}))
    assert load_newest(tmp_path).step == 1  # type: ignore[union-attr]


def first_steps(folder: Path, steps: int = 3, **changes: Any) -> Path:
    """A training of a line in a run folder; returns the newest checkpoint."""
    training = Training(steps=steps, batch_size=4, checkpoint_every=1, **changes)
    with start_run(folder, "pretrain", Pretrain(data="d", out="o", training=training)) as run:
        batches = lambda step, rank, world: Batch(torch.ones(4, 2), None, ("a",) * 4)  # noqa: E731
        train(Line(), batches, run, training, Machine(accelerator="cpu"))
    return max((folder / "state").iterdir())


class Line(Task):
    """The mean of a linear layer."""

    def __init__(self, width: int = 2) -> None:
        super().__init__(torch.nn.Linear(width, 1))

    def loss(self, network: torch.nn.Module, batch: Batch, random: StepRandom) -> Loss:
        return Loss(network(batch.images).mean())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"betas": [0.5, 0.5]}, "betas is"),
        ({"weight_decay": 0.7}, "weight_decay is 0.7"),
        ({"eps": "small"}, "eps is small"),
        ({"params": [0]}, "other weights"),
        ({"micro_batch": -1}, "micro_batch is -1, the settings give 4"),
        ({"micro_batch": 8}, "micro_batch is 8"),
        ({"micro_batch": True}, "micro_batch is True"),
        ({"log": {"values": ["a"], "terms": {}}}, "no numbers"),
        ({"log": 3}, "does not fit"),
        ({"optimizer": []}, "does not fit"),
    ],
)
def test_what_a_checkpoint_says_is_held_against_the_settings(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    folder = first_steps(tmp_path / "run")
    info = json.loads((folder / "state.json").read_text())["info"]
    name = next(iter(change))
    (
        info if name in ("micro_batch", "log", "optimizer") else info["optimizer"]["groups"][0]
    ).update(change)
    edit(folder, {"info": info}, seal=True)
    with pytest.raises(RunError, match=word) as error:
        first_steps(tmp_path / "run", steps=5)
    assert "step-00000003: does not fit the run" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["network", "average", "optimizer"])
def test_a_checkpoint_of_other_shapes_is_one_line(tmp_path: Path, part: str) -> None:
    folder = first_steps(tmp_path / "run")
    path = folder / f"{part}.safetensors"
    save_file({k: torch.zeros(1, 3) for k in load_file(path)}, path)
    files = json.loads((folder / "state.json").read_text())["files"]
    edit(folder, {"files": files | {path.name: sha256(path)}}, seal=True)
    with pytest.raises(RunError, match="step-00000003: does not fit the run") as error:
        first_steps(tmp_path / "run", steps=5)
    assert "\n" not in str(error.value)


def test_fewer_steps_than_are_done_are_refused(tmp_path: Path) -> None:
    first_steps(tmp_path / "run", steps=3)
    with pytest.raises(InputError, match="is at step 3 already, more than --training.steps 2"):
        first_steps(tmp_path / "run", steps=2)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The loss of the last step is finite, its update is not."""
    with pytest.raises(TrainingDiverged, match="not finite after step 1; there is no checkpoint"):
        first_steps(tmp_path / "run", learning_rate=1e38, weight_decay=1e38)
    assert not list((tmp_path / "run" / "state").glob("step-*"))


def test_a_checkpoint_reads_no_file_outside_its_folder(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "state", checkpoint(1))
    outside = tmp_path / "state" / "secret.safetensors"
    outside.write_bytes((folder / "network.safetensors").read_bytes())
    state = json.loads((folder / "state.json").read_text())
    state["files"]["../secret.safetensors"] = sha256(outside)
    (folder / "state.json").write_text(json.dumps(state))
    assert load_newest(tmp_path / "state") is None


def _hold(folder: str, ready: Any, stop: Any) -> None:
    with start_run(folder, "pretrain", {"a": 1}):
        ready.set()
        stop.wait(60)


def test_two_processes_cannot_share_a_run(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path / "run"), ready, stop))
    process.start()
    try:
        assert ready.wait(60)
        with (
            pytest.raises(InputError, match="in use by another process"),
            start_run(tmp_path / "run", "pretrain", {"a": 1}),
        ):
            pass
    finally:
        stop.set()
        process.join()
    with start_run(tmp_path / "run", "pretrain", {"a": 1}) as run:
        assert run.config["command"] == "pretrain"


def test_averaging_is_the_warmed_up_exponential_mean() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average = _averaged(layer, 0.9)
    expected = 0.0
    for n in range(200):
        value = float(n % 7)
        torch.nn.init.constant_(layer.weight, value)
        average.update_parameters(layer)
        rate = min(0.9, (1 + n) / (10 + n))
        expected = value if n == 0 else rate * expected + (1 - rate) * value
        assert float(average.module.weight.detach()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_draws_do_not_depend_on_how_a_step_is_parted() -> None:
    def draw(start: int, stop: int) -> torch.Tensor:
        random = StepRandom(1, 5, total=6, start=start, stop=stop, device=torch.device("cpu"))
        return random.normal((3,))

    assert torch.equal(draw(0, 6), torch.cat([draw(0, 2), draw(2, 3), draw(3, 6)]))
    other = StepRandom(1, 6, total=6, start=0, stop=6, device=torch.device("cpu")).normal((3,))
    assert not torch.equal(draw(0, 6), other)
