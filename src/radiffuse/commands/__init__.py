"""The commands, by name. Light, so that ``--help`` answers at once: an act is imported when it runs."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import config
from ..errors import InputError
from ..system.distributed import launched
from ..system.privacy import private


@dataclass(frozen=True)
class Variants:
    """Defaults that depend on one of the settings.

    Attributes:
        setting: Its name, such as ``method``.
        defaults: The settings by its value.
        otherwise: Its value where none is given, by what else is given.
    """

    setting: str
    defaults: Mapping[Any, Any]
    otherwise: Callable[[Mapping[str, Any]], str]

    def choose(self, given: Mapping[str, Any]) -> str:
        """The value that the given settings ask for; one that is not legal counts as none."""
        value = given.get(self.setting)
        return str(value) if value and value in self.defaults else self.otherwise(given)


@dataclass(frozen=True)
class Command:
    """A command; its function has the same name in the module of the same name.

    Attributes:
        settings: The dataclass of its settings.
        purpose: The group in which ``radiffuse --help`` lists it.
        about: What it does, in at most 54 characters.
        examples: Command lines, for the help and the reference.
        shared: Whether what it writes is made to be given away, and follows the umask; else it is for this user alone.
        anew: Whether it starts again where it was interrupted, since it writes at its end; else it goes on.
        together: Whether several processes may run it together, each with a share of the training.
        variants: Defaults that depend on a setting; None: those of the dataclass.
    """

    settings: type
    purpose: str
    about: str
    examples: tuple[str, ...]
    together: bool = False
    shared: bool = False
    anew: bool = False
    variants: Variants | None = None

    @property
    def summary(self) -> str:
        """First line of the settings' docstring."""
        return (self.settings.__doc__ or "").strip().splitlines()[0]


