"""Several processes train what one process with the whole batch trains, and only the first of them writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import radiffuse
from conftest import SIZE, TINY, line_of, pretrain_settings, synthesize_settings
from radiffuse.system.distributed import launched
from together import Job, run_together


def weights(run: Path, name: str = "model/raw") -> dict[str, torch.Tensor]:
    return load_file(run / f"{name}.safetensors")


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def assert_same(run: Path, other: Path, name: str = "model/raw") -> None:
    """Weights agree to the rounding of a few steps: Adam's step is a sign where a gradient is nearly 0."""
    ours, theirs = weights(run, name), weights(other, name)
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=1e-5, msg=key)


def assert_near(run: Path, other: Path) -> None:
    """Nearly all weights agree; where a gradient is 0 but for rounding, Adam's step is a random sign."""
    state = sorted(path.name for path in (run / "state").iterdir())[-1]
    ours, theirs = (weights(folder, f"state/{state}/network") for folder in (run, other))
    assert ours.keys() == theirs.keys()
    gaps = torch.cat([(ours[key] - theirs[key]).double().abs().flatten() for key in ours])
    assert float((gaps > 2e-5).double().mean()) < 0.02, run


def test_two_processes_train_as_one_and_resume_as_one(unlabelled: Path, tmp_path: Path) -> None:
    def settings(name: str, steps: int) -> dict[str, Any]:
        return pretrain_settings(
            unlabelled, tmp_path / name, tmp_path / "cache", training={"steps": steps}
        )

    radiffuse.pretrain(**settings("one", 4))
    radiffuse.pretrain(**settings("begun-on-one", 2))
    untouched = set((tmp_path / "cache").rglob("*"))
    first, second = run_together(
        [
            ("pretrain", settings("two", 4)),
            ("pretrain", settings("begun-on-two", 2)),
            ("pretrain", settings("begun-on-one", 4)),
        ],
        tmp_path,
    )
    assert first
    assert second == []
    assert set((tmp_path / "cache").rglob("*")) == untouched
    radiffuse.pretrain(**settings("begun-on-two", 4))
    for name in ("two", "begun-on-one", "begun-on-two"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
        assert_same(tmp_path / name, tmp_path / "one")
        assert_same(tmp_path / name, tmp_path / "one", "model/model")


def every_method(films: Path, scans: Path, classes: Path, pretrained: Path, out: Path) -> list[Job]:
    """A tiny run of every method that trains, and of each part of it that could tell processes apart."""
    training = {"steps": 3, "batch_size": 4, "log_every": 1, "checkpoint_every": 2}
    machine = {"accelerator": "cpu", "precision": "32-true"}
    common = {"training": training, "machine": machine, "network": TINY}
    split = {"test": 0.3, "validation": 0.2}
    flat = common | {"data": str(films), "plan": {"size": SIZE}}
    deep = common | {"data": str(scans), "plan": {"size": (8, 8, 8), "spacing": (2, 2, 2)}}
    labelled = flat | {"split": split}
    scratch = labelled | {"method": "scratch", "augmentation": {"cutmix": 1.0}}
    source = {"from_run": str(pretrained)}
    few = {"num_train_timesteps": 4, "timestep_sampling": "loss-aware"}
    frozen = {k: v for k, v in labelled.items() if k not in ("network", "plan")} | source
    jobs: dict[str, tuple[str, dict[str, Any]]] = {
        "aware": ("pretrain", flat | {"diffusion": few}),
        "micro": ("pretrain", flat | {"training": training | {"micro_batch": 1}}),
        "fsdp": ("pretrain", flat | {"machine": machine | {"strategy": "fsdp"}}),
        "ddep": ("pretrain", flat | {"objective": "ddep"}),
        "restorative": ("pretrain", flat | {"objective": "restorative"}),
        "contrastive": ("pretrain", flat | {"objective": "contrastive"}),
        "masked": ("pretrain", flat | {"objective": "masked"}),
        "clean-features": (
            "pretrain",
            common
            | {"data": str(films), "objective": "clean-features", "from_run": str(pretrained)},
        ),
        "volumes": ("pretrain", deep),
        "where": ("pretrain", deep | {"objective": "coordinates"}),
        "guided": ("pretrain", common | {"data": str(scans), "coordinates": str(out / "where")}),
        "scratch": ("fit", scratch),
        "pixel": ("fit", frozen | {"method": "pixel"}),
        "probe": (
            "fit",
            frozen | {"method": "probe", "probe": {"timesteps": (5, 10), "width": 8}},
        ),
        "diffusion": ("fit", labelled | {"method": "diffusion"}),
        "sharded": (
            "fit",
            labelled | {"method": "diffusion", "machine": machine | {"strategy": "fsdp"}},
        ),
        "classify": (
            "classify",
            {k: v for k, v in labelled.items() if k != "network"} | {"data": str(classes)},
        ),
        "synthesize": (
            "synthesize",
            synthesize_settings(classes, out / "synthesize", out / "cache"),
        ),
    }
    reader = {"reader": {"cache": str(out / "cache")}}
    return [
        (command, values | {"out": str(out / name)} | reader)
        for name, (command, values) in jobs.items()
    ]


@pytest.mark.slow
def test_every_method_trains_the_same_in_two_processes(
    films: Path, classes: Path, pretrained: Path, tmp_path: Path
) -> None:
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    for i in range(6):
        voxels = np.random.default_rng(i).integers(-200, 300, (16, 14, 12)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])), volumes / f"v{i}.nii.gz")
    given = films, volumes, classes, pretrained
    first, second = run_together(every_method(*given, tmp_path / "two"), tmp_path)
    assert first
    assert second == []
    for command, settings in every_method(*given, tmp_path / "one"):
        getattr(radiffuse, command)(**settings)
    logs = sorted(
        path.parent.relative_to(tmp_path / "one") for path in tmp_path.glob("one/**/log.jsonl")
    )
    assert len(logs) == 20
    for run in logs:
        ours, theirs = losses(tmp_path / "two" / run), losses(tmp_path / "one" / run)
        assert ours == pytest.approx(theirs, rel=1e-3), run
        assert_near(tmp_path / "two" / run, tmp_path / "one" / run)


def test_the_launcher_is_read_from_its_variables() -> None:
    assert launched({}) is None
    assert launched({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) is None  # sbatch without srun
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    assert launched(torchrun) == (4, 2)
    srun = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "2"}
    assert launched(srun) == (3, 2)
    assert launched(torchrun | srun) == (4, 2)


def test_a_command_of_one_process_refuses_several(
    pretrained: Path,
    unlabelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["predict", str(pretrained), str(unlabelled), "--out", str(tmp_path / "masks")]
    assert "is run by one process, not by 2" in line_of([*words, "--devices", "2"], capsys)
    for name, value in {"RANK": "0", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert "is run by one process, not by 6" in line_of(words, capsys)
    train = ["pretrain", str(unlabelled), "--out", str(tmp_path / "run"), "--devices", "2"]
    assert "3 processes on each of 2 nodes were started" in line_of(train, capsys)
    assert not (tmp_path / "run").exists()
