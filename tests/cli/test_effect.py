"""Every setting of every command is obeyed, or refused by name; what is recorded is what took effect."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from conftest import SIZE, TINY, pretrain_settings, synthesize_settings
from guided_names import to_guided_diffusion
from radiffuse import config
from radiffuse.cli.names import choices, is_tuple, kinds, members
from radiffuse.cli.settings import from_values
from radiffuse.commands import COMMANDS, load_act
from radiffuse.config.effect import effective, idle, never, refuse_idle
from radiffuse.config.given import flag
from radiffuse.config.studying import OWN_START, USED_BY
from radiffuse.config.values import is_group
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets.unet import UNet
from radiffuse.phantoms import write_dataset
from radiffuse.studies.methods import METHODS, STARTS, by_start
from radiffuse.train.run import flatten
from tiny_runs import finished_run, volumes_run

MUTED = (
    *("dataclasses", "copy", "pickle", "radiffuse.config.effect", "radiffuse.config.given"),
    *("radiffuse.config.values", "radiffuse.config.groups"),
)
"""Who copies, records or refuses settings: a setting that nobody else reads is not obeyed."""
MAKERS = (
    *("radiffuse.data.layouts", "radiffuse.data.dataset", "radiffuse.data.prepare"),
    *("radiffuse.data.provenance", "radiffuse.train.unchanged"),
)
"""Who makes, copies and identifies cases: what a case says is used where others read it."""
SAID = {
    "label_values": "Case.label_values",
    "label_threshold": "Case.label_threshold",
    "class_names": "Dataset.classes",
    "group": "Case.group",
    "sites": "Case.site",
    "finding": "Case.target",
}
"""Settings of the reader that every layout reads: they are obeyed where what they say of a data set is read."""
LEARNING = {
    "steps": 3,
    "batch_size": 2,
    "warmup_steps": 1,
    "decay": "cosine",
    "validate_every": 3,
    "checkpoint_every": 3,
    "log_every": 1,
}
CHANGES = {"noise": 0.1}
"""Of images: without any, no other setting of them is looked at."""
CLUSTER = "of several processes, or of a cluster"
UNREAD: Mapping[str, str] = {
    "machine.devices": CLUSTER,
    "machine.num_nodes": CLUSTER,
    "machine.strategy": CLUSTER,
    "plan.spacing": "of volumes",
    "plan.resize": "of films: read from the plan",
    "samples": "of runs that draw",
}
"""Settings that a tiny run on one process and films need not read."""


def other(kind: Any, value: Any) -> Any:
    """A value of a setting that is not the given one."""
    first = members(kind)[0]
    if is_tuple(kind):
        inner = typing.get_args(first)[0]
        inner = typing.get_args(inner)[0] if hasattr(inner, "__metadata__") else members(inner)[0]
        picked = choices(kind)
        new = (picked[-1],) if picked else {int: (9,), float: (0.3,), str: ("x",)}[inner]
        return new if new != value else (*new, *new)
    if picked := choices(kind):
        return next(choice for choice in picked if choice != value)
    if first is bool:
        return not value
    if first is str:
        return f"{value}x"
    return (value or 0) + 3 if first is int else (value or 0.0) + 0.125


def changed(settings: Any, name: str, value: Any) -> Any:
    first, _, rest = name.partition(".")
    inner = changed(getattr(settings, first), rest, value) if rest else value
    return dataclasses.replace(settings, **{first: inner})


def value_of(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def variants() -> Iterator[Any]:
    """The defaults of every command in every method, objective and strategy."""
    for name, command in COMMANDS.items():
        if command.variants is None:
            yield pytest.param(command.settings(), id=name)
            continue
        for chosen, defaults in command.variants.defaults.items():
            if chosen is not None:
                yield pytest.param(defaults, id=f"{name}-{chosen}")
    fit = config.FIT["diffusion"]
    for strategy in typing.get_args(config.Strategy):
        diffusion = dataclasses.replace(fit.diffusion, strategy=strategy)
        yield pytest.param(dataclasses.replace(fit, diffusion=diffusion), id=f"fit-{strategy}")
    synthesize = config.Synthesize(encoder="e", from_run="sd")
    yield pytest.param(synthesize, id="synthesize-given")
    known = {"unlabelled": "u", "transfer": ("linear",), "methods": tuple(METHODS)}
    study = config.Study(**known)  # type: ignore[arg-type]
    yield pytest.param(study, id="study-of-all")
    yield pytest.param(dataclasses.replace(study, from_run="r"), id="study-from")
    probed = config.Study(from_run="r", transfer=("linear",), methods=("diffusion",))
    yield pytest.param(probed, id="study-probed")


@pytest.mark.parametrize("defaults", [config.Generate(), config.ZeroShot(), config.Judge()])
def test_what_computes_in_32_bits_refuses_fewer_by_name(defaults: Any) -> None:
    refuse_idle(changed(defaults, "machine.precision", "32-true"), defaults)
    with pytest.raises(InputError, match=r"--machine\.precision.* 32 bits"):
        refuse_idle(changed(defaults, "machine.precision", "bf16-mixed"), defaults)


@pytest.mark.parametrize("defaults", list(variants()))
def test_a_setting_without_effect_is_refused_by_name_and_every_other_is_recorded(
    defaults: Any,
) -> None:
    command = next(name for name, c in COMMANDS.items() if c.settings is type(defaults))
    choosing = COMMANDS[command].variants.setting if COMMANDS[command].variants else ""
    refuse_idle(defaults, defaults)
    for name, kind in kinds(command).items():
        if name == choosing:
            continue
        settings = changed(defaults, name, other(kind, value_of(defaults, name)))
        ruled_out = {key for key in idle(settings) if f"{name}.".startswith(f"{key}.")}
        if ruled_out:
            with pytest.raises(InputError) as error:
                refuse_idle(settings, defaults)
            assert error.value.where in (f"--{flag(name)}", "--from", "--with"), error.value
        else:
            recorded = flatten(effective(settings))
            new = value_of(settings, name)
            assert recorded[name] == (list(new) if isinstance(new, tuple) else new)


def test_what_never_takes_effect_is_known_in_groups_as_well() -> None:
    for defaults in (parameter.values[0] for parameter in variants()):
        assert never(type(defaults)) <= idle(defaults).keys()
    unlabelled = {"augmentation.cutmix", "training.keep", "training.coarse"}
    for command, groups in (
        (config.Augment, ["classify"]),
        (config.Study, ["pretrain", "regressor"]),
        (config.Synthesize, ["dino", "vae"]),
    ):
        assert {f"{group}.{name}" for group in groups for name in unlabelled} <= never(command)
    assert "contrast.views.cutmix" in never(config.Pretrain)


def test_the_methods_of_a_study_need_what_is_not_refused() -> None:
    unused = "pretrain.contrast"
    assert unused in idle(config.Study(unlabelled="u"))
    assert unused not in idle(config.Study(unlabelled="u", methods=("contrastive",)))
    for name, row in METHODS.items():
        start = None if row.start in (None, "denoiser") else STARTS[row.start]
        assert (name in OWN_START) == (start is not None)
        assert (name in USED_BY["transfer"]) == row.pretraining
        joint = row.fit == "joint" or row.pool == "pairs"
        assert (name in USED_BY["diffusion"]) == (joint or row.strategy is not None)
        assert (name in USED_BY["samplers"]) == row.draws
        assert (name in USED_BY["pools"]) == (row.vary is by_start)
        assert (name in USED_BY["timesteps"]) == bool(row.vary is by_start or row.taught)
        assert (name in USED_BY["nnunet"]) == (row.segments == "nnunet")
        for given in (None, "r"):
            ruled_out = idle(config.Study(methods=(name,), unlabelled="u", from_run=given))
            for_pool = row.pool == "unlabelled" and row.start is None
            assert ("pretrain" in ruled_out) == ((given is not None and start is None) or for_pool)
            assert ("finetune.pool" in ruled_out) == (row.pool is None or joint)
            assert ("synthetic" in ruled_out) == (not row.synthetic)
            before = STARTS[start.from_run] if start and start.from_run else start
            assert ("regressor" in ruled_out) == (before is None or not before.coordinates)
    assert "pretrain" in idle(config.Study(methods=("scratch",)))
    both = config.Study(methods=("ensemble",), ensemble=("recycle", "ddep"), unlabelled="u")
    assert not {"pretrain", "ensemble", "diffusion", "samplers"} & idle(both).keys()


# ------------------------------------------------------------------------------------------------ who reads what


def groups_of(root: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    for name, kind in typing.get_type_hints(root).items():
        if is_group(kind):
            yield f"{prefix}{name}.", kind
            yield from groups_of(kind, f"{prefix}{name}.")


@contextmanager
def reading(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The full names of the settings of this type that are read meanwhile, by anybody but ``MUTED``."""
    root, ruled_out = type(settings), tuple(f"{name}." for name in idle(settings))
    seen: set[str] = set()
    paths: dict[int, str] = {}
    copied: dict[type, str | None] = {}  # where the last one of a type was that was copied
    alive: list[Any] = []
    live = [(name, kind) for name, kind in groups_of(root) if not name.startswith(ruled_out)]
    places = Counter(kind for _, kind in live)
    alone = {kind: name for name, kind in live if places[kind] == 1}  # for copies

    def spy(self: Any, name: str) -> Any:
        value = object.__getattribute__(self, name)
        caller = sys._getframe(1)
        quiet = caller.f_code.co_name in ("__eq__", "__hash__", "__repr__")
        module = str(caller.f_globals.get("__name__"))
        if (module, caller.f_code.co_name) == ("dataclasses", "replace"):
            copied[type(self)] = paths.get(id(self), copied.get(type(self)))
        case = type(self) in (Case, Dataset)
        muted = (*MUTED, *MAKERS) if case else MUTED
        if quiet or any(f"{module}.".startswith(f"{who}.") for who in muted):
            return value
        if case:
            seen.add(f"{type(self).__name__}.{name}")
            return value
        fields = object.__getattribute__(self, "__dataclass_fields__")
        path = "" if type(self) is root else paths.get(id(self), alone.get(type(self)))
        path = copied.get(type(self)) if path is None else path
        for field in fields if name == "__dict__" else {name} & fields.keys():
            if path is None:
                continue
            inner = object.__getattribute__(self, field)
            if dataclasses.is_dataclass(inner):
                paths[id(inner)] = f"{path}{field}."
                alive.append(inner)
            else:
                seen.add(f"{path}{field}")
        return value

    with monkeypatch.context() as patch:
        for kind in (Case, Dataset, *filter(dataclasses.is_dataclass, vars(config).values())):
            if isinstance(kind, type):
                patch.setattr(kind, "__getattribute__", spy, raising=False)
        yield seen
    for name, what in SAID.items():
        for group in (group for group, kind in groups_of(root) if kind is config.Data):
            (seen.add if what in seen else seen.discard)(f"{group}{name}")