COMMANDS: dict[str, Command] = {
    "check": Command(
        config.Check,
        "look at data",
        "what is in a data set, and what is wrong with it",
        (
            "radiffuse check DATA",
            "radiffuse check DATA --header-only",
            "radiffuse check LABELLED --plan --hours 2 --unlabelled POOL",
        ),
    ),
    "select": Command(
        config.Select,
        "look at data",
        "which scans to label next",
        (
            "radiffuse select POOL --count 5 --out first.csv",
            "radiffuse select POOL --from runs/seg --count 10 --out next.csv",
        ),
        anew=True,
    ),
    "anatomy": Command(
        config.Anatomy,
        "look at data",
        "create procedural images with exact labels",
        ("radiffuse anatomy bitewing --count 200 --size 64,64 --out data/bitewings",),
        shared=True,
    ),
    "pretrain": Command(
        config.Pretrain,
        "learn",
        "pre-train a network on unlabelled images",
        (
            "radiffuse pretrain UNLABELLED --out runs/pre",
            "radiffuse pretrain UNLABELLED --config ptdr-paper --out runs/pre --dry-run",
            "radiffuse pretrain CT --objective coordinates --out runs/where",
            "radiffuse pretrain CT --coordinates runs/where --out runs/pre3d",
            "radiffuse pretrain CT --objective contrastive --out runs/contrast",
            "radiffuse pretrain CT --objective clean-features --from runs/pre3d --out runs/clean3d",
        ),
        together=True,
        variants=Variants("objective", config.PRETRAIN, lambda given: "ddpm"),
    ),
    "fit": Command(
        config.Fit,
        "learn",
        "train a segmentation network, comparing methods first",
        (
            "radiffuse fit LABELLED --unlabelled POOL --hours 2 --out runs/seg",
            "radiffuse fit LABELLED --method finetune --from runs/pre --labels 5 --out runs/seg",
            "radiffuse fit LABELLED --method scratch --labels 5 --out runs/scratch",
            "radiffuse fit LABELLED --method pixel --from runs/pre --labels 5 --out runs/pixel",
            "radiffuse fit LABELLED --method probe --from runs/pre3d --timesteps clean,10 --out runs/probe",
            "radiffuse fit LABELLED --method probe --from runs/pre3d --sweep 1,5,10,15,30,60 --out runs/sweep",
            "radiffuse fit LABELLED --method diffusion --strategy recycle --out runs/diff",
        ),
        together=True,
        variants=Variants(
            "method",
            config.FIT,
            lambda given: "auto",
        ),
    ),
    "classify": Command(
        config.Classify,
        "learn",
        "train a classifier of whole films",
        ("radiffuse classify CLASSES --labels 200 --with FAKE --ratio 5 --out runs/class",),
        together=True,
    ),
    "predict": Command(
        config.Predict,
        "use",
        "segment scans with trained runs",
        (
            "radiffuse predict runs/seg SCANS --out masks",
            "radiffuse predict runs/diff SCANS --sampler ddim --steps 5 --samples 8 --uncertainty --out masks",
            "radiffuse predict runs/diff runs/seg SCANS --out masks",
            "radiffuse predict runs/seg DICOM --format dicom-seg --out masks",
        ),
    ),
    "export": Command(
        config.Export,
        "use",
        "publish a run; ONNX, MONAI bundle, nnU-Net",
        (
            "radiffuse export runs/seg --licence cc-by-4.0 --out published",
            "radiffuse export runs/seg --format onnx --out onnx",
            "radiffuse export runs/seg --format monai-bundle --out bundle",
            "radiffuse export runs/pre --format nnunet-encoder --out nnunet",
        ),
        shared=True,
        anew=True,
    ),
    "convert": Command(
        config.Convert,
        "use",
        "import a denoiser from diffusers, MONAI and others",
        (
            "radiffuse convert PIPELINE --out runs/theirs",
            "radiffuse convert MONAI --size 96 --spacing 1.5,1.5,2 --window -1000,1000 --out runs/theirs",
        ),
        anew=True,
    ),
    "evaluate": Command(
        config.Evaluate,
        "measure",
        "score masks against the ground truth",
        (
            "radiffuse evaluate masks LABELLED --out runs/eval",
            "radiffuse evaluate masks BTCV --prediction-classes amos22 --truth-classes btcv --out runs/eval",
        ),
        anew=True,
    ),
    "study": Command(
        config.Study,
        "measure",
        "compare methods at each number of labels",
        (
            "radiffuse study LABELLED --unlabelled UNLABELLED --methods scratch,finetune,pixel,ddep --out runs/study",
            "radiffuse study LABELLED --methods none,standard,recycle,ensemble --out runs/diffusion",
            "radiffuse study LABELLED --methods scratch,dynunet,nnunet --nnunet.python nn/bin/python --out runs/rivals",
        ),
    ),
    "augment": Command(
        config.Augment,
        "measure",
        "what synthetic films add to classification",
        (
            "radiffuse augment CLASSES --with runs/synth --ratios 0,1,5,10 --pools 50,200,1000 --out runs/aug",
        ),
    ),
    "judge": Command(
        config.Judge,
        "measure",
        "fidelity and memorization of synthetic images",
        (
            "radiffuse judge REAL FAKE",
            "radiffuse judge REAL FAKE --encoder facebook/dinov2-base --out runs/judged",
            "radiffuse judge TRAINED FAKE --only memorization --out runs/copies",
        ),
        anew=True,
    ),
    "synthesize": Command(
        config.Synthesize,
        "synthesize",
        "train a latent diffusion model without annotations",
        (
            "radiffuse synthesize IMAGES --config synth-64 --out runs/synth",
            "radiffuse synthesize IMAGES --encoder facebook/dinov2-base --from SD_FOLDER --size 256 --out runs/sd",
        ),
        together=True,
    ),
    "generate": Command(
        config.Generate,
        "synthesize",
        "sample images from a synthesizer or a denoiser",
        (
            "radiffuse generate runs/synth --strategy interpolate --references REAL --count 500 --out FAKE",
            "radiffuse generate runs/synth --strategy variation,perturb,manifold --sampler dpm++ --steps 20 --out FAKE",
            "radiffuse generate runs/pre --count 16 --steps 50 --out FAKE",
        ),
    ),
    "zeroshot": Command(
        config.ZeroShot,
        "synthesize",
        "segment without labels, by a network's features",
        (
            "radiffuse zeroshot films-64 FILMS --out MASKS",
            "radiffuse zeroshot runs/synth FILMS --features encoder --out MASKS",
            "radiffuse zeroshot runs/guided VOLUMES --names-from DRAWN --out MASKS",
        ),
    ),
    "view": Command(
        config.View,
        "show",
        "scans and runs in the browser; correct masks",
        (
            "radiffuse view runs/seg SCANS --masks MASKS",
            "radiffuse view runs/a runs/b runs/study",
            "radiffuse view",
        ),
    ),
    "info": Command(
        config.Info,
        "show",
        "describe a run or plan; write its report again",
        (
            "radiffuse info runs/pre",
            "radiffuse info plan.json",
            "radiffuse info runs/study --report",
        ),
    ),
    "cache": Command(
        config.Cache,
        "show",
        "list the cache; delete what is unused",
        ("radiffuse cache", "radiffuse cache --delete unused", "radiffuse cache --delete all"),
    ),
    "doctor": Command(
        config.Doctor,
        "show",
        "what this machine can do; shell completion",
        ("radiffuse doctor", "radiffuse doctor --json", "radiffuse doctor --completion bash"),
    ),
}


def load_act(name: str) -> Callable[[Any], Any]:
    """The function behind a command; it takes the command's settings object.

    It raises ``InputError`` where several processes were started for a command that one process runs.
    """
    command = COMMANDS[name]
    act: Callable[[Any], Any] = getattr(importlib.import_module(f"{__name__}.{name}"), name)
    act = act if command.together else functools.partial(_alone, name, act)
    return act if command.shared else functools.partial(_private, act)


def _private(act: Callable[[Any], Any], settings: Any) -> Any:
    with private():
        return act(settings)


def _alone(name: str, act: Callable[[Any], Any], settings: Any) -> Any:
    machine = getattr(settings, "machine", config.Machine())
    devices, nodes = launched() or (machine.devices, machine.num_nodes)
    if devices * nodes > 1:
        raise InputError(
            f"radiffuse {name}",
            f"is run by one process, not by {devices * nodes}",
            "Start it without torchrun, srun or --devices; --scheduler spreads cases over machines",
        )
    return act(settings)
