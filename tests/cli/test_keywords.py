"""Whoever calls a command from Python is told of keyword arguments, whenever the error comes; a shell of flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

import radiffuse
from radiffuse.cli import main
from radiffuse.cli.keywords import in_python
from radiffuse.errors import InputError, OutOfMemory, RadiffuseError, RunError, TrainingDiverged


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Choose fewer, or leave --labels out", "Choose fewer, or leave labels out"),
        ("with --test 0 --validation 0", "with test=0 validation=0"),
        ("give --method dino or --from", 'give method="dino" or from_'),
        ("leave --from or --method out", "leave from_ or method out"),
        ("Lower --machine.workers", 'Lower machine={"workers": ...}'),
        ("set --machine.precision 32-true, or", 'set machine={"precision": "32-true"}, or'),
        ("Give --steps 1e-4 or --keep-state true.", "Give steps=1e-4 or keep_state=True."),
        ("name DATA; see radiffuse fit --help", "name data; see help(radiffuse.fit)"),
        ("see radiffuse COMMAND --help", "see help(radiffuse.fit)"),
        ("/a/DATA/b--out.png is bad", "/a/DATA/b--out.png is bad"),
        (
            "radiffuse fit DATA --method scratch --out runs/seg, then --from it",
            "radiffuse fit DATA --method scratch --out runs/seg, then from_ it",
        ),
        ("a run of pretrain --objective ddpm", "a run of pretrain --objective ddpm"),
    ],
)
def test_flags_become_keyword_arguments_and_paths_and_commands_stay(text: str, said: str) -> None:
    with pytest.raises(InputError) as error, in_python("fit"):
        raise InputError("here", text, "Go on")
    assert error.value.problem == said


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("--labels 5", "labels=5"),
        ("--from runs/pre", 'from_="runs/pre"'),
        ("--unlabelled a,b", 'unlabelled=("a", "b")'),
        ("--plan.grid 40 x 40", 'plan={"grid": "40 x 40"}'),
        ("--size or --network.width", 'size or network={"width": ...}'),
        (Path("/a/--out"), "/a/--out"),
    ],
)
def test_what_follows_the_flag_at_fault_is_its_value(where: str | Path, said: str) -> None:
    with pytest.raises(InputError) as error, in_python("fit"):
        raise InputError(where, "is wrong", "Go on")
    assert error.value.where == said
    assert str(error.value) == f"{said}: is wrong. Go on."


@pytest.mark.parametrize(
    "error",
    [
        InputError("--labels 5", "is wrong", "Give --draw"),
        RunError("--labels 5", "is wrong", "Give --draw"),
        OutOfMemory("--labels 5", "is wrong", "Give --draw"),
        TrainingDiverged("labels=5: lower --draw"),
    ],
)
def test_an_error_while_a_command_works_keeps_its_type(
    error: RadiffuseError, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def act(settings: Any) -> NoReturn:
        raise error

    monkeypatch.setattr("radiffuse.cli.functions.load_act", lambda name: act)
    monkeypatch.setattr("radiffuse.commands.fit.fit_custom", lambda settings, **_: act(settings))
    for function in (radiffuse.fit, radiffuse.fit_custom):
        with pytest.raises(type(error)) as caught:
            function(data=tmp_path, out=tmp_path / "run")
        assert caught.value is error
        assert "labels=5" in str(error)
        assert "draw" in str(error)
        assert "--" not in str(error)


def test_a_shell_is_told_of_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(settings: Any) -> NoReturn:
        raise InputError("--labels 5", "is wrong", "Give --draw")

    monkeypatch.setattr("radiffuse.cli.functions.load_act", lambda name: act)
    assert main(["fit", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "--labels 5: is wrong. Give --draw." in capsys.readouterr().err
