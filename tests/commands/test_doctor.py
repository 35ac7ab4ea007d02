"""The doctor tells what is there, and what is in the way; numbers are those of files of known size."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import radiffuse.system.hardware as hardware
from radiffuse.cli import main
from radiffuse.commands.doctor import PURPOSES, look_at, missing, requirements

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "measure", lambda device: {"float32": 3.0, "bfloat16": 2.0})


def test_text_names_everything_and_all_is_well(
    quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("Python", f"torch        {version('torch')}", "memory", "disk", "cache", "ready"):
        assert word in text
    for name in tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]:
        assert f"  {name}" in text
    assert "with bfloat16 in 2.0 ms: 1.5 times as fast" in text


def test_json_holds_what_the_text_says(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "c"
    (cache / "prepared" / "a").mkdir(parents=True)
    (cache / "splits").mkdir()
    (cache / "prepared" / "a" / "images.npy").write_bytes(bytes(1000))
    (cache / "prepared" / "rows.jsonl").write_bytes(bytes(7))
    (cache / "splits" / "k.json").write_bytes(bytes(24))
    assert main(["doctor", "--json", "--cache", str(cache)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["problems"] == []
    assert found["cache"]["parts"] == {"prepared": 1007, "splits": 24}
    assert (found["cache"]["bytes"], found["cache"]["writable"]) == (1031, True)
    assert found["devices"][0]["kind"] == "cpu"
    assert found["devices"][0]["gain"] == 1.5
    assert found["memory"]["total"] > 0
    assert found["disk"]["free"] > 0
    assert {e["name"] for e in found["extras"]} == set(
        tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    )


def test_a_torchvision_that_does_not_fit_is_a_problem(
    quick: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    foreign = tmp_path / "site" / "torchvision"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    about = tmp_path / "site" / "torchvision-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["doctor"]) == 2
    text = capsys.readouterr().out
    assert "PROBLEM: torchvision 9.9: does not load beside this torch (RuntimeError)" in text
    assert "pip uninstall torchvision" in text
    assert main(["doctor", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["torchvision"] == {"installed": "9.9", "loads": False}


def test_a_cache_that_cannot_be_written_is_a_problem(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["doctor", "--cache", str(tmp_path / "file" / "cache")]) == 2
    assert "RADIFFUSE_CACHE" in capsys.readouterr().out


def test_ranges_extras_and_markers_are_read_from_a_clone_or_from_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        '[project]\nname = "radiffuse"\nrequires-python = ">=3.11"\n'
        'dependencies = ["numpy<1", "torch[opt]>=1", "no-such-package>=2"]\n'
        "[project.optional-dependencies]\n"
        'mine = ["no-such-thing"]\ndev = ["radiffuse[mine]", "pytest", "no-such; python_version < \'3\'"]\n'
    )
    about = tmp_path / "site" / "radiffuse-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: radiffuse\nVersion: 1\nRequires-Python: >=3.11\n"
        "Requires-Dist: numpy<1\nRequires-Dist: torch[opt]>=1\nRequires-Dist: no-such-package>=2\n"
        'Provides-Extra: mine\nRequires-Dist: no-such-thing; extra == "mine"\nProvides-Extra: dev\n'
        'Requires-Dist: radiffuse[mine]; extra == "dev"\nRequires-Dist: pytest; extra == "dev"\n'
        'Requires-Dist: no-such; python_version < "3" and extra == "dev"\n'
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    for python, wanted in (requirements(project), requirements(tmp_path / "absent.toml")):
        assert python == ">=3.11"
        packages = {requirement.name: look_at(requirement) for requirement in wanted[""]}
        assert {name: p["fits"] for name, p in packages.items()} == {
            "numpy": False,
            "torch": True,
            "no-such-package": False,
        }
        assert packages["numpy"]["installed"] is not None
        assert packages["no-such-package"]["installed"] is None
        lacks = {extra: list(missing(wanted, extra)) for extra in wanted if extra}
        assert lacks == {"dev": ["no-such-thing"], "mine": ["no-such-thing"]}


def test_every_extra_has_a_purpose() -> None:
    known = set(tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"])
    assert known <= set(PURPOSES), "say in doctor.PURPOSES what the extra is for"


def test_the_limit_of_a_container_is_seen(tmp_path: Path) -> None:
    assert hardware.memory_limit(tmp_path, 100) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.memory_limit(tmp_path, 100) is None
    (tmp_path / "memory.max").write_text("60\n")
    assert hardware.memory_limit(tmp_path, 100) == 60
    old = tmp_path / "old"
    (old / "memory").mkdir(parents=True)
    (old / "memory" / "memory.limit_in_bytes").write_text(
        "9223372036854771712\n"
    )  # none, in version 1
    assert hardware.memory_limit(old, 100) is None


def test_arithmetic_is_really_measured() -> None:
    found = hardware.measure(torch.device("cpu"))
    assert set(found) == {"float32", "bfloat16"}
    assert all(time > 0 for time in found.values())
