"""Which settings take effect beside the others. One that does not is refused where it is given, and is not recorded.

What depends on the data or on another run is refused where that is read.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

from .classification import Augment, Classify
from .given import refuse_given
from .groups import ANYWHERE, MOVES
from .network import IMAGENET
from .pretraining import TIMELESS, Pretrain
from .rules import (
    ALONE,
    FLOAT32,
    NO_MASK,
    PASSES,
    TRAINING,
    UNKEPT,
    UNPLACED,
    UNPLANNED,
    UNSEGMENTED,
    UNTRAINED,
    Rule,
    always,
    unread,
)
from .segmenting import Evaluate, Fit, Predict
from .studying import OWN_START, UNCHOSEN, USED_BY, WITH_POOL, Study
from .synthesis import Generate, Judge, Synthesize, ZeroShot
from .tools import Check, Convert, Doctor, Export, Select, View
from .values import groups_in, hints_of, is_group, to_dict

NOISED = "level timestep noises"
NO_NOISE = "the objective knows no noising process"
IN_PARTS = "it is for networks that are trained as a whole to segment"
SET = "the study sets it"
SET_BY_STUDY = (
    "data out method from_run labels draw unlabelled training.seed training.validate_every"
)

CHOOSES = attrgetter("automatic")
"""The condition of what ``fit`` does not use where it chooses the method itself."""

COMMANDS: Mapping[type, tuple[Rule, ...]] = {
    Check: (
        (lambda s: not s.plan, "reader.cache", "nothing is kept"),
        (lambda s: not s.plan, "reader.skip_bad", "all that is wrong is listed"),
        (
            lambda s: not s.plan,
            "hours unlabelled from_run machine",
            "no plan is asked for: --plan is missing",
        ),
        (lambda s: s.plan, "header_only", "--plan reads images"),
        (lambda s: s.plan, "machine.scheduler", "nothing is prepared"),
        *unread("finding", when=lambda s: s.plan),
    ),
    Pretrain: (
        (
            lambda s: s.objective in ("restorative", "contrastive", "masked", "coordinates"),
            "diffusion",
            NO_NOISE,
        ),
        (lambda s: s.objective == "clean-features", "diffusion", "--from has its noising process"),
        (
            lambda s: s.network.preset == IMAGENET and s.objective not in TIMELESS,
            "network.preset",
            f"is for {', '.join(TIMELESS)}: the network {IMAGENET} knows no timesteps",
        ),
        (lambda s: s.network.preset == IMAGENET, "diffusion", "the network knows no timesteps"),
        (
            lambda s: s.network.preset == IMAGENET,
            "machine.checkpoint_activations",
            "its activations are kept",
        ),
        (
            lambda s: s.objective == "ddep",
            "diffusion",
            "ddep predicts the noise of a single level",
        ),
        (lambda s: s.objective == "contrastive", "augmentation", "--contrast.views changes crops"),
        (
            lambda s: s.objective == "coordinates",
            " ".join(f"augmentation.{name}" for name in MOVES.split()),
            "the places of voxels are learned",
        ),
        (lambda s: s.objective == "coordinates", "from_run", "a regressor starts anew"),
        *unread("masks", when=lambda s: not s.for_run and not s.regressor.landmarks),
        *unread("sites", "finding"),
    ),
    Fit: (
        (
            lambda s: s.from_run,
            "diffusion.image_share",
            "the run to start from gives the first layer",
        ),
        (
            lambda s: s.method in ("dynunet", "imagenet", "dino"),
            "network",
            "the method has its own",
        ),
        (
            lambda s: s.network.preset == IMAGENET and not s.from_run,
            "network.preset",
            f"is for pretrain: here it is --method {IMAGENET}",
        ),
        (lambda s: s.method == "pixel", "loss", "pixel classifiers have cross-entropy"),
        (
            lambda s: s.method == "joint",
            "augmentation.cutmix",
            "the method draws images as well, and they would have boxes pasted in",
        ),
        (
            lambda s: s.method in ("dynunet", "imagenet", "dino", "pixel", "probe"),
            "machine.checkpoint_activations",
            "no U-Net is trained",
        ),
        (CHOOSES, "training.validate_every training.keep", "the folds judge the last weights"),
        (
            lambda s: s.method in ("dino", "pixel", "probe", "diffusion", "joint"),
            "training.coarse",
            IN_PARTS,
        ),
        (
            lambda s: s.pool.teacher or s.pool.corrector,
            "training.coarse",
            "those who label the pool label images at full resolution",
        ),
        (CHOOSES, "machine.devices machine.num_nodes machine.strategy", "auto uses one device"),
        (CHOOSES, "pool.teacher pool.corrector", "they may know what a fold leaves out"),
        (lambda s: not s.from_run, "weights", "there is no run to start from"),
        (lambda s: not s.unlabelled, "pool", "there is no pool: --unlabelled is not given"),
        (lambda s: s.labels is None, "draw", "all labels are used: --labels is not given"),
        *unread("finding"),
    ),
    Classify: (
        (always, "machine.memory machine.rate plan.ceiling", UNPLANNED),
        (lambda s: not s.ratio, "with_run judge", "no synthetic film is used: --ratio is 0"),
        (lambda s: s.ratio and not s.judge, "likely", "--judge names no classifier"),
        (lambda s: not s.ratio, "likely", "no synthetic film is used: --ratio is 0"),
        (always, "training.seed", "--draw is the seed"),
        (always, "plan.postprocess", NO_MASK),
        (always, "machine.checkpoint_activations", "no U-Net is trained"),
        *unread("masks"),
    ),
    Predict: (
        (always, f"{TRAINING} machine.workers", UNTRAINED),
        UNKEPT,
        *unread("masks", "sites", "finding"),
    ),
    Evaluate: (UNKEPT, *unread("sites", "finding")),
    Synthesize: (
        (always, "machine.memory machine.rate plan.ceiling", UNPLANNED),
        (always, "training.keep training.coarse", UNSEGMENTED),
        (
            always,
            "dino.training.keep_state vae.training.keep_state",
            "--training.keep-state is that of all stages",
        ),
        (lambda s: s.encoder, "dino", "--encoder is given"),
        (lambda s: s.autoencoder or s.from_run, "vae", "an autoencoder is given"),
        (lambda s: s.from_run, "denoiser", "--from gives the denoiser"),
        (always, "plan.postprocess", NO_MASK),
        *unread("masks", "sites"),
    ),
    Generate: (
        (
            lambda s: not {"perturb", "from-image"} & set(s.strategy),
            "strength",
            "the strategy has no strength",
        ),
        (
            lambda s: set(s.strategy) == {"reconstruction"},
            "guidance sampler steps",
            "a reconstruction is not sampled",
        ),
        (
            lambda s: s.references is None,
            "reader.layout reader.group reader.only reader.views reader.finding reader.skip_bad",
            "no references are given",
        ),
        *unread("masks", "sites"),
        FLOAT32,
        (always, PASSES, UNTRAINED),
    ),
    ZeroShot: (
        (lambda s: s.method == "diffseg", f"features clusters {NOISED}", "diffseg does not use it"),
        (lambda s: s.features == "encoder", NOISED, "the encoder sees clean films"),
        FLOAT32,
        (always, f"{PASSES} machine.workers machine.scheduler", UNTRAINED),
        UNKEPT,
        *unread("sites", "finding"),
    ),
    Judge: (
        (lambda s: "fidelity" not in s.only, "draws seed", "fidelity is not measured"),
        (
            lambda s: "memorization" not in s.only,
            "trained held_out percentile pairs",
            "copies are not looked for",
        ),
        FLOAT32,
        (always, PASSES, UNTRAINED),
        *unread("masks", "sites", "finding"),
    ),
    Convert: (
        (
            always,
            "diffusion.loss diffusion.min_snr_gamma diffusion.timestep_sampling",
            UNTRAINED,
        ),
        (always, "plan.ceiling", UNPLANNED),
    ),
    Export: (
        (lambda s: s.format in ("pretrained", "nnunet-encoder"), "head", "all heads are written"),
        (lambda s: s.format != "pretrained", "push", "only the format pretrained is uploaded"),
    ),
    Select: (ALONE, UNKEPT, *unread("masks", "sites", "finding")),
    View: (
        ALONE,
        UNKEPT,
        (lambda s: not s.paths, "reader", "no path is given"),
        *unread("sites", "finding"),
    ),
    Doctor: ((lambda s: s.completion, "json cache", "a script for completion is printed"),),
    Study: (
        (
            lambda s: s.from_run or not s.unlabelled,
            "pools",
            "the network is not pre-trained here",
        ),
        (
            lambda s: not s.unlabelled or (s.from_run and not s.trained & OWN_START) or s.unstarted,
            "pretrain",
            "nothing is pre-trained here",
        ),
        (
            lambda s: s.from_run and not s.trained & (OWN_START | WITH_POOL),
            "unlabelled",
            "--from is given, and no method pre-trains another network or learns from a pool",
        ),
        (always, "finetune.pool.teacher finetune.pool.corrector", SET),
        *(
            (lambda s, used=used: not s.trained & used, name, "no method uses it")
            for name, used in USED_BY.items()
        ),
        (lambda s: not set(s.methods) - UNCHOSEN, "choices", "no method uses it"),
        (lambda s: s.pretrain.coordinates, "regressor", "--pretrain.coordinates gives one"),
        (lambda s: set(s.transfer) <= {"finetune"}, "probing", "--transfer names no head"),
        (always, "pretrain.data pretrain.out regressor.data regressor.out", SET),
        (always, "regressor.plan regressor.reader regressor.machine", "--pretrain has it"),
        *unread("finding", group="finetune.reader"),
        *unread("finding", group="diffusion.reader"),
        *unread("sites", "finding", group="pretrain.reader"),
        *unread(
            "masks",
            group="pretrain.reader",
            when=lambda s: not s.pretrain.for_run and not s.regressor.regressor.landmarks,
        ),
        *(
            (
                always,
                " ".join(f"{group}.{name}" for name in SET_BY_STUDY.split()),
                SET,
            )
            for group in ("finetune", "probing", "diffusion")
        ),
        (always, "probing.training.coarse diffusion.training.coarse", IN_PARTS),
        (always, "probing.probe.heads", "--transfer names the heads"),
        (lambda s: s.guides, "probing.probe.regressor", "heads see the coordinates that guide"),
        (lambda s: not s.places_heads, "probing.probe.sweep_coordinates", UNPLACED),
        (always, "diffusion.diffusion.strategy", "--methods names the strategies"),
        (
            always,
            "probing.split probing.reader probing.machine diffusion.split",
            "--finetune has it",
        ),
    ),
    Augment: (
        (
            always,
            "classify.data classify.out classify.labels classify.draw classify.with_run "
            "classify.ratio classify.real classify.judge classify.likely classify.training.seed",
            SET,
        ),
        (always, "classify.plan.postprocess", NO_MASK),
        (always, "classify.machine.checkpoint_activations", "no U-Net is trained"),
        *unread("masks", group="classify.reader"),
        (
            always,
            "classify.machine.memory classify.machine.rate classify.plan.ceiling",
            UNPLANNED,
        ),
    ),
}
"""Rules of a command."""


def idle(settings: Any) -> dict[str, str]:
    """The settings and groups of a command, by full name, that take no effect beside the others, and why."""
    found = dict(_of_others(settings, _chosen(settings)))
    for when, names, why in COMMANDS.get(type(settings), ()):
        if when(settings):
            found |= dict.fromkeys(names.split(), why)
    return found | {name: why for name, why in _of_groups(settings) if name not in found}


@functools.cache
def never(settings_type: type) -> frozenset[str]:
    """The settings of a command, by full name, that never take effect; help and completion leave them out."""
    rules = COMMANDS.get(settings_type, ())
    own = (name for when, names, _ in rules if when is always for name in names.split())
    return frozenset(own) | frozenset(_never_in_groups(settings_type))


def effective(settings: Any) -> dict[str, Any]:
    """The settings of a command that take effect, as plain values."""
    values = to_dict(settings)
    for name in idle(settings):
        *groups, last = name.split(".")
        inside: Any = values
        for group in groups:
            inside = inside.get(group, {})
        inside.pop(last, None)
    return values


def refuse_idle(settings: Any, defaults: Any) -> None:
    """Refuse a setting that differs from its default and takes no effect; tell one that a file gives.

    Raises:
        InputError: Names it, and why it takes none.
    """
    found = idle(settings)
    for name, why in found.items():
        if not any(name.startswith(f"{group}.") for group in found):
            refuse_given(settings, defaults, name, why)


# ------------------------------------------------------------------------------------------------ internal


def _chosen(settings: Any) -> tuple[str, ...]:
    """The method or objective that was chosen."""
    if isinstance(settings, Fit):
        return (settings.method or "auto",)
    return (settings.objective,) if isinstance(settings, Pretrain) else ()


def _of_others(
    settings: Any, chosen: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """What is for another method or objective than those chosen, in groups of a study as well."""
    for field in dataclasses.fields(settings):
        if used_for := field.metadata.get("used_for"):
            if isinstance(settings, Study):
                used_for = {"pretrain": settings.objectives, "diffusion": settings.drawing}.get(
                    field.name, used_for
                )
            yield from _of_others(getattr(settings, field.name), used_for, f"{field.name}.")
        only = field.metadata.get("only_for", chosen)
        if not set(only) & set(chosen) and chosen:
            kind = "method" if isinstance(settings, Fit) else "objective"
            wanted = " or ".join(f"--{kind} {value}" for value in only)
            yield f"{prefix}{field.name}", f"is for {wanted}, not for {', '.join(chosen)}"


def _of_groups(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for when, names, why in ANYWHERE.get(type(settings), ()):
        if when(settings):
            yield from ((f"{prefix}{name}", why) for name in names.split())
    kind: type = type(settings)
    for field in groups_in(kind):
        value = getattr(settings, field)
        if dataclasses.is_dataclass(value):
            yield from _of_groups(value, f"{prefix}{field}.")


def _never_in_groups(kind: type, prefix: str = "") -> Iterator[str]:
    for when, names, _ in ANYWHERE.get(kind, ()):
        if when is always:
            yield from (f"{prefix}{name}" for name in names.split())
    for field, inner in hints_of(kind).items():
        if is_group(inner):
            yield from _never_in_groups(inner, f"{prefix}{field}.")
