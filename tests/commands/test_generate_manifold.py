"""Images of the manifold: whom they descend from, so that they are left out beside held-out patients."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import radiffuse
from radiffuse.config import Data
from radiffuse.data.copies import without_held_out
from radiffuse.data.layouts import open_dataset
from radiffuse.data.provenance import read_origins
from radiffuse.errors import InputError
from radiffuse.train.cases import open_more

MACHINE = {"accelerator": "cpu", "precision": "32-true"}


def draw(run: Path, out: Path, **changes: object) -> Path:
    return Path(radiffuse.generate(run=run, out=out, **{"steps": 2, "machine": MACHINE} | changes))


@pytest.mark.parametrize("earlier", [False, True])
def test_images_of_the_manifold_are_left_out_beside_a_patient_that_it_was_fitted_on(
    synthesizer: Path, classes: Path, tmp_path: Path, earlier: bool
) -> None:
    run = tmp_path / "run"
    shutil.copytree(synthesizer, run)
    data = json.loads((run / "data.json").read_text())
    if earlier:
        del data["unlabelled_patients"]
        (run / "data.json").write_text(json.dumps(data))
    held = set(data["split"]["validation"])
    out = draw(run, tmp_path / "fake", strategy=("manifold", "variation"), count=2)
    real, drawn = open_dataset(classes), open_more(str(out), Data())
    for number in (0, 1):
        part = [case for case in real if (case.name in held) == bool(number)]
        kept = without_held_out(drawn, replace(real, cases=(part[0],)))
        assert sum("manifold" in case.name for case in kept) == 2 * number
    chosen = tmp_path / "chosen"
    for case in list(real)[:6]:
        (chosen / case.target).mkdir(parents=True, exist_ok=True)
        shutil.copy(case.images[0], chosen / case.target)
    other = draw(run, tmp_path / "other", strategy=("manifold",), count=1, references=chosen)
    assert {case.group for case in open_dataset(other)} == {
        "+".join(sorted(case.group for case in open_dataset(chosen)))
    }
    assert [origin.shared for origin in read_origins(open_dataset(other)).values()] == [True]
    if earlier:
        config = (run / "config.yaml").read_text().replace(str(classes), str(tmp_path / "gone"))
        (run / "config.yaml").write_text(config)
        (run / "data.json").write_text("{}")
        with pytest.raises(InputError, match="did not note whom"):
            draw(run, tmp_path / "third", strategy=("manifold",))
