"""An evaluation that is stopped leaves no page of an earlier one beside scores of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import radiffuse
from radiffuse.commands import evaluate


def test_scores_lie_beside_no_summary_of_other_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, out = tmp_path / "truth", tmp_path / "out"
    for folder, values in (
        (truth / "images", np.eye(9) * 200),
        (truth / "labels", np.eye(9)),
        (tmp_path / "right", np.eye(9)),
        (tmp_path / "wrong", np.eye(9)[::-1]),
    ):
        folder.mkdir(parents=True)
        Image.fromarray(values.astype(np.uint8)).save(folder / "a.png")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    radiffuse.evaluate(masks=tmp_path / "right", truth=truth, out=out)
    whole = {path.name for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "summarize", stopped)
        with pytest.raises(KeyboardInterrupt):
            radiffuse.evaluate(masks=tmp_path / "wrong", truth=truth, out=out)
    assert {path.name for path in out.iterdir()} == {"cases.csv", "overlays.npz"}
    radiffuse.evaluate(masks=tmp_path / "wrong", truth=truth, out=out)
    assert {path.name for path in out.iterdir()} == whole