def unread(command: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What a run neither reads nor would have refused."""
    settings = from_values(command, values)
    module = f"radiffuse.commands.{command}.leave_documents"
    monkeypatch.setattr(module, lambda folder: None, raising=False)
    with reading(settings, monkeypatch) as seen:
        load_act(command)(settings)
    ruled_out = tuple(f"{name}." for name in idle(settings))
    live = {name for name in kinds(command) if not f"{name}.".startswith(ruled_out)}
    return live - seen - {"method"}


PARTS = {"split": {"test": 0.4, "validation": 0.2}}


def fit_values(films: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return (
        {
            "data": films,
            "out": tmp_path / "run",
            "labels": 2,
            "training": LEARNING,
            "machine": {"accelerator": "cpu", "precision": "32-true"},
        }
        | PARTS
        | changes
    )


def small_dino(folder: Path) -> Path:
    """An encoder of one block, as transformers writes it."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=8
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


FITS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "auto": lambda pre: {
        "network": TINY,
        "plan": {"size": SIZE},
        "loss": {"focal": 0.5},
        "training": {k: v for k, v in LEARNING.items() if k != "validate_every"},
    },
    "scratch": lambda pre: {"network": TINY, "plan": {"size": SIZE}, "loss": {"focal": 0.5}},
    "dynunet": lambda pre: {"plan": {"size": SIZE}, "loss": {"focal": 0.5}},
    "dino": lambda pre: {
        "encoder": small_dino(pre.parent / "dino"),
        "plan": {"size": SIZE},
        "loss": {"focal": 0.5},
    },
    "finetune": lambda pre: {"from": pre, "loss": {"focal": 0.5}},
    "pixel": lambda pre: {"from": pre},
    "probe": lambda pre: {"from": pre, "loss": {"focal": 0.5}},
    "diffusion": lambda pre: {
        "network": TINY,
        "plan": {"size": SIZE},
        "diffusion": {"sampling": {"sampler": "ddim", "steps": 1}},
    },
    "joint": lambda pre: {
        "network": TINY,
        "plan": {"size": SIZE},
        "loss": {"focal": 0.5},
        "joint": {"sampling": {"sampler": "ddim", "steps": 1}},
    },
}


