"""Volumes of several organs learned with a pool, from files to masks; stopped in the pool's phase, it ends the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import radiffuse
from conftest import TINY, Begun
from radiffuse.data.pool import WithPool
from radiffuse.phantoms import write_dataset
from radiffuse.train.run import Run

SHAPE = (20, 18, 16)
CPU = {"accelerator": "cpu", "precision": "32-true"}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Labelled volumes, and a pool of others that are smaller than a patch along one axis and larger along another."""
    folder = tmp_path_factory.mktemp("scans")
    write_dataset("abdomen", folder / "labelled", count=5, labelled=True, seed=1, size=SHAPE)
    write_dataset("abdomen", folder / "pool", count=5, labelled=False, seed=2, size=(16, 22, 16))
    for path in (folder / "pool").rglob("*.nii.gz"):
        scan = nib.load(path)
        voxels = np.asarray(scan.dataobj)[:, :, 5:11]
        nib.save(nib.Nifti1Image(voxels, scan.affine), path)
    return folder / "labelled", folder / "pool"


def settings(scans: tuple[Path, Path], out: Path, method: str) -> dict[str, Any]:
    network = {"network": TINY} if method == "scratch" else {}
    return network | {
        "data": scans[0],
        "unlabelled": (str(scans[1]),),
        "out": out,
        "method": method,
        "labels": 2,
        "plan": {"size": ((8,) if method == "scratch" else (16,)) * 3},
        "split": {"test": 1, "validation": 1},
        "augmentation": {"cutmix": 0.5},
        "training": {
            "steps": 6,
            "batch_size": 2,
            "micro_batch": 1,
            "log_every": 1,
            "checkpoint_every": 1,
            "validate_every": 3,
            "keep_state": True,
        },
        "machine": CPU,
    }


def stopped(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A training that is cut off where the batch of step ``at`` would be made."""
    whole = WithPool.__call__

    def until(self: WithPool, step: int, *process: int) -> Any:
        if step == at:
            raise Begun
        return whole(self, step, *process)

    with monkeypatch.context() as patch:
        patch.setattr(WithPool, "__call__", until)
        with pytest.raises(Begun):
            radiffuse.fit(**given)


@pytest.mark.parametrize("method", ["scratch", pytest.param("dynunet", marks=pytest.mark.slow)])
def test_volumes_with_a_pool_go_on_bit_for_bit_and_are_segmented(
    scans: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    straight = radiffuse.fit(**settings(scans, tmp_path / "straight", method))
    given = settings(scans, tmp_path / "resumed", method)
    stopped(given, monkeypatch, 4)
    assert (Run(tmp_path / "resumed").state / "step-00000004").is_dir()
    resumed = radiffuse.fit(**given)
    for name in ("average", "network", "optimizer"):
        files = [r.state / f"step-00000006/{name}.safetensors" for r in (straight, resumed)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    rows = [[row for row in run.log() if "loss" in row] for run in (straight, resumed)]
    for name in ("loss", "pool", "pool_trust"):
        assert [row.get(name) for row in rows[0]] == [row.get(name) for row in rows[1]]
    assert ["pool" in row for row in rows[0]] == [False] + 5 * [True]  # .3 of 6 steps are 1.8
    assert all(row["pool"] > 0 and row["pool_trust"] > 0 for row in rows[0][1:])
    assert len(straight.plan.classes) > 3
    out = radiffuse.predict(
        runs=resumed.folder, data=scans[0], out=tmp_path / "masks", cases="test", machine=CPU
    )
    (mask,) = out.glob("*.nii.gz")
    found = np.asarray(nib.load(mask).dataobj)
    assert found.shape == SHAPE
    assert found.max() < len(straight.plan.classes)
