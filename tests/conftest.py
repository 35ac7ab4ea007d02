"""Tiny procedural data and a tiny pre-trained run, shared by the tests of the acts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quick_endings import quick_endings
from radiffuse.errors import RadiffuseError
from radiffuse.system import saying

saying.MOMENT = 3600.0  # how fast this machine is, is no part of a test

# Two workers share the cores: one thread each is faster, and sums are added in the same order in every test.
os.environ["OMP_NUM_THREADS"] = "1"

TINY = {
    "preset": "tiny",
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention_factors": (2,),
    "head_channels": 8,
}
SIZE = (32, 32)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their length: their content may differ from one process to the next."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def whole_endings() -> Iterator[list[tuple[Any, str, Any]]]:
    """Sets what is quick; yields what was there, for ``drawn``."""
    quick = quick_endings()
    with pytest.MonkeyPatch.context() as patch:
        whole = [(place, name, getattr(place, name)) for place, name, _ in quick]
        for one in quick:
            patch.setattr(*one)
        yield whole


@pytest.fixture
def drawn(whole_endings: list[tuple[Any, str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run leaves is as users see it: for tests of figures, timing, processes, and of each kind of report."""
    for one in whole_endings:
        monkeypatch.setattr(*one)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache."""
    monkeypatch.setenv("RADIFFUSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """What a run sets with ``--machine.threads`` is put back: the number decides how sums are rounded."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve labelled bitewings of 32 pixels."""
    from radiffuse.phantoms import write_dataset

    out = tmp_path_factory.mktemp("films")
    write_dataset("bitewing", out, count=12, labelled=True, seed=1, size=SIZE)
    return out


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty unlabelled bitewings of 32 pixels."""
    from radiffuse.phantoms import write_dataset

    out = tmp_path_factory.mktemp("unlabelled")
    write_dataset("bitewing", out, count=20, labelled=False, seed=2, size=SIZE)
    return out


def pretrain_settings(data: Path, out: Path, cache: Path, **changes: object) -> dict[str, object]:
    """A pre-training of a few steps."""
    training = {
        "steps": 4,
        "batch_size": 4,
        "log_every": 1,
        "checkpoint_every": 2,
        "keep_state": True,
    }
    return {
        "data": data,
        "out": out,
        "network": TINY,
        "plan": {"size": SIZE},
        "training": training | dict(changes.pop("training", {})),  # type: ignore[call-overload]
        "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


@pytest.fixture(scope="session")
def pretrained(unlabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pre-training run of four steps."""
    import radiffuse

    out = tmp_path_factory.mktemp("runs")
    radiffuse.pretrain(**pretrain_settings(unlabelled, out / "pre", out / "cache"))
    return out / "pre"


def line_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    from radiffuse.cli import main

    assert main(arguments) == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("preparing")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("radiffuse: ")
    return lines[0]


def synthesize_settings(data: Path, out: Path, cache: Path, **changes: object) -> dict[str, object]:
    """A synthesizer of a few steps per stage."""
    training = {
        "steps": 4,
        "batch_size": 4,
        "log_every": 1,
        "checkpoint_every": 2,
    }
    return {
        "data": data,
        "out": out,
        "plan": {"size": SIZE},
        "dino": {
            "width": 64,
            "depth": 1,
            "patch": 4,
            "prototypes": 32,
            "local_crops": 1,
            "training": training | {"average_decay": 0.0},
        },
        "vae": {"channels": (8, 16), "training": training},
        "denoiser": {"channels": (16, 32), "heads": 2, "context": 16},
        "training": training | {"keep_state": True} | dict(changes.pop("training", {})),  # type: ignore[call-overload]
        "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen films of 32 pixels in two class folders."""
    from radiffuse.phantoms import write_dataset

    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("classes")
    write_dataset("chest", source, count=16, labelled=False, seed=3, size=SIZE)
    for i, path in enumerate(sorted(source.rglob("*.png"))):
        folder = out / ("even", "odd")[i % 2]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    return out


@pytest.fixture(scope="session")
def synthesizer(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished synthesizer of four steps per stage."""
    import radiffuse

    out = tmp_path_factory.mktemp("synthesizers")
    radiffuse.synthesize(**synthesize_settings(classes, out / "run", out / "cache"))
    return out / "run"


class Begun(RadiffuseError):
    """Training was reached, with these batches."""


@pytest.fixture
def begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training leaves a checkpoint, and ends."""
    from radiffuse.synthesis import training as stages
    from radiffuse.train import act

    def train(task: object, batches: object, run: Any, *_: object) -> None:
        checkpoint = run.state / "step-00000001"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "weights").touch()  # folders without files go with a command that fails
        raise Begun(batches)

    monkeypatch.setattr(act, "train", train)
    monkeypatch.setattr(stages, "train", train)
