"""Run folders: whom they let in, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from radiffuse.config import Pretrain, Training
from radiffuse.config.effect import effective
from radiffuse.config.values import to_dict
from radiffuse.errors import InputError, RunError
from radiffuse.train.run import WEIGHTS, Run, find_run
from radiffuse.train.start_run import WITHOUT_EFFECT, start_run


def settings_of(**training: object) -> Pretrain:
    given: dict[str, object] = {"decay": "cosine", "steps": 1000, "batch_size": 16}
    chosen = Training(**(given | training))  # type: ignore[arg-type]
    return Pretrain(data="d", out="o", training=chosen)


def values(**training: object) -> dict[str, object]:
    return effective(settings_of(**training))


def begin(folder: Path, settings: object, *, trained: bool = True) -> None:
    with start_run(folder, "pretrain", settings) as run:
        if trained:
            (run.state / "step-00000001").mkdir(parents=True)


def refused(folder: Path, settings: object, command: str = "pretrain") -> str:
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(InputError) as error, start_run(folder, command, settings):
        pass
    assert (folder / "config.yaml").read_bytes() == before
    assert str(folder) in str(error.value)
    return str(error.value)


def test_the_same_settings_go_on(tmp_path: Path) -> None:
    begin(tmp_path / "run", values())
    with start_run(tmp_path / "run", "pretrain", values()) as run:
        assert run.config["settings"] == values()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"learning_rate": 0.3}, "training.learning_rate = 0.0001, not 0.3"),
        ({"seed": 4}, "training.seed = 0, not 4"),
        ({"steps": 2000}, "training.steps = 1000, not 2000"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    begin(tmp_path / "run", values())
    assert word in refused(tmp_path / "run", values(**change))


def test_a_run_whose_weight_decay_changes_up_to_its_last_step_is_not_extended(
    tmp_path: Path,
) -> None:
    plain: dict[str, object] = {"decay": "constant"}
    begin(tmp_path / "plain", values(**plain))
    with start_run(tmp_path / "plain", "pretrain", values(**plain, steps=2000)):
        pass
    ending = plain | {"weight_decay": 0.04, "final_weight_decay": 0.4}
    begin(tmp_path / "run", values(**ending))
    words = refused(tmp_path / "run", values(**ending | {"steps": 2000}))
    assert "training.steps = 1000, not 2000" in words


def test_what_does_not_touch_the_weights_may_change(tmp_path: Path) -> None:
    begin(tmp_path / "run", values())
    free = {name.partition(".")[2] for name in WITHOUT_EFFECT if name.startswith("training.")}
    every = {"validate_every", "checkpoint_every", "log_every"}
    assert free == {*every, "keep_state", "wandb", "mlflow"}
    texts = {"wandb": "project", "mlflow": "address", "keep_state": True}
    free -= texts.keys()
    with start_run(tmp_path / "run", "pretrain", values(**dict.fromkeys(free, 7), **texts)) as run:
        assert run.config["settings"]["training"]["log_every"] == 7


@pytest.mark.parametrize(
    ("command", "keep", "row", "stands"),
    [
        ("fit", "best", '{"step": 10, "validation": {"dice": 0.5}}', True),
        ("fit", "best", '{"step": 10, "loss": 0.5}', False),  # nothing was compared yet
        ("fit", "last", '{"step": 10, "validation": {"dice": 0.5}}', False),
        ("pretrain", "best", '{"step": 10, "validation": {"loss": 0.5}}', False),  # judges nothing
    ],
)
def test_what_is_compared_for_the_best_weights_stays(
    command: str, keep: str, row: str, stands: bool, tmp_path: Path
) -> None:
    def given(every: int) -> dict[str, object]:
        chosen: dict[str, object] = {"method": "scratch"} if command == "fit" else {}
        return chosen | {"training": {"steps": 100, "keep": keep, "validate_every": every}}

    folder = tmp_path / "run"
    with start_run(folder, command, given(10)) as run:
        (run.state / "step-00000010").mkdir(parents=True)
        (folder / "log.jsonl").write_text(row + "\n")
    if stands:
        said = refused(folder, given(5), command)
        assert "training.validate_every = 10, not 5" in said
    else:
        with start_run(folder, command, given(5)) as run:
            assert run.config["settings"]["training"]["validate_every"] == 5


def test_a_run_that_knew_fewer_settings_goes_on(tmp_path: Path) -> None:
    """Settings that it did not know yet had their defaults."""
    begin(tmp_path / "run", values())
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    del config["settings"]["objective"], config["settings"]["training"]["average_decay"]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    begin(tmp_path / "run", settings_of(), trained=False)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert "average_decay = 0.9999, not 0.5" in refused(
        tmp_path / "run", settings_of(average_decay=0.5)
    )


def test_a_constant_rate_can_be_prolonged(tmp_path: Path) -> None:
    constant = values() | {"training": to_dict(Training(steps=10))}
    begin(tmp_path / "run", constant)
    longer = values() | {"training": to_dict(Training(steps=20))}
    with start_run(tmp_path / "run", "pretrain", longer) as run:
        assert run.config["settings"]["training"]["steps"] == 20


def test_another_command_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "run", values())
    assert "holds a run of 'radiffuse pretrain'" in refused(tmp_path / "run", values(), "finetune")


def test_a_run_that_learned_nothing_gives_way(tmp_path: Path) -> None:
    begin(tmp_path / "run", settings_of(), trained=False)
    (tmp_path / "run" / "plan.json").write_text("{}")
    with start_run(tmp_path / "run", "pretrain", values(seed=5)) as run:
        assert run.config["settings"]["training"]["seed"] == 5
    assert not (tmp_path / "run" / "plan.json").exists()


def test_another_version_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "run", values())
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("run_version: 2", "run_version: 1"))
    assert "run version 1, this radiffuse reads 2" in refused(tmp_path / "run", values())


@pytest.mark.parametrize("text", ["", "[1, 2]", "settings: 3", "{", "\x00", "command: pretrain\n"])
def test_a_damaged_config_is_named(tmp_path: Path, text: str) -> None:
    begin(tmp_path / "run", values())
    path = tmp_path / "run" / "config.yaml"
    path.write_text(text)
    with pytest.raises(RunError, match=r"config\.yaml: is damaged"):
        Run.open(tmp_path / "run")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        Run.open(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"config\.yaml is missing"):
        Run.open(tmp_path)
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(InputError, match="is a file"), start_run(file, "pretrain", values()):
        pass
    with (
        pytest.raises(InputError, match="is not empty, and nothing in it is of this command"),
        start_run(tmp_path, "pretrain", values()),
    ):
        pass
    assert file.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_log_line_cut_short_is_left_out(tmp_path: Path) -> None:
    begin(tmp_path / "run", values())
    run = Run.open(tmp_path / "run")
    assert run.log() == []
    (run.folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert run.log() == [{"step": 1, "loss": 2.0}]


def test_the_config_is_plain_yaml(tmp_path: Path) -> None:
    begin(tmp_path / "run", values())
    content = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert list(content) == ["command", "run_version", "radiffuse", "settings"]
    assert content["settings"] == values()


def test_shipped_weights_are_found_beside_a_folder_of_data_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films" / "images").mkdir(parents=True)
    assert find_run("films").folder == WEIGHTS / "films"
    begin(tmp_path / "films-64", values())  # a run of that name comes first
    assert find_run("films-64").folder == Path("films-64")
    with pytest.raises(InputError, match="is not a run"):
        find_run("./films")


def test_settings_are_those_of_the_file_now_whoever_changes_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for steps in (3, 4, 3):
        path.write_text(f"command: pretrain\nsettings: {{training: {{steps: {steps}}}}}\n")
        for _ in range(2):
            read = Run(tmp_path).config["settings"]["training"]
            assert read["steps"] == steps
            read["steps"] = 7
