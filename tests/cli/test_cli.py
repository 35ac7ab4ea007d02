"""What a person types: bad input ends in one clear line and exit code 2, and help answers without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radiffuse
from conftest import line_of
from radiffuse.cli import main
from radiffuse.cli.settings import from_arguments, from_values
from radiffuse.commands import COMMANDS
from radiffuse.config import Network, Pretrain, UNetConfig, resolve_network
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.registry import save_network
from radiffuse.nets.summary import NetworkSummary, summarize
from radiffuse.system.files import write_atomic
from radiffuse.train.start_run import start_run


def test_help_and_settings_are_light() -> None:
    code = (
        "import sys; from radiffuse.cli import main; main(['--help']); import radiffuse; radiffuse.study;"
        "heavy = {'torch', 'numpy', 'pandas', 'monai', 'jsonargparse'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--config" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ou": "x"}, "ou is not a setting of this command. Did you mean out?"),
        ({"out": "x", "steps": "many"}, "steps takes a whole number, not 'many'."),
        ({"out": ""}, "fit: out is missing. See help(radiffuse.fit)."),
        ({"data": "", "out": "x"}, "fit: data is missing. See help(radiffuse.fit)."),
        (
            {"out": "x", "draw": 1},
            "draw: takes no effect, since all labels are used: labels is not",
        ),
        ({"out": "x", "training": {"stepz": 2}}, 'training={"stepz": ...} is not a setting'),
    ],
)
def test_functions_say_what_is_wrong_in_the_words_of_python(
    given: dict[str, Any], said: str
) -> None:
    for function in (radiffuse.fit, radiffuse.fit_custom):
        with pytest.raises(InputError) as error:
            function(**{"data": "scans"} | given)
        assert said in str(error.value)
        assert "--" not in str(error.value)


def test_the_overview_groups_the_commands_and_fits_on_a_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    for purpose in ("look at data", "learn", "use", "measure", "synthesize", "show"):
        assert sum(line.startswith(purpose) for line in lines) == 1
    begin = next(i for i, line in enumerate(lines) if line.startswith("To begin"))
    for name in COMMANDS:
        assert sum(f" {name} " in line for line in lines[:begin]) == 1
    assert [line.split()[1] for line in lines[begin + 1 : begin + 3]] == ["check", "fit"]


def test_unknown_words_name_their_neighbors(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'pretrain'" in line_of(["pretran", "x"], capsys)
    wrong = line_of(["pretrain", "x", "--out", "y", "--stepz", "3"], capsys)
    assert wrong == "radiffuse: --stepz is not a setting of this command. Did you mean --steps?"
    inside = line_of(["study", "x", "--out", "y", "--split.test", ".5"], capsys)
    assert inside.endswith("Did you mean --finetune.split.test?")  # that of probing is never read
    short = line_of(["study", "x", "--out", "y", "--finetune.steps", "5"], capsys)
    assert short.endswith("Did you mean --finetune.training.steps?")
    assert "hello" in line_of(["pretrain", "x", "--out", "y", "--steps", "hello"], capsys)
    assert "--out is missing" in line_of(["pretrain", "x"], capsys)
    assert "films-64" in line_of(["pretrain", "x", "--out", "y", "--config", "nope"], capsys)


def test_missing_and_empty_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in line_of(
        ["pretrain", str(tmp_path / "nowhere"), "--out", str(tmp_path / "a")], capsys
    )
    (tmp_path / "empty").mkdir()
    assert "empty" in line_of(
        ["pretrain", str(tmp_path / "empty"), "--out", str(tmp_path / "a")], capsys
    )


def test_sizes_budgets_and_runs_that_do_not_fit(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = str(films), str(tmp_path / "run")
    assert "multiple of 8" in line_of(
        ["pretrain", data, "--out", out, "--size", "30", "--preset", "tiny"], capsys
    )
    assert "has 12 labelled" in line_of(["fit", data, "--out", out, "--labels", "900"], capsys)
    assert "neither a run" in line_of(["fit", data, "--out", out, "--from", "nope"], capsys)
    assert "--from" in line_of(["fit", data, "--out", out, "--method", "pixel"], capsys)
    assert "is not a run" in line_of(["predict", data, data, "--out", out], capsys)
    assert "no mask" in line_of(["evaluate", str(tmp_path), data, "--out", out], capsys)


def test_a_folder_of_something_else_is_left_alone(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert "not empty" in line_of(["pretrain", str(films), "--out", str(tmp_path)], capsys)
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["mine.txt"]


def test_a_run_of_another_version_is_refused(
    films: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = (pretrained / "config.yaml").read_text()
    (other / "config.yaml").write_text(re.sub(r"run_version: \d+", "run_version: 99", text))
    assert "version 99" in line_of(
        ["fit", str(films), "--out", str(tmp_path / "run"), "--from", str(other)], capsys
    )


def test_a_bad_film_is_named_or_left_out(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    data = tmp_path / "films"
    shutil.copytree(unlabelled, data)
    broken = sorted(data.rglob("*.png"))[3]
    broken.write_bytes(broken.read_bytes()[:80])
    arguments = [
        "pretrain",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--size",
        "32",
        "--steps",
        "1",
    ]
    arguments += [
        "--batch-size",
        "2",
        "--width",
        "8",
        "--multipliers",
        "1,2",
        "--attention-factors",
        "2",
    ]
    assert broken.name in line_of(arguments, capsys)
    assert main([*arguments, "--skip-bad"]) == 0
    assert broken.stem in (tmp_path / "run/data.json").read_text()
    assert broken.stem in (tmp_path / "run/report.html").read_text()


def test_flags_yaml_and_keywords_agree(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("training: {steps: 7, batch_size: 3}\nplan: {size: [64, 64]}\n")
    flags = from_arguments(
        "pretrain", ["d", "--out", "o", "--steps", "7", "--batch-size=3", "--size", "64,64"]
    ).settings
    assert (
        from_arguments("pretrain", ["d", "--out", "o", "--config", str(recipe)]).settings == flags
    )
    assert from_values("pretrain", {"data": "d", "out": "o", "config": recipe}) == flags
    assert (
        from_values(
            "pretrain", {"data": "d", "out": "o", "steps": 7, "batch_size": 3, "size": (64, 64)}
        )
        == flags
    )
    late = ["d", "--steps", "9", "--out", "o", "--config", str(recipe)]
    assert from_arguments("pretrain", late).settings.training.steps == 9


def test_dry_run_of_guided_pretraining(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three input channels more, with or without the run that gives the coordinates; its plan where it is there."""
    seen: list[UNetConfig] = []

    def recorded(config: UNetConfig, *rest: Any) -> NetworkSummary:
        seen.append(config)
        return summarize(config, *rest)

    monkeypatch.setattr("radiffuse.commands._dry_run.summarize", recorded)
    line = ["pretrain", "nowhere", "--out", "x", "--config", "guided-paper", "--dry-run"]
    assert main([*line, "--coordinates", "gone"]) == 0
    text = capsys.readouterr().out
    assert "plan: that of gone, when it is there" in text
    assert "network at 128 x 128 x 32" in text
    assert re.search(r"parameters +[0-9.]+ M", text)
    assert "GiB with bf16-mixed" in text

    network = resolve_network(
        Network(preset="tiny", width=8), spatial_dims=3, in_channels=1, out_channels=3
    )
    plan = Plan(3, ("CT",), (), (16, 16, 32), (2.0, 2.0, 3.0), crop="body")
    with start_run(tmp_path / "where", "pretrain", {}) as run:
        write_atomic(run.folder / "plan.json", plan.to_json())
        save_network(CoordinateRegressor(network, (1.0, 1.0, 1.0)), run.model)
    with_run = ["--coordinates", str(run.folder)]
    assert f"--size 128,128,32: {run.folder} was trained at 16 x 16 x 32 voxels" in line_of(
        [*line, *with_run], capsys
    )
    same = [
        "--size",
        "16,16,32",
        "--spacing",
        "2,2,3",
        "--window",
        "none",
        "--percentiles",
        "0.5,99.5",
    ]
    assert main([*line, "full", *with_run, *same]) == 0
    text = capsys.readouterr().out
    assert "network at 16 x 16 x 32" in text
    assert '"crop": "body"' in text
    assert main(line) == 0
    assert "frozen regressor" not in capsys.readouterr().out
    assert [config.in_channels for config in seen] == [4, 4, 1]


