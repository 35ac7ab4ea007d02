"""Features of prepared films: computed once, gone on with after an interruption, in the order of the cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.prepare import prepare
from radiffuse.data.prepared import Prepared
from radiffuse.synthesis import embedding as module
from radiffuse.synthesis.embedding import features


@pytest.fixture
def prepared(films: Path, tmp_path: Path) -> Prepared:
    plan = Plan(2, ("image",), (), (16, 16))
    return prepare(open_dataset(films), plan, labelled=False, cache=tmp_path)


def test_an_interrupted_computation_goes_on_with_the_block_it_was_in(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 5)  # of 12 films: 5, 5, 2
    calls: list[int] = []
    shown: list[tuple[int, int]] = []

    def compute(images: torch.Tensor) -> torch.Tensor:
        if interrupted and len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(images))
        return images.flatten(1)[:, :3] * 2

    def computed() -> np.ndarray:
        return np.array(features(prepared, compute, "w", tmp_path))

    monkeypatch.setattr(
        module.ProgressLine, "__call__", lambda _, done, total: shown.append((done, total))
    )
    interrupted = True
    with pytest.raises(KeyboardInterrupt):
        computed()
    assert shown == [(5, 12)]
    interrupted = False
    calls.clear()
    rows = computed()
    assert calls == [1, 5, 2]  # one film tells the shape
    assert shown[1:] == [(10, 12), (12, 12)]
    expected = [prepared.image(i).astype(np.float32).ravel()[:3] * 2 for i in range(12)]
    assert np.array_equal(rows, expected)
