"""What a study cannot change once it has begun: finished parts would be told as made by the new settings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from radiffuse.cli.settings import from_values
from radiffuse.config import Classify, Fit, Generate
from radiffuse.data.dataset import Dataset
from radiffuse.errors import InputError
from radiffuse.studies import runs
from radiffuse.studies.augment import run_augment
from radiffuse.studies.study import run_study
from radiffuse.system.files import read_json, write_json
from radiffuse.train.run import RUN_VERSION, Run
from radiffuse.train.start_run import start_run


class Begun(Exception):
    """A part was reached."""


def part(*_: Any) -> Any:
    raise Begun


def test_the_share_of_likely_films(classes: Path, tmp_path: Path) -> None:
    given = {"data": classes, "out": tmp_path / "out", "with_run": (str(classes),), "pools": (4,)}
    given |= {"classify": {"reader": {"cache": str(tmp_path / "cache")}}}
    for likely, ended in ((0.5, Begun), (0.5, Begun), (0.6, InputError)):
        with pytest.raises(ended, match="settings of likely" if ended is InputError else None):
            run_augment(from_values("augment", given | {"likely": likely}), part, part)


def test_pools_without_a_class_are_refused_before_any_is_trained_on(
    classes: Path, tmp_path: Path
) -> None:
    given = {"data": classes, "out": tmp_path / "out", "with_run": (str(classes),)}
    given |= {"classify": {"reader": {"cache": str(tmp_path / "cache")}}, "pools": (8, 1)}
    with pytest.raises(InputError, match="--pools 1: has no film of the class .* in draw 0"):
        run_augment(from_values("augment", given), part, part)


def test_more_labels_than_there_are(films: Path, classes: Path, tmp_path: Path) -> None:
    """Without ``--labels`` or ``--pools`` a study takes its usual budgets, not all labels."""
    cache = {"reader": {"cache": str(tmp_path / "cache")}}
    given = {"data": films, "out": tmp_path / "out", "methods": ("scratch",), "labels": (1, 99)}
    settings = from_values("study", given | {"finetune": cache | {"split": {"test": 0.4}}})
    message = r"{0} 99: there are \d+ labelled cases to learn from.* Name numbers from 1 to \d+ with {0}\.$"
    with pytest.raises(InputError, match=message.format("--labels")):
        run_study(settings, part, part, part)
    given = {"data": classes, "out": tmp_path / "more", "with_run": (str(classes),)}
    given |= {"classify": cache, "pools": (4, 99)}
    with pytest.raises(InputError, match=message.format("--pools")):
        run_augment(from_values("augment", given), part, part)


def test_the_number_of_pseudo_labels(films: Path, unlabelled: Path, tmp_path: Path) -> None:
    reader = {"reader": {"cache": str(tmp_path / "cache")}}
    given = {"data": films, "out": tmp_path / "out", "unlabelled": str(unlabelled), "labels": (2,)}
    given |= {"methods": ("scratch", "pseudo-labels"), "reference": "scratch"}
    given |= {"pretrain": reader, "finetune": reader | {"split": {"test": 0.4}}}
    for number, ended in ((20, Begun), (20, Begun), (30, InputError)):
        with pytest.raises(
            ended, match="settings of pseudo_labels" if ended is InputError else None
        ):
            run_study(from_values("study", given | {"pseudo_labels": number}), part, part, part)


def test_higher_ratios_may_be_added(classes: Path, tmp_path: Path) -> None:
    """Their films are drawn into a folder of their own, and a classifier that began with others goes on with these."""
    with start_run(tmp_path / "synth", "synthesize", {}):
        pass
    out, asked = tmp_path / "out", dict[str, str]()

    def generate(settings: Generate) -> Path:
        folder = Path(settings.out)
        drawn = read_json(file) if (file := folder / "generation.json").is_file() else {}
        assert drawn.get("count", settings.count) == settings.count
        write_json(folder / "generation.json", {"count": settings.count})
        return folder

    def classify(settings: Classify) -> Run:
        run = Run(Path(settings.out))
        asked[run.folder.name] = ",".join(Path(folder).name for folder in settings.with_run)
        write_json(run.model / "config.json", {})
        (run.folder / "report.html").touch()
        tested = read_json(out / "splits.json")["test"]
        rows = [f"{name},{name},{name.split('__')[0]},0.5,0.5" for name in tested]
        (run.folder / "test.csv").write_text("\n".join(["case,group,class,even,odd", *rows]))
        return run

    def study(*ratios: float) -> dict[str, str]:
        asked.clear()
        given = {"data": classes, "out": out, "with_run": (str(tmp_path / "synth"),)}
        given |= {"pools": (6,), "draws": 1, "ratios": ratios}
        given |= {"classify": {"reader": {"cache": str(tmp_path / "cache")}}}
        run_augment(from_values("augment", given), classify, generate)
        return dict(asked)

    assert study(1.0) == {"6-real-0": "", "6-real+1-0": "6-0", "6-synthetic-1-0": "6-0"}
    assert study(1.0, 2.0) == {"6-real+2-0": "6-0-12", "6-synthetic-2-0": "6-0-12"}
    begun = out / "runs" / "6-real+1-0"
    (begun / "report.html").unlink()
    files = {"with_run": [str(out / "drawn" / "6-0")], "ratio": 1.0}
    config = {"run_version": RUN_VERSION, "command": "classify", "settings": files}
    write_json(begun / "config.yaml", config)
    assert study(1.0, 2.0) == {"6-real+1-0": "6-0"}


def test_test_cases_have_no_part_in_the_plan(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a study without pre-training, whose grid was left open: they are for the last score alone."""
    seen: list[set[str]] = []

    def plan_of(dataset: Dataset, *_: Any, **__: Any) -> Any:
        seen.append({case.name for case in dataset})
        raise Begun

    monkeypatch.setattr(runs, "make_plan", plan_of)
    given = {"data": films, "out": tmp_path / "out", "methods": ("scratch",), "labels": (2,)}
    given |= {"finetune": {"reader": {"cache": str(tmp_path / "cache")}, "split": {"test": 0.4}}}
    with pytest.raises(Begun):
        run_study(from_values("study", given), part, part, part)
    parts = read_json(tmp_path / "out" / "splits.json")
    assert seen == [{*parts["train"], *parts["validation"]}]
    assert parts["test"]