def test_hours_of_the_command_line_replace_the_steps_of_a_recipe_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    def both(*words: str) -> tuple[float | None, int | None]:
        parsed = from_arguments("pretrain", ["d", "--out", "o", *words]).settings
        return parsed.hours, parsed.training.steps

    recipe, later = tmp_path / "hours.yaml", tmp_path / "steps.yaml"
    recipe.write_text("hours: 3\n")
    later.write_text("training: {steps: 7}\n")
    assert both("--config", "films") == (None, 9000)
    assert both("--config", "films", "--hours", "2") == (2, None)
    assert both("--config", str(recipe), "--steps", "5") == (None, 5)
    assert both("--config", str(recipe), "--config", str(later)) == (None, 7)
    assert both("--config", str(later), "--config", str(recipe)) == (3, None)
    assert both("--hours", "2", "--steps", "5") == (2, 5)  # refused where they are planned


def test_the_recipe_of_guided_pretraining_is_the_papers() -> None:
    guided = from_values("pretrain", {"data": "d", "out": "o", "config": "guided-paper"})
    regressor = from_values(
        "pretrain", {"data": "d", "out": "o", "config": "guided-paper-coordinates"}
    )
    assert isinstance(guided, Pretrain)
    assert isinstance(regressor, Pretrain)
    assert regressor.objective == "coordinates"
    assert guided.plan == regressor.plan  # a guided run takes over the plan of its regressor
    assert (guided.plan.size, guided.plan.spacing) == ((128, 128, 32), (1.0, 1.0, 2.0))
    assert (guided.plan.window, guided.plan.crop) == ((-1350, 1000), "body")
    diffusion, training = guided.diffusion, guided.training
    assert (diffusion.schedule, diffusion.num_train_timesteps) == ("cosine", 300)
    assert (diffusion.prediction_type, diffusion.loss) == ("epsilon", "smooth-l1")
    assert (training.optimizer, training.learning_rate, training.decay) == ("adam", 1e-4, "step")
    assert (training.batch_size, training.average_decay) == (4, 0)
    assert guided.machine.precision == "bf16-mixed"


def test_dry_run_of_the_paper_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "nowhere", "--out", "x", "--config", "ptdr-paper", "--dry-run"]) == 0
    assert "138.3 M" in capsys.readouterr().out
    assert not Path("x").exists()


def test_python_gives_settings_as_numpy_has_them_and_runs_as_they_are() -> None:
    """A size computed from a shape, hours from a mean, and the run that a training returned."""
    run = radiffuse.Run("runs/pre")
    own = {"size": np.array([16, 24]), "steps": np.int64(3), "hours": np.float64(0.5)}
    values = {"data": Path("d"), "out": "o", "method": "finetune", "from_": run}
    settings = from_values("fit", values | own)
    assert (settings.from_run, settings.plan.size) == ("runs/pre", (16, 24))
    plain = [type(value) for value in (*settings.plan.size, settings.training.steps)]
    assert (plain, type(settings.hours)) == ([int] * 3, float)
    switch = from_values("predict", {"runs": run, "data": "d", "out": "o", "confidence": np.True_})
    assert (switch.runs, switch.confidence) == (("runs/pre",), True)
