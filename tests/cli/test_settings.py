"""Settings: one parser behind flags, YAML and keywords; nothing illegal gets through."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest
from radiffuse.config.ranges import RANGES, verify_ranges

import radiffuse
from radiffuse import config
from radiffuse.cli.settings import RECIPES, from_arguments, from_values, read_recipe
from radiffuse.commands import COMMANDS
from radiffuse.config.values import from_dict, to_dict
from radiffuse.errors import InputError

REQUIRED = {
    "check": ["d"],
    "anatomy": ["bitewing", "--out", "o"],
    "pretrain": ["d", "--out", "o"],
    "sample": ["r", "--out", "o"],
    "coordinates": ["d", "--out", "o"],
    "synthesize": ["d", "--out", "o"],
    "generate": ["r", "--out", "o"],
    "zeroshot": ["r", "d", "--out", "o"],
    "fidelity": ["r", "f"],
    "classify": ["d", "--out", "o"],
    "augment": ["d", "--out", "o"],
    "memorization": ["r", "f", "--out", "o"],
    "finetune": ["d", "--out", "o"],
    "probe": ["d", "--from", "r", "--out", "o"],
    "diffseg": ["d", "--out", "o"],
    "predict": ["r", "d", "--out", "o"],
    "evaluate": ["m", "t", "--out", "o"],
    "study": ["d", "--out", "o"],
    "report": ["r"],
    "info": ["r"],
    "view": ["p"],
    "export": ["r", "--out", "o"],
    "convert": ["r", "--out", "o"],
    "compare": ["r"],
    "doctor": [],
    "completion": ["bash"],
}
SETTINGS = [
    cls
    for cls in vars(config).values()
    if isinstance(cls, type)
    and dataclasses.is_dataclass(cls)
    and cls.__module__.startswith(config.__name__)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_without_values_give_the_defaults(command: str) -> None:
    settings = from_arguments(command, REQUIRED[command]).settings
    words = iter(REQUIRED[command])
    cls = COMMANDS[command].settings
    given = {f.name: next(words) for f in dataclasses.fields(cls) if f.metadata.get("positional")}
    if "--out" in REQUIRED[command]:
        given["out"] = "o"
    if "--from" in REQUIRED[command]:
        given["from_run"] = "r"
    for several in given.keys() & {"runs", "paths"}:
        given[several] = (given[several],)
    assert settings == cls(**given)


@pytest.mark.parametrize("command", COMMANDS)
def test_settings_survive_yaml(command: str) -> None:
    import yaml

    settings = from_arguments(command, REQUIRED[command]).settings
    plain = yaml.safe_load(yaml.safe_dump(to_dict(settings)))
    assert from_dict(COMMANDS[command].settings, plain) == settings


def test_a_key_that_an_older_version_lacked_takes_its_default() -> None:
    assert from_dict(config.Training, {"steps": 3}) == config.Training(steps=3)


@pytest.mark.parametrize("cls", SETTINGS, ids=lambda c: c.__name__)
def test_every_setting_is_frozen_and_explained(cls: Any) -> None:
    import ast

    assert cls.__dataclass_params__.frozen
    node = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(node, ast.ClassDef)
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(after, ast.Expr), f"{ast.unparse(statement)} has no docstring"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_function_takes_what_the_command_takes(command: str) -> None:
    function = getattr(radiffuse, command)
    fields = {f.name for f in dataclasses.fields(COMMANDS[command].settings)}
    parameters = inspect.signature(function).parameters
    assert set(parameters) == fields
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    assert function.__doc__


@pytest.mark.parametrize("recipe", sorted(p.stem for p in RECIPES.glob("*.yaml")))
def test_every_recipe_fits_a_command(recipe: str) -> None:
    content = read_recipe(recipe)
    fitting = []
    for command in ("pretrain", "coordinates", "finetune", "diffseg", "study", "synthesize"):
        try:
            from_values(command, {"data": "d", "out": "o", "config": recipe})
        except InputError:
            continue
        fitting.append(command)
    assert content
    assert fitting


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--learning-rate=3e-4"], "training.learning_rate", 3e-4),
        (["--training.learning_rate", "3e-4"], "training.learning_rate", 3e-4),
        (["--micro-batch", "none"], "training.micro_batch", None),
        (["--micro-batch", "4"], "training.micro_batch", 4),
        (["--gradient-clip", "null"], "training.gradient_clip", None),
        (["--size", "64"], "plan.size", (64,)),
        (["--size", "64,96"], "plan.size", (64, 96)),
        (["--size", "[64, 96]"], "plan.size", (64, 96)),
        (["--window=-1000,400"], "plan.window", (-1000.0, 400.0)),
        (["--window", "-1000,400"], "plan.window", (-1000.0, 400.0)),
        (["--zero-terminal-snr"], "diffusion.zero_terminal_snr", True),
        (["--zero-terminal-snr", "false"], "diffusion.zero_terminal_snr", False),
        (["--no-such"], None, None),
        (["--from", "films-64"], "from_run", "films-64"),
        (["--group", "^(p[0-9]+)"], "reader.group", "^(p[0-9]+)"),
        (["--skip-bad"], "reader.skip_bad", True),
        (["--flip", "0,1"], "augmentation.flip", (0, 1)),
        (["--preset", "small"], "network.preset", "small"),
    ],
)
def test_flags(words: list[str], path: str | None, value: object) -> None:
    if path is None:
        with pytest.raises(InputError, match="is not a setting"):
            from_arguments("pretrain", ["d", "--out", "o", *words])
        return
    found: Any = from_arguments("pretrain", ["d", *words, "--out", "o"]).settings
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_bare_boolean_does_not_eat_the_data_folder() -> None:
    settings = from_arguments("pretrain", ["--skip-bad", "films", "--out", "o"]).settings
    assert settings.reader.skip_bad is True
    assert settings.data == "films"


def test_later_files_win_over_earlier_ones_and_flags_over_both(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("training: {steps: 5, batch_size: 6}\n")
    second.write_text("training: {steps: 7}\n")
    words = ["d", "--out", "o", "--config", str(first), "--config", str(second)]
    training = from_arguments("pretrain", words).settings.training
    assert (training.steps, training.batch_size) == (7, 6)
    assert from_arguments("pretrain", [*words, "--steps", "9"]).settings.training.steps == 9
    both = {"data": "d", "out": "o", "config": [first, second]}
    assert from_values("pretrain", both).training == training


def test_a_group_can_be_given_as_its_dataclass_or_a_dict() -> None:
    training = config.Training(steps=11, average_decay=0.9999)
    a = from_values("pretrain", {"data": "d", "out": "o", "training": training})
    b = from_values(
        "pretrain", {"data": "d", "out": "o", "training": {"steps": 11, "average_decay": 0.9999}}
    )
    assert a.training == b.training == training


@pytest.mark.parametrize(
    ("command", "values", "word"),
    [
        ("pretrain", {"out": "o"}, "DATA is missing"),
        ("pretrain", {"data": "d", "out": "o", "stepz": 4}, "stepz"),
        ("pretrain", {"data": "d", "out": "o", "steps": "many"}, "many"),
        ("pretrain", {"data": "d", "out": "o", "preset": "huge"}, "huge"),
        ("finetune", {"data": "d", "out": "o", "loss": "focal"}, "focal"),
        ("finetune", {"data": "d", "out": "o", "training": {"step": 4}}, "step"),
    ],
)
def test_illegal_values_are_named(command: str, values: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word) as error:
        from_values(command, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("pretrain", "steps", 0),
        ("pretrain", "batch_size", 0),
        ("pretrain", "micro_batch", 0),
        ("pretrain", "log_every", 0),
        ("pretrain", "checkpoint_every", 0),
        ("pretrain", "validate_every", -1),
        ("pretrain", "learning_rate", -1.0),
        ("pretrain", "learning_rate", float("nan")),
        ("pretrain", "learning_rate", float("inf")),
        ("pretrain", "average_decay", 1.5),
        ("pretrain", "seed", -1),
        ("pretrain", "multipliers", (1, 0)),
        ("pretrain", "dropout", 2.0),
        ("pretrain", "num_train_timesteps", 0),
        ("pretrain", "limit", 0),
        ("pretrain", "size", (4, 64)),
        ("pretrain", "percentiles", (0.0, 101.0)),
        ("pretrain", "flip", (3,)),
        ("pretrain", "scale", 1.0),
        ("pretrain", "workers", 0),
        ("finetune", "draw", -1),
        ("finetune", "timestep", -1),
        ("finetune", "labels", 0),
        ("predict", "overlap", 1.0),
        ("sample", "steps", 0),
        ("anatomy", "count", 0),
        ("study", "labels", (1, 0)),
    ],
)
def test_numbers_out_of_range_are_named(command: str, name: str, value: Any) -> None:
    given: dict[str, Any] = {"out": "o", name: value}
    for field in dataclasses.fields(COMMANDS[command].settings):
        if field.metadata.get("positional") and field.name != "kind":
            given[field.name] = "x"
    with pytest.raises(InputError, match=rf"--[a-z.]*{name} .*out of range.*Legal is") as error:
        from_values(command, given)
    assert "\n" not in str(error.value)


def test_every_range_belongs_to_a_setting_and_allows_its_default() -> None:
    for name, fields in RANGES.items():
        cls = getattr(config, name)
        assert set(fields) <= {f.name for f in dataclasses.fields(cls)}
        verify_ranges(cls())


def test_ranges_hold_inside_the_groups_of_a_study() -> None:
    settings = config.Study(pretrain=config.Pretrain(training=config.Training(batch_size=0)))
    with pytest.raises(InputError, match=r"--pretrain\.training\.batch_size 0"):
        verify_ranges(settings)


@pytest.mark.parametrize(
    ("text", "word"),
    [("{", "not readable YAML"), ("just words", "holds no settings"), ("a: [1\n", "not readable")],
)
def test_a_damaged_settings_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=word) as error:
        read_recipe(path)
    assert error.value.where == str(path)
    for words in (["d", "--out", "o", "--config", str(path)],):
        with pytest.raises(InputError):
            from_arguments("pretrain", words)


def test_every_hint_resolves_without_heavy_packages() -> None:
    for cls in SETTINGS:
        assert set(typing.get_type_hints(cls)) == {f.name for f in dataclasses.fields(cls)}


def test_words_without_a_flag_are_runs_and_the_last_is_the_data() -> None:
    for words in (["a", "b", "d", "--out", "o"], ["--out", "o", "a", "b", "d"]):
        settings = from_arguments("predict", words).settings
        assert settings.runs == ("a", "b")
        assert settings.data == "d"
    assert from_values("predict", {"runs": "a", "data": "d", "out": "o"}).runs == ("a",)
    with pytest.raises(InputError, match="RUNS is missing"):
        from_arguments("predict", ["a", "--out", "o"])


def test_a_settings_file_cannot_have_another_file_read(tmp_path: Path) -> None:
    """The parser would take a word in place of a group for the name of a file."""
    secret, path = tmp_path / "secret.yaml", tmp_path / "settings.yaml"
    secret.write_text("steps: 77\n")
    path.write_text(f"training: {secret}\n")
    with pytest.raises(InputError, match="training is a group of settings"):
        from_arguments("pretrain", ["d", "--out", "o", "--config", str(path)])
    with pytest.raises(InputError, match="training is a group of settings"):
        from_values("pretrain", {"data": "d", "out": "o", "config": str(path)})
    path.write_text("training: &t {steps: 5}\nnetwork: *t\n")
    with pytest.raises(InputError, match="aliases are not read"):
        from_arguments("pretrain", ["d", "--out", "o", "--config", str(path)])
