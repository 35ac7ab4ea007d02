"""What a file of settings says in vain is named in a line; what is typed in vain is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from radiffuse.automatic.candidates import settings_of
from radiffuse.cli import main
from radiffuse.cli.recipes import RECIPES
from radiffuse.cli.settings import Parsed, from_arguments, parsed_values
from radiffuse.config.given import typed_over
from radiffuse.errors import InputError
from radiffuse.studies.ignored import unused

STUDY = ["d", "--out", "o", "--unlabelled", "u"]


def files(tmp_path: Path, name: str) -> tuple[str, str]:
    copy = tmp_path / "my.yaml"
    shutil.copy(RECIPES / f"{name}.yaml", copy)
    return name, str(copy)


def told(parsed: Parsed) -> list[str]:
    found = [*parsed.unheeded]
    with typed_over(parsed.base, found.append):
        return found + unused(parsed.settings)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--methods guided,diffusion --pretrain.coordinates REG", ["regressor"]),
        ("--methods contrastive --reference contrastive", ["regressor", "pretrain.diffusion.loss"]),
        ("--methods scratch --reference scratch", ["regressor", "transfer", "probing"]),
    ],
)
def test_a_copy_of_a_recipe_is_taken_as_the_recipe_is(
    tmp_path: Path, words: str, names: list[str]
) -> None:
    recipe, copy = files(tmp_path, "guided-abdomen")
    parsed = [
        from_arguments("study", [*STUDY, "--config", config, *words.split()])
        for config in (recipe, copy)
    ]
    assert parsed[0].settings == parsed[1].settings
    assert told(parsed[0]) == told(parsed[1])
    for name in names:
        assert any(f"{name} takes no effect, since " in line for line in told(parsed[1])), name


def test_what_is_typed_beside_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    _, copy = files(tmp_path, "guided-abdomen")
    line = [*STUDY, "--config", copy, "--methods", "guided", "--reference", "guided"]
    given = ["--pretrain.coordinates", "REG"]
    with pytest.raises(InputError, match=r"^--regressor.training.steps: takes no effect, since"):
        from_arguments("study", [*line, *given, "--regressor.training.steps", "5"])
    values: dict[str, Any] = {"data": "d", "out": "o", "config": copy, "methods": ["scratch"]}
    values |= {"reference": "scratch", "regressor": {"training": {"steps": 5}}}
    with pytest.raises(InputError, match=r"^--regressor.training.steps: takes no effect, since"):
        parsed_values("study", values)


def test_one_line_names_all_that_a_file_says_in_vain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("my.yaml").write_text("draw: 3\npool: {dropout: 0.3}\nweights: raw\n")
    line = ["fit", "empty", "--out", "o", "--method", "scratch", "--config", "my.yaml"]
    for words in (line, [*line, "--dry-run"]):
        main(words)
        (said,) = (text for text in capsys.readouterr().err.splitlines() if "my.yaml" in text)
        assert said.startswith("radiffuse: my.yaml: ")
        for name in ("draw", "pool", "weights"):
            assert f"{name} takes no effect, since " in said


def test_auto_tries_no_method_that_does_not_obey_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("network: {width: 8}\nreader: {cache: here}\n")
    parsed = from_arguments("fit", ["d", "--out", "o", "--config", str(path)])
    with typed_over(parsed.base, pytest.fail):
        assert settings_of(parsed.settings, "scratch", {}).network.width == 8
        with pytest.raises(InputError, match=r"^--network.width: takes no effect"):
            settings_of(parsed.settings, "imagenet", {})
