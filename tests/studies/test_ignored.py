"""A given setting that some methods of a study do not use is said by name; one that none uses is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from radiffuse.commands._dry_run import VERIFY
from radiffuse.config import Study
from radiffuse.errors import InputError
from radiffuse.studies import ignored
from radiffuse.studies.ignored import unused
from radiffuse.studies.methods import trainings
from radiffuse.train.run import Run

SHARE = {"diffusion.diffusion.image_share": 0.3}
SCHEDULE = {"pretrain.diffusion.schedule": "linear"}


def changed(settings: Any, name: str, value: Any) -> Any:
    first, _, rest = name.partition(".")
    inner = changed(getattr(settings, first), rest, value) if rest else value
    return replace(settings, **{first: inner})


def study(methods: str, given: dict[str, Any], **more: Any) -> Study:
    names = tuple(methods.split())
    settings = Study(data="d", out="o", methods=names, reference=names[0], **more)
    for name, value in given.items():
        settings = changed(settings, name, value)
    return settings


@pytest.mark.parametrize(
    ("methods", "given", "names"),
    [
        ("recycle recycle+pretrained", SHARE, ["recycle+pretrained"]),
        ("scratch recycle none none+pretrained", SHARE, ["none", "none+pretrained"]),
        ("recycle joint", SHARE, []),
        ("recycle", SHARE, []),
        ("recycle standard", {"diffusion.diffusion.feed_back": "classes"}, ["standard"]),
        ("recycle recycle-next", {"diffusion.diffusion.first_pass": "true-mask"}, ["recycle-next"]),
        ("joint", {"diffusion.joint.given_image": 0.3}, []),
        ("drawn-pairs", {"diffusion.joint.given_image": 0.3}, []),
        ("finetune pixel", {"finetune.loss.focal": 1.0}, ["pixel"]),
        ("finetune pixel", {"finetune.weights": "raw"}, ["finetune"]),
        ("diffusion contrastive", SCHEDULE, ["contrastive"]),
        ("diffusion masked", {"probing.probe.timesteps": (3,)}, ["masked"]),
        ("scratch finetune", {"finetune.plan.postprocess": ("largest",)}, []),
        ("finetune finetune+pool", {"finetune.finetune.timestep": 5}, ["finetune"]),
        ("diffusion ddep masked", {"finetune.finetune.timestep": 5}, ["ddep, masked"]),
    ],
)
def test_methods_that_do_not_use_a_setting_are_named(
    methods: str, given: dict[str, Any], names: list[str]
) -> None:
    transfer = ("linear",) if "diffusion.schedule" in str(given) or "probing" in str(given) else ()
    found = unused(study(methods, given, unlabelled="u", transfer=transfer))
    heads = [sentence.split(", since ")[0] for sentence in found]
    said = ", ".join(head.split(" takes no effect on ")[1] for head in heads)
    assert said == ", ".join(names)
    (name,) = given
    assert all(head.startswith(f"--{name.replace('_', '-')} ") for head in heads)


@pytest.mark.parametrize(
    ("methods", "given", "words"),
    [
        ("recycle+pretrained", SHARE, "image-share.*the run to start from gives the first layer"),
        ("joint", SHARE, "image-share: is for --method diffusion, not for joint"),
        ("standard none", {"diffusion.diffusion.feed_back": "classes"}, "feed-back.*one pass"),
        ("scratch finetune", {"finetune.network.width": 24}, "network.width.*pre-trained run"),
        ("finetune", {"finetune.plan.size": (24,)}, "plan.size.*pre-trained run"),
        ("finetune", {"finetune.weights": "raw"}, "weights.*--weights says which"),
        ("contrastive", SCHEDULE, "schedule.*no noising process"),
        ("pixel", {"finetune.loss.focal": 1.0}, "focal.*cross-entropy"),
    ],
)
def test_what_no_method_uses_is_refused(methods: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        VERIFY[Study](study(methods, given, unlabelled="u"))


def test_settings_that_the_same_methods_do_not_use_for_the_same_reason_share_a_sentence() -> None:
    given = {"finetune.loss.focal": 1.0, "finetune.loss.cross_entropy": 0.5}
    (said,) = unused(study("finetune pixel", given, unlabelled="u"))
    flags, _, rest = said.partition(" take no effect on pixel, since ")
    assert sorted(flags.split(", ")) == ["--finetune.loss.cross-entropy", "--finetune.loss.focal"]
    assert rest


def test_what_agrees_with_the_pretrained_run_is_fine(pretrained: Path) -> None:
    agreed = {"finetune.plan.size": (32,), "finetune.network.width": 8}
    from_run = study("scratch finetune", agreed, from_run=str(pretrained))
    assert unused(from_run) == []
    here = agreed | {"pretrain.plan.size": (32, 32), "pretrain.network.width": 8}
    assert unused(study("scratch finetune", here, unlabelled="u")) == []
    with pytest.raises(InputError, match="finetune.plan.size"):
        unused(changed(from_run, "finetune.plan.size", (48,)))


def test_the_pretrained_run_is_read_once(pretrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(
        ignored, "find_pretrained", lambda name: read.append(name) or Run(Path(name))
    )
    given = {"finetune.plan.size": (24,), "finetune.loss.focal": 1.0}
    chosen = study("finetune pixel scratch dynunet nnunet", given, from_run=str(pretrained))
    with pytest.raises(InputError, match=r"plan\.size.*pre-trained run"):
        ignored.unused(chosen)
    assert read == [str(pretrained)]


def test_the_trainings_of_a_study_are_those_of_its_rows_and_of_what_makes_them() -> None:
    def names(*methods: str, **more: Any) -> set[str]:
        return {*trainings(Study(methods=methods, labels=(3,), draws=1, **more))}

    assert trainings(Study(methods=("scratch",), labels=(1, 5), draws=2)) == [
        "scratch-1-0", "scratch-1-1", "scratch-5-0", "scratch-5-1",
    ]  # fmt: skip
    assert names("pseudo-labels") == {"pseudo-labels-3-0", "finetune-3-0"}
    assert names("drawn-pairs") == {"drawn-pairs-3-0", "joint+pool-3-0"}
    members = names("ensemble", ensemble=("none", "recycle"))
    assert members == {"none-3-0", "recycle-3-0"}
    chosen = names("finetune", choices=("uncertain",))
    assert chosen == {"finetune-3-0", "finetune-uncertain-3-0", "finetune-typical-2-0"}
    heads = names("contrastive", transfer=("finetune", "linear", "nonlinear"))
    assert heads == {"contrastive@finetune-3-0", "contrastive-probe-3-0"}