@pytest.mark.parametrize("method", FITS)
def test_fit_reads_every_setting_that_it_does_not_refuse(
    films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    values = fit_values(films, tmp_path, method=method, **FITS[method](pretrained))
    assert unread("fit", values, monkeypatch) <= UNREAD.keys()


@pytest.mark.parametrize("objective", config.PRETRAIN)
def test_pretrain_reads_every_setting_that_it_does_not_refuse(
    unlabelled: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
) -> None:
    values = pretrain_settings(
        unlabelled, tmp_path / "run", tmp_path / "cache", objective=objective, training=LEARNING
    )
    if objective == "clean-features":
        values["from_run"] = str(pretrained)
    if objective != "contrastive":
        values["augmentation"] = CHANGES
    if objective == "ddpm":
        values["diffusion"] = {"num_train_timesteps": 4}  # few steps to draw samples in
    left = unread("pretrain", values, monkeypatch)
    assert left <= UNREAD.keys() | {"from_run"}


def cpu(**values: Any) -> dict[str, Any]:
    return {"machine": {"accelerator": "cpu", "precision": "32-true"}} | values


def segmenter(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue("tmp_path") / "seg"
    return finished_run(folder, Plan(2, ("image",), ("background", "a", "b"), SIZE))


def abdomens(request: pytest.FixtureRequest, seed: int) -> Path:
    """Labelled volumes."""
    out: Path = request.getfixturevalue("tmp_path") / f"abdomens-{seed}"
    write_dataset("abdomen", out, count=2, labelled=True, seed=seed, size=(16, 16, 16))
    return out


def of_study(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a training in a study."""
    learning = {"training": {k: v for k, v in LEARNING.items() if k != "validate_every"}}
    return cpu() | learning | values


def guided(request: pytest.FixtureRequest) -> Path:
    """Weights in a file of guided-diffusion."""
    path: Path = request.getfixturevalue("tmp_path") / "weights.safetensors"
    unet = UNet(config.UNetConfig(width=32, attention_factors=(2,), scale_shift_norm=False))
    save_file(to_guided_diffusion(unet.state_dict(), unet.config), path)
    return path


def use_the_page(server: Any, sockets: list[Any]) -> None:
    """What a browser would ask of the server of ``view``: a mask of its first scan by its first run."""
    from fastapi.testclient import TestClient

    port = sockets[0].getsockname()[1]
    client = TestClient(server.config.app, base_url=f"http://127.0.0.1:{port}/t/")
    state = client.get("api/state").json()
    wanted = {"scan": state["scans"][0]["id"], "run": state["runs"][0]["id"]}
    job = client.post("api/segment", json=wanted).json()
    while job["state"] in ("waiting", "running"):
        job = client.get(f"api/jobs/{job['id']}").json()
    assert job["state"] == "done"
    scan = f"api/scans/{wanted['scan']}"
    for layer in client.get(scan).json()["layers"]:
        assert client.get(f"{scan}/layers/{layer['id']}/data").status_code == 200


ACTS: Mapping[str, Callable[[pytest.FixtureRequest], dict[str, Any]]] = {
    "check": lambda r: {"data": r.getfixturevalue("films")},
    "check --plan": lambda r: cpu(data=r.getfixturevalue("films"), plan=True, hours=1e-3),
    "anatomy": lambda r: {"count": 1, "size": SIZE},
    "classify": lambda r: cpu(
        data=r.getfixturevalue("classes"), plan={"size": SIZE}, training=LEARNING
    ),
    "predict": lambda r: cpu(runs=segmenter(r), data=r.getfixturevalue("films")),
    "evaluate": lambda r: {
        "masks": r.getfixturevalue("films") / "labels",
        "truth": r.getfixturevalue("films"),
    },
    "export": lambda r: {"run": segmenter(r)},
    "synthesize": lambda r: synthesize_settings(
        r.getfixturevalue("classes"), r.getfixturevalue("tmp_path"), r.getfixturevalue("tmp_path"),
        training=LEARNING,
    ) | {"vae": {"channels": (8, 16), "training": LEARNING, "augmentation": CHANGES}},
    "generate": lambda r: cpu(
        run=r.getfixturevalue("synthesizer"), references=r.getfixturevalue("classes"),
        strategy=("interpolate", "from-image", "manifold"), count=2, steps=2,
    ),
    "generate by a denoiser": lambda r: cpu(run=r.getfixturevalue("pretrained"), count=1, steps=2),
    "zeroshot": lambda r: cpu(run=r.getfixturevalue("synthesizer"), data=r.getfixturevalue("films")),
    "zeroshot of volumes": lambda r: cpu(
        run=volumes_run(r.getfixturevalue("tmp_path") / "guided"), clusters=3,
        data=abdomens(r, 1), names_from=abdomens(r, 2),
    ),
    "judge": lambda r: cpu(
        real=r.getfixturevalue("unlabelled"), fake=r.getfixturevalue("classes"), draws=2,
        encoder=r.getfixturevalue("pretrained"),
    ),
    "cache": lambda r: {},
    "doctor": lambda r: {},
    "study": lambda r: {
        "data": r.getfixturevalue("films"), "from": r.getfixturevalue("pretrained"),
        "labels": (1,), "draws": 1, "finetune": of_study(PARTS | FITS["scratch"](Path())),
    },
    "study of diffusion": lambda r: {
        "data": r.getfixturevalue("films"), "unlabelled": r.getfixturevalue("unlabelled"),
        "labels": (1,), "draws": 1, "methods": ("scratch", "none+pretrained", "recycle"),
        "finetune": of_study(PARTS | FITS["scratch"](Path())),
        "diffusion": of_study(FITS["diffusion"](Path())),
        "pretrain": of_study({"network": TINY, "plan": {"size": SIZE}, "augmentation": CHANGES}),
    },
    "augment": lambda r: {
        "data": r.getfixturevalue("classes"), "with": r.getfixturevalue("synthesizer"),
        "pools": (8,), "draws": 1, "ratios": (1.0,), "drawing": {"steps": 2},
        "classify": cpu(plan={"size": SIZE}, training=LEARNING),
    },
    "select": lambda r: cpu(
        data=r.getfixturevalue("unlabelled"), count=2, **{"from": r.getfixturevalue("pretrained")}
    ),
    "select of a segmenter": lambda r: cpu(
        data=r.getfixturevalue("unlabelled"), count=2, **{"from": segmenter(r)}
    ),
    "convert": lambda r: {"weights": guided(r), "heads": 2, "attention_order": "new", "plan": {"size": (32,)}},
    "view": lambda r: cpu(paths=(segmenter(r), r.getfixturevalue("films"))),
}  # fmt: skip
PROCESS = "num_train_timesteps schedule prediction_type zero_terminal_snr shift"
LEFT: Mapping[str, set[str]] = {
    # Processes of their own read label maps; the file of sites is only held against the cases; the warm-up of
    # DINO is longer than the run.
    "check": {"reader.label_values", "reader.label_threshold", "reader.sites"},
    "synthesize": {f"dino.training.{x}" for x in ("decay", "decay_steps", "final_learning_rate")},
    # Refused where the run is opened.
    "generate by a denoiser": {"reader.cache", "machine.workers", "machine.scheduler"},
    "select": {"machine.channels_last"},
    # Recorded for whoever starts from the run; the other is refused where the weights are read.
    "convert": {"plan.grid"} | {f"diffusion.{x}" for x in PROCESS.split()},
    # The first may join values of the truth; films refuse the others.
    "zeroshot": {"reader.class_names", "coordinates", "names_from"},
    "zeroshot of volumes": {"reader.class_names"},
    "view": {"browser", "reader.group"},  # no window is opened, no image drawn
    "doctor": {"completion"},  # what is described is the command line itself
}
"""What the tiny run of a command does not come to read."""


@pytest.mark.parametrize("act", ACTS)
def test_every_other_command_reads_every_setting_that_it_does_not_refuse(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    command, values = act.split()[0], ACTS[act](request)
    if "out" in kinds(command):
        values["out"] = tmp_path / ("out.csv" if command == "select" else "out")
    if command == "view":
        monkeypatch.setattr("uvicorn.Server.run", use_the_page)
        monkeypatch.setattr("radiffuse.viewer.serve.secrets.token_urlsafe", lambda _: "t")
    left = unread(command, values, monkeypatch)
    allowed = UNREAD.keys() | LEFT.get(act, set())
    assert sorted(n for n in left if n not in allowed and n.split(".", 1)[-1] not in UNREAD) == []
