"""What a run would refuse, its dry run refuses in the same words; nothing of a refused run is left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

import radiffuse
from conftest import TINY, line_of, pretrain_settings
from radiffuse.cli import main, recipes
from radiffuse.cli.settings import from_values
from radiffuse.data.plan import Plan, read_plan
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet
from radiffuse.phantoms import write_dataset
from radiffuse.train.planning import plan_training
from radiffuse.train.run import Run
from tiny_runs import finished_run

CPU = ["--accelerator", "cpu"]
FROM = "fit FILMS --from PRE"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("volumes")
    write_dataset("abdomen", out, count=4, labelled=True, seed=1, size=(16, 16, 16))
    return out


@pytest.fixture(scope="module")
def segmenting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A segmentation run of films, and one whose training did not end."""
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    runs = [finished_run(tmp_path_factory.mktemp("seg") / name, plan) for name in ("a", "b")]
    (runs[1] / "model" / "config.json").unlink()
    return runs[0], runs[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{FROM} --method probe --size 64", "--size 64: PRE was trained at 32 x 32 pixels"),
        (f"{FROM} --method probe --size 32,64", "--size 32,64: PRE was trained at 32 x 32 pixels"),
        (f"{FROM} --method probe --grid 64", "--grid 64: PRE was trained "),
        (f"{FROM} --window 0,255", "--window 0,255: PRE was trained with percentiles 0.5 to 99.5"),
        (f"{FROM} --percentiles 1,99", "--percentiles 1,99: PRE was trained with percentiles 0.5"),
        (f"{FROM} --crop nonzero", "--crop nonzero: PRE was trained with the crop none"),
        (f"{FROM} --resize stretch", "--resize stretch: PRE was trained with the resize fit"),
        (f"{FROM} --spacing 1,1,1", "--plan.spacing: takes no effect, since these are films"),
        (f"{FROM} --preset small", "--preset small: PRE was trained with the network"),
        (f"{FROM} --preset tiny", "--preset tiny: PRE was trained with the network"),
        (f"{FROM} --width 16", "--width 16: PRE was trained with the width 8"),
        (f"{FROM} --dropout 0.5", "--dropout 0.5: PRE was trained with the dropout 0"),
        (
            f"{FROM} --method finetune --timestep 1000",
            "--timestep 1000: the pre-trained network knows",
        ),
        (f"{FROM} --method probe --timesteps 5000", "5000"),
        (f"{FROM} --method probe --levels 7", "level.7"),
        (f"{FROM} --method scratch", "--method scratch: cannot start from"),
        (f"{FROM} --labels 900", "labelled cases. Choose fewer, or leave --labels out to use all"),
        ("fit VOLUMES --from PRE", "VOLUMES: holds volumes, PRE was trained on films"),
        ("fit VOLUMES --resize fit", "--plan.resize: takes no effect, since these are volumes"),
        ("fit FILMS --spacing 1,1,1", "--plan.spacing: takes no effect, since these are films"),
        ("fit FILMS --loss.cross-entropy 0 --loss.dice 0", "--loss: has no term"),
        ("fit FILMS --method scratch --loss.cross-entropy 0 --loss.dice 0", "--loss: has no term"),
        ("fit FILMS --method diffusion --loss.dice 0 --loss.focal 0", "--loss: has no term"),
        ("fit FILMS --size 30 --preset tiny", "size 30x30: the network needs a multiple of 8"),
        ("fit FILMS --views pa", "--reader.views pa: is for the public chest sets"),
        ("fit FILMS --finding effusion", "--reader.finding: takes no effect, since no film is"),
        ("fit FILMS --with FILMS", "FILMS"),
        ("fit UNLABELLED", "holds no labelled image"),
        ("pretrain FILMS --size 30 --preset tiny", "size 30x30: the network needs a multiple of 8"),
        (
            "pretrain FILMS --from PRE --preset tiny",
            "PRE: holds another network than the settings ask for",
        ),
        (
            "pretrain FILMS --zoom 2 --size 32 --preset tiny --steps 2 --batch-size 2",
            "--zoom 2: takes no effect, since the network sees films whole",
        ),
        (
            "pretrain VOLUMES --objective contrastive --contrast.crop 0.5 --size 16 --preset tiny "
            "--steps 2 --batch-size 2",
            "--contrast.crop",
        ),
        ("pretrain FILMS --zero-terminal-snr", "zero_terminal_snr"),
        ("synthesize VOLUMES", "holds volumes"),
    ],
)
def test_a_dry_run_refuses_what_the_run_refuses_and_neither_leaves_a_folder(
    films: Path,
    unlabelled: Path,
    volumes: Path,
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    places = {"UNLABELLED": unlabelled, "FILMS": films, "VOLUMES": volumes, "PRE": pretrained}
    for word, path in places.items():
        line, message = line.replace(word, str(path)), message.replace(word, str(path))
    out = tmp_path / "run"
    words = [*line.split(), "--out", str(out)]
    refused = line_of([*words, "--dry-run"], capsys)
    assert message in refused
    assert line_of(words, capsys) == refused
    assert not out.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pretrain FILMS --zoom 2 --hours 1", "--zoom 2: takes no effect, since the network sees"),
        (
            "pretrain FILMS --zoom 2 --hours 1 --size 32 --grid 32",
            "--zoom 2: takes no effect, since the network sees",
        ),
        (
            "pretrain VOLUMES --objective contrastive --contrast.crop 0.5 --hours 1",
            "--contrast.crop: is for films; a crop of a volume is the plan's patch",
        ),
        (
            "pretrain FILMS --objective masked --hours 1 --size 8 --preset tiny",
            "size 8x8: is one block of the coarsest level",
        ),
    ],
)
def test_what_takes_no_effect_is_refused_before_steps_are_timed(
    films: Path,
    volumes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    monkeypatch.setattr(plan_training, "measure_steps", lambda *_: pytest.fail("timed"))
    words = line.replace("FILMS", str(films)).replace("VOLUMES", str(volumes)).split()
    assert message in line_of([*words, "--out", str(tmp_path / "run")], capsys)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict SEG NOWHERE", "NOWHERE"),
        ("predict SEG VOLUMES", "has 3 spatial axes, the run has 2"),
        ("predict UNFINISHED FILMS", "UNFINISHED: has not finished training"),
        ("predict PRE FILMS", "PRE: is no segmentation run"),
        ("predict FILMS FILMS", "FILMS: is not a run"),
        ("predict SEG FILMS --cases test", "holds none of the run's test cases"),
        ("predict SEG FILMS --head linear", "--head: takes no effect, since no run has"),
        ("generate NOWHERE", "NOWHERE: is neither a run nor shipped weights"),
        ("generate UNFINISHED", "UNFINISHED: has not finished training"),
        ("generate SEG", "SEG: is not a pre-trained denoiser"),
        ("generate PRE --steps 5000", "--steps 5000: are more than the "),
        ("generate PRE --workers 2", "--machine.workers: takes no effect, since a denoiser has"),
        ("generate PRE --strategy perturb", "--strategy: is for a synthesizer, and PRE is a "),
        ("judge FILMS NOWHERE", "NOWHERE"),
        ("judge FILMS VOLUMES --only memorization", "VOLUMES: holds volumes"),
        ("judge FILMS FILMS --encoder UNFINISHED", "UNFINISHED: has not finished training"),
        ("judge FILMS FILMS --encoder SEG", "SEG: is no denoiser of films"),
        ("judge VOLUMES FILMS", "VOLUMES: holds 4 usable images"),
        ("classify NOWHERE", "NOWHERE"),
        ("classify FILMS", "FILMS: tells the class of no film"),
        ("classify CLASSES --labels 900", "--labels 900: there are"),
        ("classify CLASSES --ratio 1", "--with"),
        ("classify CLASSES --real false", "--real false: leaves no film to train on"),
        ("classify CLASSES --with NOWHERE --ratio 1", "NOWHERE"),
        ("classify CLASSES --with CLASSES --ratio 1 --judge NOWHERE", "NOWHERE"),
        ("classify CLASSES --split.validation-kept 1", "--split.validation-kept: takes no effect"),
        ("zeroshot NOWHERE FILMS", "NOWHERE: is neither a run nor shipped weights"),
        ("zeroshot PRE FILMS --method diffseg", "PRE"),
        ("zeroshot SYNTH NOWHERE", "NOWHERE: does not exist"),
        ("zeroshot SYNTH VOLUMES", "is a volume"),
        ("evaluate NOWHERE FILMS", "NOWHERE: does not exist"),
        ("evaluate FILMS NOWHERE", "NOWHERE: does not exist"),
        (
            "evaluate FILMS UNLABELLED",
            "UNLABELLED: holds no scan with a label map",
        ),
        (
            "evaluate LABELS FILMS --prediction-classes btcv --truth-classes flare22 --out FILMS",
            "FILMS",
        ),
        ("evaluate LABELS FILMS --prediction-classes NOWHERE", "NOWHERE"),
        ("export NOWHERE", "NOWHERE"),
        ("export UNFINISHED", "UNFINISHED: has not finished training"),
        ("export PRE --format torch-export", "PRE: is no segmentation run"),
        ("export PRE --format monai-bundle", "PRE"),
        ("export SEG --push a/b", "a/b: would publish weights without a licence"),
        ("export SEG --out FILMS", "FILMS: is not empty"),
        ("convert NOWHERE", "NOWHERE: does not exist"),
        ("convert FILMS", "FILMS"),
        ("augment CLASSES --pools 8 --with NOWHERE", "NOWHERE: does not exist"),
        ("augment CLASSES --with PRE", "--with PRE: is neither one run of synthesize nor folders"),
        ("augment CLASSES --with FILMS --pools 900", "--pools 900: there are"),
        ("augment FILMS --with FILMS", "FILMS: tells the class of no film"),
        ("study FILMS --methods scratch --labels 900", "--labels 900: there are"),
        ("study UNLABELLED --methods scratch --labels 1", "UNLABELLED: holds no labelled image"),
        ("fit FILMS --out FILMS", "FILMS: is not empty, and nothing in it is of this command"),
        ("pretrain FILMS --out FILMS", "FILMS: is not empty, and nothing in it is of this command"),
        ("predict SEG FILMS CUDA", "--machine.accelerator cuda"),
        ("generate PRE CUDA", "--machine.accelerator cuda"),
        ("judge FILMS FILMS CUDA", "--machine.accelerator cuda"),
        ("classify CLASSES CUDA", "--machine.accelerator cuda"),
    ],
)
def test_a_dry_run_opens_what_the_run_opens(
    request: pytest.FixtureRequest,
    films: Path,
    volumes: Path,
    unlabelled: Path,
    classes: Path,
    pretrained: Path,
    segmenting: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    if line.endswith("CUDA") and torch.cuda.is_available():
        pytest.skip("the machine has CUDA")
    places = dict(zip(("SEG", "UNFINISHED"), segmenting, strict=True))
    places |= {"UNLABELLED": unlabelled, "LABELS": films / "labels"}
    places |= {"FILMS": films, "VOLUMES": volumes, "CLASSES": classes, "PRE": pretrained}
    if "SYNTH" in line:
        places["SYNTH"] = request.getfixturevalue("synthesizer")
        capsys.readouterr()
    for word, path in (places | {"NOWHERE": tmp_path / "nowhere"}).items():
        line, message = line.replace(word, str(path)), message.replace(word, str(path))
    out = tmp_path / "out"
    words = line.replace("CUDA", "--accelerator cuda").split()
    words += [] if "--out" in words else ["--out", str(out)]
    refused = line_of([*words, "--dry-run"], capsys)
    assert message in refused
    assert line_of(words, capsys) == refused
    assert not out.exists() or "spatial axes" in message  # a scan is read when its mask is made


def test_dry_runs_of_what_would_run_pass_and_write_nothing(
    films: Path,
    classes: Path,
    pretrained: Path,
    segmenting: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    for line in (
        f"predict {segmenting[0]} {films} --skip-bad",
        f"predict {segmenting[0]} {films}",
        f"generate {pretrained} --steps 2",
        f"judge {films} {films} --only memorization --encoder {pretrained}",
        f"classify {classes} --labels 8",
        f"evaluate {films / 'labels'} {films}",
        f"export {segmenting[0]} --format torch-export",
        f"augment {classes} --with {classes} --pools 8 --ratios 1",
        f"study {films} --methods scratch --labels 1",
    ):
        device = [] if line.split()[0] in ("evaluate", "export", "augment", "study") else CPU
        assert main([*line.split(), "--out", str(out), *device, "--dry-run"]) == 0
        assert capsys.readouterr().out.startswith(f"radiffuse {line.split()[0]}\n")
        assert not out.exists()


def test_a_folder_that_was_there_stays(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with pytest.raises(InputError, match="labels=900"):
        radiffuse.fit(data=films, out=out, labels=900)
    assert list(out.iterdir()) == []


def test_a_setting_that_agrees_with_the_start_is_obeyed_and_recorded(
    films: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["--size", "32", "--percentiles", "0.5,99.5", "--resize", "fit", "--width", "8"]
    start = ["--method", "finetune", "--from", str(pretrained)]
    words = ["fit", str(films), *start, "--out", str(tmp_path / "run"), *same]
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.index("32 x 32 px") < text.index("settings that differ from the defaults")
    differing = yaml.safe_load(text.split("\n\n")[-1].partition("\n")[2])
    assert differing["plan.size"] == [32, 32]
    assert differing["method"] == "finetune"
    assert "training.optimizer" not in differing
    assert main([*words, "--dry-run", "full"]) == 0
    plan, *_, settings = capsys.readouterr().out.split("\n\n")[1:]
    recorded = yaml.safe_load(settings.partition("\n")[2])
    assert recorded["training"]["optimizer"] == "adamw"
    assert {"probe", "diffusion"} & recorded.keys() == set()
    assert recorded["plan"]["size"] == [32, 32]
    assert '"size": [\n    32,\n    32\n  ]' in plan
    network = load_network(pretrained / "model")
    assert isinstance(network, UNet)
    for name in TINY.keys() - {"preset"}:
        found = recorded["network"][name]
        assert (tuple(found) if isinstance(found, list) else found) == getattr(network.config, name)


def test_the_dry_run_counts_the_network_of_the_start(
    films: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--method", "finetune", "--from", str(pretrained)]
    words = ["fit", str(films), *start, "--out", str(tmp_path / "run")]
    assert main([*words, "--dry-run"]) == 0
    classes = len(read_plan(pretrained / "plan.json").with_classes(range(3)).classes)  # type: ignore[arg-type]
    network = load_network(pretrained / "model")
    assert isinstance(network, UNet)
    tuned = SegmentingUNet.from_denoiser(
        network, classes=classes, generator=torch.Generator().manual_seed(0)
    )
    count = sum(p.numel() for p in tuned.parameters())
    text = capsys.readouterr().out
    shown = next(line for line in text.splitlines() if line.startswith("parameters"))
    assert f"{count / 1e6:.1f} M" in shown
    assert "warm-up" not in text
    assert main([*words, "--steps", "9", "--dry-run"]) == 0
    said = "--training.steps 9 is no more than --training.warmup-steps 25"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("decay", ["cosine", "step"])
def test_a_learning_rate_does_not_end_before_it_has_risen(tmp_path: Path, decay: str) -> None:
    """It would be at its peak for a single step."""
    data = {"data": str(tmp_path), "out": str(tmp_path / "out")}
    training = {"decay": decay, "warmup_steps": 9, "decay_steps": 9}
    with pytest.raises(InputError, match=r"--training\.decay-steps 9.*warm-up ends, 9"):
        from_values("fit", {**data, "method": "scratch", "training": training})
    with pytest.raises(InputError, match=r"--dino\.training\.decay-steps 9"):
        from_values("synthesize", {**data, "dino": {"training": training}})
    later = {**training, "decay_steps": 10}
    assert from_values("fit", {**data, "method": "scratch", "training": later})


def test_a_run_says_what_ran(unlabelled: Path, tmp_path: Path) -> None:
    """No group of another objective, and no preset but the one that was built."""
    values = pretrain_settings(
        unlabelled,
        tmp_path / "run",
        tmp_path / "cache",
        objective="restorative",
        training={"steps": 1},
    )
    run: Run = radiffuse.pretrain(**values)
    recorded = run.config["settings"]
    gone = {"diffusion", "sigma", "contrast", "regressor", "coordinates"}
    assert gone & recorded.keys() == set()
    assert {"final_learning_rate", "decay_steps"} & recorded["training"].keys() == set()
    assert recorded["network"]["preset"] == "tiny"
    radiffuse.pretrain(**values)  # what is recorded is what the same command resumes


def test_a_file_of_settings_gives_way_to_a_declared_split_and_a_flag_does_not(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(path.name for path in (films / "images").iterdir())
    parts = ["train"] * 8 + ["test"] * 4
    data = tmp_path / "data"
    shutil.copytree(films, data)
    rows = [f"images/{n},labels/{n},{p}" for n, p in zip(names, parts, strict=True)]
    (data / "list.csv").write_text("\n".join(["image,label,split", *rows]))
    (tmp_path / "ours.yaml").write_text("split: {test: 0.25, validation: 0.25}\nsteps: 1\n")
    line = [
        "fit",
        str(data / "list.csv"),
        "--method",
        "scratch",
        "--size",
        "32",
        "--out",
        str(tmp_path / "o"),
        "--dry-run",
    ]
    refused = "declares its split"
    assert refused in line_of([*line, "--split.test", "0.25"], capsys)
    monkeypatch.setattr(recipes, "RECIPES", tmp_path)
    for ours in ("ours", str(tmp_path / "ours.yaml")):
        assert main([*line, "--config", ours]) == 0
        told = f"{ours}: split.test takes no effect, since {data / 'list.csv'} {refused}"
        assert told in capsys.readouterr().err
        typed = line_of([*line, "--config", ours, "--split.test", "0.75"], capsys)
        assert typed.startswith("radiffuse: --split.test")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fit VOLUMES --method imagenet", "--method imagenet: is for films, and these are volumes"),
        ("fit VOLUMES --method dino --encoder WHOLE", "--method dino: is for films"),
        ("fit FILMS --method dino --encoder EMPTY", "model.safetensors: is missing"),
        ("synthesize FILMS --encoder EMPTY", "model.safetensors: is missing"),
        (
            "fit FILMS --method scratch --labels 99",
            "12 labelled cases. Choose fewer, or leave --labels out",
        ),
    ],
)
def test_it_is_refused_before_anything_is_prepared(
    command: str,
    words: str,
    films: Path,
    volumes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each is known without a pixel."""
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "EMPTY" / "config.json").write_text("{}")
    shutil.copytree(tmp_path / "EMPTY", tmp_path / "WHOLE")
    (tmp_path / "WHOLE" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    places = {"FILMS": str(films), "VOLUMES": str(volumes)}
    given = [places.get(word, word) for word in command.split()]
    assert words in line_of([*given, "--out", "run", "--cache", "cache", *CPU], capsys)
    assert not Path("cache", "prepared").exists()
