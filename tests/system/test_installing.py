"""How an extra is installed, by where this radiffuse came from."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from radiffuse.system import installing

ROOT = Path(__file__).parents[2]
COMMIT = {"vcs": "git", "commit_id": "0"}


def test_in_a_clone_it_is_installed_from_the_clone() -> None:
    assert installing.install("view") == f'pip install -e "{ROOT}[view]"'


@pytest.mark.parametrize(
    ("origin", "typed"),
    [
        ({"url": "file://HERE", "dir_info": {}}, 'pip install "HERE[view]"'),
        ({"url": "file:///gone", "dir_info": {}}, 'pip install "radiffuse[view]"'),
        ({"url": "https://x.org/r", "vcs_info": COMMIT}, "radiffuse[view] @ git+https://x.org/r"),
        (None, 'pip install "radiffuse[view]"'),
    ],
)
def test_elsewhere_the_installed_package_says_where_it_is_from(
    origin: dict[str, Any] | None, typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(origin).replace("HERE", str(tmp_path)) if origin else None
    found = SimpleNamespace(read_text=lambda _: text)
    monkeypatch.setattr(installing, "__file__", str(tmp_path / "a" / "b" / "c" / "installing.py"))
    monkeypatch.setattr(metadata, "distribution", lambda _: found)
    assert typed.replace("HERE", str(tmp_path)) in installing.install("view")


def test_no_advice_names_an_index_on_its_own() -> None:
    source = ROOT / "src" / "radiffuse"
    own = Path(installing.__file__)
    told = [path for path in source.rglob("*.py") if "radiffuse[" in path.read_text("utf-8")]
    assert [path.name for path in told if path != own] == []
