"""Settings of the study of label efficiency."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeVar, get_args

from .pretraining import PRETRAIN, Pretrain
from .segmenting import FIT, Fit
from .types import (
    POSITIONAL,
    Hours,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Strategy,
    Within,
    used_for,
)

Trained = TypeVar("Trained", Pretrain, Fit)


def _fixed(settings: Trained, steps: int, batch: int) -> Trained:
    """Settings with the same budget on every machine, which a comparison needs [ours]."""
    training = replace(settings.training, steps=steps, batch_size=batch)
    return replace(settings, training=training)


SelectionRule = Literal["typical", "uncertain"]
"""Ways of choosing the cases to label, see ``select``."""
DIFFUSING = {f"{name}{start}" for name in get_args(Strategy) for start in ("", "+pretrained")}
"""Methods of a study that are mask diffusion."""
PRETRAINING = {
    *("diffusion", "guided", "restorative", "contrastive", "masked"),
    *("clean-features", "guided-clean-features"),
}
"""Those that compare ways of pre-training."""
OWN_START = PRETRAINING - {"diffusion"} | {"ddep", "synthetic-unlabelled"}
"""Those that pre-train a network of their own, whatever ``--from`` gives."""
STARTLESS = {
    "scratch",
    "dynunet",
    "imagenet",
    "dino",
    "nnunet",
    "scratch+pool",
    "dynunet+pool",
    "imagenet+pool",
    "dino+pool",
}
"""Those that start from no network of ours."""
JOINT = {"joint", "joint+pretrained", "joint+pool"}
"""Those that learn image and mask together."""
CONSISTENT = {"finetune+pool", "scratch+pool", "dynunet+pool", "imagenet+pool", "dino+pool"}
WITH_POOL = CONSISTENT | {"joint+pool", "drawn-pairs"}
"""Those that learn from ``--unlabelled`` beside the labels; the first of them by consistency."""
TUNED = {"finetune", "pseudo-labels", "synthetic-labelled"}
UNCHOSEN = {"pseudo-labels", "synthetic-labelled", "drawn-pairs", "ensemble", "nnunet"}
"""Those whose labelled cases are always random: they learn from masks of others, or train no run of their own."""
USED_BY = {
    "synthetic": {"synthetic-unlabelled", "synthetic-labelled"},
    "regressor": {"guided", "guided-clean-features"},
    "transfer": PRETRAINING,
    "probing": PRETRAINING,
    "timesteps": TUNED,
    "weights": TUNED,
    "pools": {"finetune"},
    "sizes": {"imagenet", "dino"},
    "samplers": DIFFUSING - {"none", "none+pretrained"} | JOINT,
    "diffusion": DIFFUSING | JOINT | {"drawn-pairs"},
    "ensemble": {"ensemble"},
    "pseudo_labels": {"pseudo-labels", "drawn-pairs"},
    "finetune.pool": CONSISTENT | {"pseudo-labels", "synthetic-labelled"},
    "finetune.encoder": {"dino"},
    "finetune.dino": {"dino"},
    "nnunet": {"nnunet"},
}
"""Settings of a study that some methods alone use, and these methods."""


@dataclass(frozen=True, kw_only=True)
class NNUNet:
    """nnU-Net 2 as an external program."""

    python: str | None = None
    """Python interpreter of an environment with nnunetv2, such as NN/bin/python; needed by the method nnunet."""
    trainer: str = "nnUNetTrainer"
    """Trainer; the default runs 1000 epochs of 250 steps, nnUNetTrainer_5epochs gives a quick look. With ``hours`` its
    number of epochs does not count."""
    hours: Hours | None = None
    """Train for so long, with preparation, whatever the trainer's number of epochs: from a measured iteration. None:
    ``finetune.hours``; without that, as the trainer says."""
    pretrained_weights: str | None = None
    """Checkpoint (``.pth``) of others to start from, as nnU-Net and nnssl write it. Its encoder must be that of the
    network that nnU-Net plans for these images; of its decoder what fits is taken."""
    configuration: Literal["auto", "2d", "3d_fullres"] = "auto"
    """Configuration; auto: 2d for films, 3d_fullres for volumes."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare methods at several label budgets, with the same splits, network and number of training steps."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Study folder. Repeat the command to continue an interrupted study."""
    unlabelled: str | None = None
    """Images to pre-train on; not needed with ``--from``."""
    synthetic: tuple[str, ...] = ()
    """Folders of synthetic images, for the methods synthetic-unlabelled and synthetic-labelled."""
    from_run: str | None = None
    """``--from``: a pre-trained run, or the name of included weights, to use instead of pre-training."""
    methods: tuple[str, ...] = ("scratch", "finetune")
    """Any of: scratch; finetune; pixel; ddep; dynunet (MONAI's); imagenet (a U-Net on an encoder trained on ImageNet,
    for films); dino (a light decoder on the frozen ``--finetune.encoder``, for films); nnunet (nnU-Net 2 with its own
    choices); scratch+pool, finetune+pool, dynunet+pool, imagenet+pool, dino+pool (the same with ``--unlabelled`` as a
    pool beside the labels); pseudo-labels (with a pool that the denoiser draws and the fine-tuned network of the same
    draw labels); synthetic-unlabelled (pre-trained on ``--synthetic`` as well); synthetic-labelled (with
    ``--synthetic`` as a pool that the fine-tuned network of the same draw labels); joint (image and mask together, with
    the settings of ``--diffusion``), from scratch, joint+pretrained and joint+pool, which also learns from
    ``--unlabelled``; drawn-pairs (fine-tuned on the labels and on pairs that joint+pool of the same draw draws); the
    ways of pre-training diffusion, guided, restorative, contrastive, masked, clean-features (after diffusion, in as
    many steps again) and guided-clean-features (after guided), used as ``transfer`` says; the strategies of mask
    diffusion, from scratch or, as in recycle+pretrained, from the pre-trained run; ensemble."""
    transfer: tuple[Literal["linear", "nonlinear", "finetune"], ...] = ()
    """How the ways of pre-training are used: linear or nonlinear (probing), or finetune (the default). With several,
    methods get names such as guided@linear."""
    labels: tuple[PositiveInt, ...] = (1, 2, 5, 10)
    """Label budgets."""
    draws: PositiveInt = 3
    """Random draws of labelled cases per budget; the number of the draw is also the seed of the training."""
    reference: str | None = None
    """The method that all others are compared with, any row of the results, such as finetune@t=100. None: scratch if it
    is among the methods, else the first of them."""
    timesteps: tuple[NonNegativeInt, ...] = (0,)
    """Fixed timesteps to try with finetune; each one after the first adds a method such as finetune@t=100."""
    weights: tuple[Literal["average", "raw"], ...] = ("average",)
    """Pre-trained weights to try: average, raw, or both."""
    pools: tuple[PositiveInt, ...] = ()
    """Smaller numbers of unlabelled images to pre-train on as well; each adds a method such as finetune@n=500."""
    sizes: tuple[Annotated[int, Within(8)], ...] = ()
    """Other sizes, in pixels of a side, at which imagenet and dino see films; each adds methods such as imagenet@128px.
    The masks are scored at the films' own size, whatever the network sees."""
    choices: tuple[SelectionRule, ...] = ()
    """Ways of choosing the labelled cases, besides at random; each adds a method such as finetune@typical. typical: as
    ``select`` without a model; uncertain: one half so, the other by the network that was trained on the first."""
    samplers: tuple[Literal["ddpm", "ddim"], ...] = ("ddpm",)
    """Reverse processes to try with mask diffusion; each one after the first adds methods such as recycle@ddim."""
    ensemble: tuple[str, ...] = ("none", "recycle")
    """Methods whose probabilities are averaged by the method ``ensemble``."""
    pseudo_labels: PositiveInt = 200
    """Images that are drawn for the method pseudo-labels, and pairs for drawn-pairs, per draw; in 32 bits, as by
    generate."""
    pretrain: Pretrain = field(
        default=_fixed(Pretrain(), 10_000, 16),
        metadata=used_for("ddpm", "ddep", "restorative", "contrastive", "masked", "clean-features"),
    )
    """Settings of pre-training; the study sets data and out."""
    regressor: Pretrain = field(
        default=_fixed(PRETRAIN["coordinates"], 2000, 8), metadata=used_for("coordinates")
    )
    """Settings of the regressor for guidance; the study sets data, out and plan."""
    finetune: Fit = field(
        default=_fixed(FIT[None], 300, 8),
        metadata=used_for("finetune", "scratch", "dynunet", "imagenet", "dino", "pixel"),
    )
    """Settings of fine-tuning; the study sets data, out, method, from_run, labels and draw. With ``hours`` every method
    trains for as long, in as many steps as fit, unless steps are given."""
    probing: Fit = field(default=_fixed(FIT["probe"], 500, 8), metadata=used_for("probe"))
    """Settings of probing; its ``probe.sweep`` adds methods such as guided@t=30, ``probe.sweep_coordinates`` such as
    guided@no-coordinates. With a guided method, heads of all methods see the coordinates that guide it."""
    diffusion: Fit = field(
        default=_fixed(FIT["diffusion"], 700, 16), metadata=used_for("diffusion")
    )
    """Settings of mask diffusion, and of image and mask together; the study sets data, out, method, from_run, labels,
    draw, strategy and split, and reads the data by ``finetune.reader``."""
    nnunet: NNUNet = NNUNet()
    """Settings of the method nnunet."""
    tolerance: PositiveFloat = 2.0
    """Tolerance of the surface Dice, in mm (in pixels where the spacing is unknown)."""
    parts: tuple[Literal["test", "validation"], ...] = ("test",)
    """Cases to score: test, or validation while tuning."""

    @property
    def guides(self) -> bool:
        """Whether a method needs the regressor, whose coordinates the heads of all methods then see."""
        return bool(self.trained & USED_BY["regressor"])

    @property
    def places_heads(self) -> bool:
        """Whether heads see coordinates."""
        probe = self.probing.probe
        return probe.coordinates and (self.guides or probe.regressor is not None)

    @property
    def unstarted(self) -> bool:
        """Whether ``unlabelled`` is for pools alone, since no method starts from a network of ours."""
        return bool(self.trained & WITH_POOL) and self.trained <= STARTLESS

    @property
    def trained(self) -> frozenset[str]:
        """The methods, and the members of their ensemble."""
        return frozenset(self.methods + self.ensemble * ("ensemble" in self.methods))

    @property
    def drawing(self) -> tuple[str, ...]:
        """The methods of ``fit`` that ``diffusion`` is used for."""
        used = {"diffusion": DIFFUSING, "joint": USED_BY["diffusion"] - DIFFUSING}
        return tuple(name for name, methods in used.items() if self.trained & methods)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives of pre-training: a method with a network of its own is named as its objective."""
        return (self.pretrain.objective, *(name for name in PRETRAIN if name in self.trained))
