"""The code of docs/how-to/use-as-library.md runs, in its order, and each example is as short as it promises."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from radiffuse.data import layouts
from radiffuse.errors import InputError, RunError
from radiffuse.nets import registry
from radiffuse.train.run import Run

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-as-library.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page registers is forgotten afterwards."""
    for owner, name in ((registry, "REGISTERED"), (layouts, "LAYOUTS"), (layouts, "EXPECTED")):
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))


def test_examples_are_short() -> None:
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        assert sum(bool(line.strip()) for line in block.splitlines()) < 30


def test_the_page_runs(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untouched: None
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(films, "FILMS")
    Path("BESIDE").mkdir()
    for number, image in enumerate(sorted((films / "images").iterdir())):
        name = f"p{number // 2}_{number}"
        shutil.copy(image, f"BESIDE/{name}.png")
        shutil.copy(films / "labels" / image.name, f"BESIDE/{name}.mask.png")
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    losses = [row["loss"] for row in Run.open("runs/tversky").log() if "loss" in row]
    assert 0 < losses[-1] < 1
    data = Run.open("runs/beside").data
    assert (data["layout"], data["patients"] <= 6) == ("beside", True)

    # Who does not know the network cannot load the run; who trains another one must not go on with it.
    registry.REGISTERED.clear()
    with pytest.raises(RunError, match="unknown kind 'plain'"):
        names["radiffuse"].Segmenter.load("runs/plain")  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"holds a run with custom\.loss = .*tversky, not None"):
        names["radiffuse"].fit(  # type: ignore[attr-defined]
            data="FILMS", method="scratch", out="runs/tversky", steps=4, size=(32, 32)
        )
