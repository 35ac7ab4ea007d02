"""What radiffuse info says, and that it needs no torch for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from radiffuse.cli import main
from radiffuse.commands.info import describe
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.system.files import count_parameters
from tiny_runs import chosen_run

WEIGHTS = Path(__file__).parents[2] / "src" / "radiffuse" / "train" / "weights" / "films-64"


def test_a_run_in_a_few_lines() -> None:
    lines = dict(describe(WEIGHTS))
    assert lines["command"] == "radiffuse pretrain"
    assert lines["data"] == "cxr-classes, 2100 cases, 1565 patients"
    assert lines["size"] == "64 x 64 pixels"
    assert lines["network"] == "denoiser, 3.0 M parameters, channels 16 32 64 128"
    assert lines["finished"] == "yes"
    assert lines["licence"].startswith("Apache-2.0")


def test_members_that_see_a_scan_on_several_grids_are_told_apart(tmp_path: Path) -> None:
    plans = [Plan(2, ("image",), ("background", "a"), (side, side)) for side in (16, 32)]
    lines = describe(chosen_run(tmp_path / "run", *plans))
    sizes = [value for name, value in lines if name == "size"]
    assert sizes == ["16 x 16 pixels (part-0)", "32 x 32 pixels (part-1)"]
    assert [value for name, value in lines if name == "classes"] == ["background, a"]
    alike = describe(chosen_run(tmp_path / "alike", plans[0], plans[0]))
    assert [value for name, value in alike if name == "size"] == ["16 x 16 pixels"]


def test_the_header_counts_what_the_network_has() -> None:
    from radiffuse.nets.registry import load_network

    parameters = load_network(WEIGHTS / "model").parameters()
    assert count_parameters(WEIGHTS / "model" / "model.safetensors") == sum(
        p.numel() for p in parameters
    )


def test_weights_and_plans_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(WEIGHTS / "model")]) == 0
    assert "3.0 M parameters" in capsys.readouterr().out
    assert main(["info", str(WEIGHTS / "plan.json")]) == 0
    assert "64 x 64 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff" * 16, b"\x02" + bytes(7) + b"{}x", b"\x02" + bytes(7) + b"[]"],
)
def test_damaged_weights_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps({"kind": "denoiser"}))
    with pytest.raises(InputError, match=r"model\.safetensors"):
        describe(tmp_path)


def test_torch_stays_out() -> None:
    code = (
        "import sys; from radiffuse.cli import main; "
        f"main(['info', {str(WEIGHTS)!r}]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_shipped_weights_studies_and_evaluations_are_told_by_name(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "films-64"]) == 0
    assert "3.0 M parameters" in capsys.readouterr().out
    assert main(["info", "films-65"]) == 2
    assert "Shipped weights are: films" in capsys.readouterr().err
    out, masks = tmp_path / "scored", shutil.copytree(films / "labels", tmp_path / "masks")
    assert main(["evaluate", str(masks), str(films), "--out", str(out)]) == 0
    lines = dict(describe(out))
    assert lines["truth"] == str(films)
    assert lines["result"] == "surface Dice 1.000 (1.000 to 1.000)"
    study = {"data": "d", "methods": ["scratch", "finetune"], "labels": [5, 10], "draws": 2}
    (tmp_path / "study").mkdir()
    (tmp_path / "study/study.yaml").write_text(json.dumps(study | {"reference": "scratch"}))
    (tmp_path / "study/summary.csv").write_text(
        "method,labels,class,metric,mean,low,high\nfinetune,5,all,dice,0.81234,0.7,0.9\n"
        "finetune,5,lung,dice,0.1,0.1,0.1\n"
    )
    lines = dict(describe(tmp_path / "study"))
    assert lines["methods"] == "scratch, finetune"
    assert lines["result"] == "finetune, 5 labels: Dice 0.812 (0.700 to 0.900)"
    (tmp_path / "study/study.yaml").write_text("data: d")
    with pytest.raises(InputError, match="study.yaml: is damaged"):
        describe(tmp_path / "study")
