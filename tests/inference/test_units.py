"""A run that learned from CT in HU, and images of other values: it is said, once, with a count."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import radiffuse
from radiffuse.data.plan import Plan, Structures
from radiffuse.data.readers import Scan
from radiffuse.data.transform import not_in_hu
from tiny_runs import finished_run

SIDE = 8
PLAN = Plan(
    3, ("image",), ("background", "a"), (SIDE,) * 3, (1.0,) * 3, intensity="window", low=-160, high=240
)  # fmt: skip
SAID = "values that can hardly be HU"


def ct() -> np.ndarray:
    """Air and flesh, in HU."""
    values = np.random.default_rng(0).normal(40, 20, (SIDE,) * 3)
    values[:2] = -1000
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("values", "unit", "plan", "doubtful"),
    [
        (ct(), "gray", {}, False),
        (ct() + 1024, "gray", {}, True),
        ((ct() + 1000) / 2000, "gray", {}, True),
        (ct() / 1000, "gray", {}, True),
        (ct() + 1024, "HU", {}, False),  # DICOM says so
        (ct() + 1024, "gray", {"low": 0.0, "high": 2000.0}, False),
        (ct() + 1024, "gray", {"intensity": "percentiles", "low": 0.5, "high": 99.5}, False),
    ],
)
def test_values_that_can_hardly_be_hu(
    values: np.ndarray, unit: str, plan: dict[str, object], doubtful: bool
) -> None:
    scan = Scan(values[None], affine=np.eye(4), unit=unit)  # type: ignore[arg-type]
    assert not_in_hu(scan, PLAN.__class__(**{**vars(PLAN), **plan})) is doubtful


def test_predict_and_evaluate_count_the_images_without_hu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, masks = finished_run(tmp_path / "run", PLAN, 1), tmp_path / "masks"
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for name, offset in (("a", 0), ("b", 1024)):
        image = nib.Nifti1Image(ct() + np.float32(offset), np.eye(4))
        nib.save(image, tmp_path / "data" / "images" / f"{name}.nii.gz")
        label = nib.Nifti1Image((ct() > 40).astype(np.uint8), np.eye(4))
        nib.save(label, tmp_path / "data" / "labels" / f"{name}.nii.gz")
    for _ in range(2):  # also where all masks are there
        radiffuse.predict(
            runs=run, data=tmp_path / "data", out=masks, machine={"accelerator": "cpu"}
        )
        assert capsys.readouterr().err.count(f"data: 1 of 2 images have {SAID}") == 1
    entries = map(json.loads, (masks / "masks.jsonl").read_text().splitlines())
    assert {entry["case"]: entry.get("no_hu") for entry in entries} == {"a": None, "b": True}
    radiffuse.evaluate(masks=masks, truth=tmp_path / "data", out=tmp_path / "scores")
    assert f"warning: 1 of 2 images have {SAID}" in capsys.readouterr().err


def test_a_segmenter_says_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(tmp_path / "run", PLAN, 1)
    segmenter = radiffuse.Segmenter.load(tmp_path / "run", device="cpu")
    segmenter.predict(ct(), spacing=(1, 1, 1))
    assert SAID not in capsys.readouterr().err
    for _ in range(2):
        segmenter.predict(ct() + 1024, spacing=(1, 1, 1))
    assert capsys.readouterr().err.count(f"the image has {SAID}") == 1


def test_voxels_of_unknown_size_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are taken for 1 mm; not where the run learned from such volumes too."""
    (tmp_path / "data").mkdir()
    sizes = " ".join(map(str, (SIDE,) * 3))
    header = (
        f"NRRD0004\ntype: float\ndimension: 3\nsizes: {sizes}\nencoding: raw\nendian: little\n\n"
    )
    (tmp_path / "data" / "a.nrrd").write_bytes(header.encode() + ct().T.tobytes())
    for unit, doubted in (("mm", True), ("px", False)):
        plan = replace(PLAN, structures=Structures(unit, 1.0, {"a": (1.0, 1.0, 1.0)}))
        run, masks = finished_run(tmp_path / unit, plan, 1), tmp_path / f"masks-{unit}"
        radiffuse.predict(
            runs=run, data=tmp_path / "data", out=masks, machine={"accelerator": "cpu"}
        )
        said = "the image does not say how large" in capsys.readouterr().err
        assert said is doubted
        assert json.loads((masks / "masks.jsonl").read_text()).get("unsized", False) is doubted