@pytest.mark.parametrize("method", ["none", "joint"])
def test_every_method_reads_the_same_cases(films: Path, tmp_path: Path, method: str) -> None:
    """Else one that saw cases which the others leave out would be split otherwise, and learn from test patients."""
    only, cache = "-00000[0-7]", str(tmp_path / "cache")
    read: list[Fit] = []

    def fit(settings: Fit) -> Run:
        read.append(settings)
        raise Begun

    given = {"data": films, "out": tmp_path / "out", "methods": (method,), "labels": (2,)}
    finetune = {"reader": {"only": only, "cache": cache}, "split": {"test": 0.25}}
    with pytest.raises(Begun):
        run_study(from_values("study", given | {"finetune": finetune}), part, fit, part)
    assert [one.reader.only for one in read] == [only]
    other = {"finetune": finetune, "diffusion": {"reader": {"only": "-00000"}}}
    with pytest.raises(InputError, match="--diffusion.reader.only: differs from --finetune.reader"):
        run_study(from_values("study", given | other), part, part, part)


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (("finetune",), {"timesteps": (5, 0)}, "--timesteps 0, which .* for those by 5. Give 0 as"),
        (("ensemble",), {"weights": ("raw",)}, "--weights average, which .* by raw"),
        (("recycle",), {"samplers": ("ddim",)}, "--samplers ddpm, which .* by ddim"),
        (("masked",), {"transfer": ("linear",)}, "--transfer finetune, and this is linear"),
        (("masked",), {"transfer": ("finetune",)}, ""),
        (("finetune",), {"timesteps": (0, 5), "weights": ("average", "raw")}, ""),
        (("scratch",), {"methods": ("scratch", "finetune"), "timesteps": (5,)}, ""),
        (("scratch", "scratch+pool"), {"methods": ("scratch", "finetune")}, "a plan of their own"),
        (("scratch+pool", "finetune"), {"methods": ("scratch+pool",)}, "of a pre-trained network"),
    ],
)
def test_rows_keep_what_they_were_made_by(
    films: Path,
    unlabelled: Path,
    tmp_path: Path,
    first: tuple[str, ...],
    then: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scores are found by the name of a row: those of timestep 0 were told as those of timestep 5."""
    monkeypatch.setenv("RADIFFUSE_CACHE", str(tmp_path / "cache"))
    given = {"data": films, "out": tmp_path / "out", "unlabelled": str(unlabelled), "labels": (2,)}
    given |= {"methods": first, "draws": 1, "finetune": {"split": {"test": 0.4}}}
    if first == ("ensemble",):
        given |= {"ensemble": ("finetune", "pixel")}
    for changes, ended in (({}, Begun), (then, InputError if message else Begun)):
        with pytest.raises(ended, match=message if ended is InputError else None):
            run_study(from_values("study", given | changes), part, part, part)


@pytest.mark.parametrize(
    ("row", "changes", "words"),
    [
        ("none", {"diffusion": {"training": {"steps": 7}}}, "has scores/none-2-0, made with other settings of diff"),
        ("finetune", {"timesteps": (5,)}, "has rows by --timesteps 0, which would be taken for those by 5"),
    ],
)  # fmt: skip
def test_parts_stand_under_the_settings_that_they_were_made_by(
    films: Path,
    unlabelled: Path,
    tmp_path: Path,
    row: str,
    changes: dict[str, Any],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also after a call that did not use what changes, as long as the part is there."""
    monkeypatch.setenv("RADIFFUSE_CACHE", str(tmp_path / "cache"))
    given = {"data": films, "out": tmp_path / "out", "unlabelled": str(unlabelled), "labels": (2,)}
    given |= {"draws": 1, "finetune": {"split": {"test": 0.4}}}

    def study(*methods: str, **changes: Any) -> None:
        with pytest.raises(Begun):
            run_study(
                from_values("study", given | {"methods": methods} | changes), part, part, part
            )

    study("scratch", row)
    scores = tmp_path / "out" / "scores" / f"{row}-2-0"
    scores.mkdir(parents=True)
    (scores / "cases.csv").touch()
    study("scratch")
    with pytest.raises(InputError, match=f"parts.json: {words}"):
        study("scratch", row, **changes)
    study("scratch", row)
    study("scratch")
    shutil.rmtree(scores)
    study("scratch", row, **changes)


@pytest.mark.parametrize(("one", "other"), [(("masked",), "guided"), (("masked", "guided"), "")])
def test_heads_keep_what_they_see(
    films: Path,
    unlabelled: Path,
    tmp_path: Path,
    one: tuple[str, ...],
    other: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a guided method the heads of all methods see coordinates: those that were scored before saw none."""
    monkeypatch.setenv("RADIFFUSE_CACHE", str(tmp_path / "cache"))
    given = {"data": films, "out": tmp_path / "out", "unlabelled": str(unlabelled), "labels": (2,)}
    given |= {"transfer": ("linear",), "draws": 1, "finetune": {"split": {"test": 0.4}}}
    with pytest.raises(Begun):
        run_study(from_values("study", given | {"methods": one}), part, part, part)
    further = ("masked", other) if other else ("masked",)
    with pytest.raises(InputError, match="has heads that see (no )?coordinates; with"):
        run_study(from_values("study", given | {"methods": further}), part, part, part)
