"""Settings: one parser behind flags, YAML and keywords; nothing illegal gets through."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import radiffuse
from radiffuse import config
from radiffuse.cli.names import flag_of, full_name, kinds, positionals
from radiffuse.cli.recipes import RECIPES, names, read_recipe
from radiffuse.cli.settings import from_arguments, from_values, help_of
from radiffuse.commands import COMMANDS
from radiffuse.config.types import Spelled, Within
from radiffuse.config.values import from_dict, to_dict, verify_ranges
from radiffuse.errors import InputError

REQUIRED = {
    "check": ["d"],
    "select": ["d", "--out", "o"],
    "anatomy": ["bitewing", "--out", "o"],
    "pretrain": ["d", "--out", "o"],
    "fit": ["d", "--out", "o"],
    "classify": ["d", "--out", "o"],
    "predict": ["r", "d", "--out", "o"],
    "export": ["r", "--out", "o"],
    "convert": ["r", "--out", "o"],
    "evaluate": ["m", "t", "--out", "o"],
    "study": ["d", "--out", "o"],
    "augment": ["d", "--out", "o"],
    "judge": ["r", "f"],
    "synthesize": ["d", "--out", "o"],
    "generate": ["r", "--out", "o"],
    "zeroshot": ["r", "d", "--out", "o"],
    "view": ["p"],
    "info": ["r"],
    "cache": [],
    "doctor": [],
}
FREE = {"PlanSettings.window"}
"""Numbers without a range; they are checked where they are used."""
SETTINGS = [
    cls
    for cls in vars(config).values()
    if isinstance(cls, type)
    and dataclasses.is_dataclass(cls)
    and cls.__module__.startswith(config.__name__)
    and cls not in (Within, Spelled)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_without_values_give_the_defaults(command: str) -> None:
    settings = from_arguments(command, REQUIRED[command]).settings
    words = iter(REQUIRED[command])
    cls = COMMANDS[command].settings
    given = {f.name: next(words) for f in dataclasses.fields(cls) if f.metadata.get("positional")}
    if "--out" in REQUIRED[command]:
        given["out"] = "o"
    for several in given.keys() & {"runs", "paths"}:
        given[several] = (given[several],)
    assert settings == dataclasses.replace(
        config.FIT["auto"] if command == "fit" else cls(), **given
    )


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
    given = {
        f"{word}_run": f"{word}_" for word in ("from", "with", "for")
    }  # words that Python keeps
    assert set(parameters) == {given.get(name, name) for name in fields}
    assert all(f"    {name}" in function.__doc__ for name in parameters if name.endswith("_"))
    assert len(str(inspect.signature(function))) < 3000
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    assert function.__doc__


@pytest.mark.parametrize("recipe", names())
def test_every_recipe_is_read_by_the_command_that_it_names(recipe: str) -> None:
    lines = (RECIPES / f"{recipe}.yaml").read_text().splitlines()
    commands = [
        line.strip("# ").split()
        for line in lines
        if re.match(rf"#\s+radiffuse .*--config {recipe}( |$)", line)
    ]
    assert commands, "its comments name a command line"
    for words in commands:
        from_arguments(words[1], words[2:])


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
        ("fit", {"data": "d", "out": "o", "loss": "focal"}, "focal"),
        ("fit", {"data": "d", "out": "o", "training": {"step": 4}}, "step"),
    ],
)
def test_illegal_values_are_named(command: str, values: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word) as error:
        from_values(command, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fit d --out o --labels five", "--labels takes a whole number, not 'five'"),
        ("fit d --out o --steps 1.5", "--steps takes a whole number, not '1.5'"),
        (
            "fit d --out o --log-every null",
            "--log-every takes a whole number, not 'null'",
        ),
        ("fit d --out o --learning-rate x", "--learning-rate takes a number, not 'x'"),
        ("fit d --out o --skip-bad=maybe", "--skip-bad takes true or false, not 'maybe'"),
        (
            "fit d --out o --preset huge",
            "--preset takes one of tiny, tiny-256, small, base, paper or imagenet, not 'huge'",
        ),
        ("fit d --out o --weights x", "--weights takes one of average or raw, not 'x'"),
        (
            "study d --out o --labels 1,x",
            "--labels takes whole numbers, separated by commas, not '1,x'",
        ),
        (
            "fit d --out o --window a,2",
            "--window takes numbers, separated by commas, not 'a,2'",
        ),
        (
            "study d --out o --transfer linear,x",
            "--transfer takes any of linear, nonlinear or finetune, separated by commas, not 'linear,x'",
        ),
        ("anatomy foot --out o", "KIND takes one of bitewing, chest or abdomen, not 'foot'"),
    ],
)
def test_a_value_of_another_type_is_one_plain_sentence(words: str, message: str) -> None:
    command, *rest = words.split()
    with pytest.raises(InputError) as error:
        from_arguments(command, rest)
    assert str(error.value) == f"{message}."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": 5.5}, "--labels takes a whole number, not 5.5"),
        (
            {"size": [64, "big"]},
            "--size takes whole numbers, separated by commas, not '64,big'",
        ),
        ({"data": 3}, "DATA takes a text, not 3"),
    ],
)
def test_a_keyword_of_another_type_is_one_plain_sentence(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        from_values("fit", {"data": "d", "out": "o"} | values)


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
        ("fit", "draw", -1),
        ("fit", "hours", 0.0),
        ("fit", "labels", 0),
        ("predict", "overlap", 1.0),
        ("generate", "steps", 0),
        ("anatomy", "count", 0),
        ("study", "labels", (1, 0)),
        ("study", "tolerance", 0.0),  # the first scores of a study would be its end
        ("evaluate", "tolerance", 0.0),
        ("pretrain", "gradient_clip", 0.0),  # nothing would be learned
        ("pretrain", "min_snr_gamma", 0.0),
    ],
)
def test_numbers_out_of_range_are_named(command: str, name: str, value: Any) -> None:
    given: dict[str, Any] = {"out": "o", name: value}
    for field in dataclasses.fields(COMMANDS[command].settings):
        if field.metadata.get("positional") and field.name != "kind":
            given[field.name] = "x"
    flag = name.replace("_", "-")
    with pytest.raises(InputError, match=rf"--[a-z.]*{flag} .*out of range.*Legal is") as error:
        from_values(command, given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("value", "shown"), [("0", "0"), ("0.0001", "0.0001"), ("-3", "-3")])
def test_a_number_out_of_range_is_shown_as_it_was_typed(value: str, shown: str) -> None:
    with pytest.raises(InputError) as error:
        from_arguments("fit", ["d", "--out", "o", f"--hours={value}"])
    assert str(error.value) == f"--hours {shown} is out of range. Legal is at least 0.001."


def ranges(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any, Within]]:
    """Every number of a command with its range, by full name."""
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(kind):
            yield from ranges(kind, f"{prefix}{name}.")
        for part in parts_of(kind):
            yield from ((f"{prefix}{name}", kind, m) for m in part if isinstance(m, Within))


def parts_of(kind: Any) -> Iterator[tuple[Any, ...]]:
    yield getattr(kind, "__metadata__", ())
    for inner in typing.get_args(kind):
        if not isinstance(inner, str):
            yield from parts_of(inner)


def changed(settings: Any, name: str, value: Any) -> Any:
    first, _, rest = name.partition(".")
    inner = changed(getattr(settings, first), rest, value) if rest else value
    return dataclasses.replace(settings, **{first: inner})


@pytest.mark.parametrize("command", COMMANDS)
def test_both_ends_of_every_range_are_legal_and_nothing_beyond(command: str) -> None:
    settings = COMMANDS[command].settings()
    verify_ranges(settings)
    for name, kind, legal in ranges(type(settings)):
        several = ("tuple" in str(kind)) * (2 if name.endswith("percentiles") else 1)
        whole = "int" in str(kind)
        step = 1 if whole else 1e-6
        high = legal.high if math.isfinite(legal.high) else legal.low + 10**9
        for good in (legal.low, high):
            value = int(good) if whole else good
            verify_ranges(changed(settings, name, (value,) * several or value))
        beyond = [legal.low - step, math.inf, math.nan]
        beyond += [legal.high + step] if math.isfinite(legal.high) else []
        for bad in beyond:
            flag = name.replace("_", "-")
            with pytest.raises(InputError, match=f"--{flag} .*out of range"):
                verify_ranges(changed(settings, name, (bad,) * several or bad))


def test_every_number_of_every_command_has_a_range() -> None:
    free = set()
    for cls in SETTINGS:
        if cls is config.UNetConfig:
            continue
        hints = typing.get_type_hints(cls, include_extras=True)
        limited = {name for name, _, _ in ranges(cls)}
        for name, kind in hints.items():
            plain = {int, float} & set(leaves_of(kind))
            if plain and name not in limited:
                free.add(f"{cls.__name__}.{name}")
    assert free == FREE


def leaves_of(kind: Any) -> Iterator[Any]:
    inner = [k for k in typing.get_args(kind) if not isinstance(k, str | Within | Spelled)]
    yield from (leaf for k in inner for leaf in leaves_of(k)) if inner else (kind,)


def test_ranges_hold_inside_the_groups_of_a_study() -> None:
    settings = config.Study(pretrain=config.Pretrain(training=config.Training(batch_size=0)))
    with pytest.raises(InputError, match=r"--pretrain\.training\.batch-size 0"):
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
    with pytest.raises(InputError, match="needs RUNS and DATA, but has only a"):
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


def test_the_defaults_are_those_of_the_method_or_objective(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("method: probe\ntraining: {batch_size: 3}\n")
    training = config.FIT["probe"].training
    for settings in (
        from_arguments("fit", ["d", "--out", "o", "--config", str(recipe)]).settings,
        from_values("fit", {"data": "d", "out": "o", "config": recipe}),
    ):
        assert settings.training == dataclasses.replace(training, batch_size=3)
        assert settings.loss == config.FIT["probe"].loss
    line = ["d", "--out", "o", "--config", str(recipe), "--method", "diffusion", "--steps", "5"]
    found = from_arguments("fit", line).settings
    diffusion = config.FIT["diffusion"].training
    assert found.training == dataclasses.replace(diffusion, batch_size=3, steps=5)
    where = from_values("pretrain", {"data": "d", "out": "o", "objective": "coordinates"})
    assert where == dataclasses.replace(config.PRETRAIN["coordinates"], data="d", out="o")


def test_a_fit_without_a_method_says_which_one_it_is() -> None:
    assert from_values("fit", {"data": "d", "out": "o"}).method == "auto"
    assert from_values("fit", {"data": "d", "out": "o", "from": "r"}).method == "auto"
    line = ["d", "--out", "o", "--from", "r", "--method", "none"]
    assert from_arguments("fit", line).settings.method == "auto"


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (
            "fit",
            ["--method", "finetune", "--heads", "linear"],
            "--probe.heads: is for --method probe",
        ),
        (
            "fit",
            ["--method", "probe", "--diffusion.sampling.steps", "9"],
            "--diffusion.sampling.steps",
        ),
        ("fit", ["--method", "pixel", "--timestep", "9"], "--method finetune or --method scratch"),
        ("pretrain", ["--sigma", "0.3"], "--sigma: is for --objective ddep, not for ddpm"),
        (
            "pretrain",
            ["--contrast.voxels", "9"],
            "--contrast.voxels: is for --objective contrastive",
        ),
        ("pretrain", ["--objective", "ddep", "--regressor.crop", "0.5"], "--regressor.crop"),
        ("pretrain", ["--objective", "contrastive", "--coordinates", "r"], "--coordinates"),
        (
            "study",
            ["--finetune.probe.heads", "linear"],
            "--finetune.probe.heads: is for --method probe, not for finetune, scratch, dynunet, imagenet, dino, pixel",
        ),
        ("study", ["--probing.finetune.timestep", "9"], "--probing.finetune.timestep"),
        (
            "study",
            ["--methods", "guided", "--unlabelled", "x", "--regressor.sigma", "0.3"],
            "--regressor.sigma: is for --objective ddep",
        ),
        ("study", ["--pretrain.regressor.crop", "0.5"], "--pretrain.regressor.crop"),
    ],
)
def test_a_setting_of_another_method_is_refused(
    command: str, words: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        from_arguments(command, ["d", "--out", "o", *words])


def test_a_group_of_a_study_takes_what_its_methods_take() -> None:
    words = [
        "--pretrain.contrast.voxels",
        "9",
        "--probing.probe.width",
        "8",
        "--regressor.regressor.crop",
        "0.5",
        *("--methods", "guided,contrastive", "--transfer", "linear", "--unlabelled", "u"),
    ]
    found = from_arguments("study", ["d", "--out", "o", *words]).settings
    assert found.pretrain.contrast.voxels == 9
    assert found.probing.probe.width == 8
    assert found.regressor.regressor.crop == 0.5


def test_a_short_name_is_that_of_the_chosen_method() -> None:
    def fit(*words: str) -> config.Fit:
        settings: config.Fit = from_arguments("fit", ["d", "--out", "o", *words]).settings
        return settings

    assert fit("--method", "probe", "--width", "16").probe.width == 16
    assert fit("--width", "16").network.width == 16
    diffusion = fit("--method", "diffusion", "--strategy", "standard", "--steps", "9")
    assert (diffusion.diffusion.strategy, diffusion.training.steps) == ("standard", 9)
    assert fit("--method", "scratch", "--strategy", "ddp").machine.strategy == "ddp"


def test_the_help_shows_the_defaults_of_the_method() -> None:
    def default(words: list[str], name: str) -> str:
        found = re.search(rf"  --{name} .*?\[([^]]*)\]\n", help_of("fit", words), re.S)
        assert found
        return found[1]

    for method in ("probe", "diffusion", "finetune"):
        training = config.FIT[method].training
        words = ["--method", method, "--help", "all"]
        assert default(words, "learning-rate") == str(training.learning_rate)
        assert default(words, "method") == method


def test_the_help_shows_what_a_user_sets_and_on_demand_everything() -> None:
    def flags(*words: str) -> list[str]:
        return re.findall(r"^  (--[^ \n]+)", help_of("fit", words), re.M)

    usual, every = flags("--help"), flags("--help", "all")
    assert 12 <= len(usual) <= 22
    assert len(every) > 100
    assert {"--from", "--batch-size", "--size", "--hours", "--help"} <= set(usual)
    assert not [flag for flag in every if "_" in flag]
    assert "--probe.heads" not in usual
    assert "--heads" in flags("--method", "probe", "--help")
    for flag in set(every) - {"--config", "--dry-run", "--help"}:
        assert full_name("fit", flag[2:], "") in kinds("fit"), flag


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_the_help_is_understood_in_both_spellings(command: str) -> None:
    for chosen in COMMANDS[command].variants.defaults if COMMANDS[command].variants else ("",):  # type: ignore[union-attr]
        for name in kinds(command):
            if name not in positionals(command):
                flag = flag_of(command, name, chosen or "")
                for spelled in (flag, flag.replace("-", "_")):
                    assert full_name(command, spelled.lstrip("-_"), chosen or "") == name


def test_words_without_a_place_and_groups_without_settings_are_refused() -> None:
    with pytest.raises(InputError, match="b: is a word too many"):
        from_arguments("pretrain", ["a", "b", "--out", "o"])
    with pytest.raises(InputError, match="training is a group of settings"):
        from_arguments("pretrain", ["a", "--out", "o", "--training", "secret.yaml"])


def test_several_texts_may_look_like_numbers() -> None:
    words = ["d", "--out", "o", "--method", "probe", "--levels", "middle,0"]
    assert from_arguments("fit", words).settings.probe.levels == ("middle", "0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "view --no-browser",
            "--no-browser is not a setting of this command. Did you mean --browser false?",
        ),
        ("fit d --out o --no-skip-bad", "Did you mean --skip-bad false?"),
        ("fit d --out o --no-hour 2", "Did you mean --hours?"),
        ("predict runs/seg --out o", "predict: needs RUNS and DATA, but has only runs/seg."),
        ("evaluate masks --out o", "evaluate: needs MASKS and TRUTH, but has only masks."),
        ("predict --out o", "predict: RUNS is missing."),
        (
            "check d --labels masks",  # --label-values would not take it
            "--labels is not a setting of this command, but of fit, classify, study. "
            "To see the plan of fit with it: radiffuse fit DATA --labels VALUE --out RUN --dry-run.",
        ),
        ("check d --steps 3", "but of pretrain, fit, classify and 4 more."),
        ("check d --label-value 0,255", "Did you mean --label-values?"),
        ("fit d --out o --batch 2", "Did you mean --batch-size?"),  # augment has batch
    ],
)
def test_what_is_left_out_or_switched_off_in_vain_is_said(words: str, said: str) -> None:
    command, *rest = words.split()
    with pytest.raises(InputError, match=re.escape(said)):
        from_arguments(command, rest)


def test_the_help_tells_what_must_be_given_and_how_a_setting_is_switched_off() -> None:
    for command, usage in {
        "fit": "DATA --out OUT [--SETTING",
        "predict": "RUNS ... DATA --out OUT [--SETTING",
        "view": "[PATHS ...] [--SETTING",
        "generate": "RUN --out OUT [--SETTING",
        "judge": "REAL FAKE [--SETTING",
        "anatomy": "[KIND] --out OUT [--SETTING",
    }.items():
        assert help_of(command).startswith(f"usage: radiffuse {command} {usage}")
    assert help_of("generate").split("\n\n")[2].startswith("  RUN ")
    assert "  --browser true|false" in help_of("view")
    assert "  --plan  " in help_of("check")
