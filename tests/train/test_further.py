"""A finished segmenter is trained further by finetune: all of its weights, its classes, its labels known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import radiffuse
from conftest import TINY
from radiffuse.config import Data, Fit
from radiffuse.data.layouts import open_dataset
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.objectives import from_start, start_for
from radiffuse.objectives.segmentation import new_segmenter
from radiffuse.train.run import Run
from radiffuse.train.start import is_segmenter


def settings(films: Path, out: Path, **changes: Any) -> dict[str, Any]:
    training = {"steps": 2, "batch_size": 2, "learning_rate": 1e-12, "warmup_steps": 0}
    return {
        "data": films,
        "out": out,
        "method": "scratch",
        "labels": 1,
        "split": {"test": 0.4, "validation": 0.2},
        "plan": {"size": (32, 32)},
        "training": training,
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


@pytest.fixture(params=["scratch", "imagenet"])
def first(request: pytest.FixtureRequest, films: Path, tmp_path: Path) -> Run:
    own: dict[str, Any] = {"network": TINY, "finetune": {"timestep": 3}}
    own = own if request.param == "scratch" else {}
    return radiffuse.fit(**settings(films, tmp_path / "first", method=request.param, **own))


def test_it_begins_with_all_weights_at_another_grid(
    first: Run, films: Path, tmp_path: Path
) -> None:
    changes = {"method": "finetune", "from_": first.folder, "plan": {"size": (64, 64)}}
    further = radiffuse.fit(**settings(films, tmp_path / "further", **changes))
    before, after = (load_network(run.model) for run in (first, further))
    assert before.to_config() == after.to_config()  # type: ignore[operator]
    own = dict(after.named_parameters())
    for name, weight in before.named_parameters():
        torch.testing.assert_close(own[name], weight, atol=1e-6, rtol=1e-5)
    data = json.loads((further.folder / "data.json").read_text())
    assert [*data["labels_before"].values()] == [first.data["split"]["train"]]


def test_other_classes_methods_and_heads_are_refused(first: Run) -> None:
    name = str(first.folder)
    given = Fit(data="d", out="o", method="finetune", from_run=name)
    obeyed, start = from_start(given)
    other = dataclasses.replace(first.plan, classes=("background", "heart"))
    with pytest.raises(InputError, match=f"--from {name}: segments .*, and the labels have heart"):
        new_segmenter(obeyed, other, start)
    for method in ("probe", "pixel", "diffusion", "joint"):
        with pytest.raises(InputError, match="is a segmenter, which finetune alone"):
            from_start(dataclasses.replace(given, method=method))
    finetune = dataclasses.replace(given.finetune, timestep=5)
    with pytest.raises(InputError, match="--timestep 5"):
        from_start(dataclasses.replace(given, finetune=finetune))


def test_its_features_compare_no_scans(first: Run, films: Path) -> None:
    assert is_segmenter(first)
    with pytest.raises(InputError, match="is not a pre-trained denoiser"):
        start_for(open_dataset(films, Data()), str(first.folder))
