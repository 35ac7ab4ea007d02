"""The list of commands. Torch-free, so that ``--help`` answers at once; an act is imported when it runs."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import config
from ..errors import InputError
from ..system.distributed import launched


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        settings: The dataclass of its settings.
        target: ``module:function`` that takes one such object.
        examples: Command lines, for the help and the reference.
        together: Whether several processes may run it together, each with a share of the training.
    """

    settings: type
    target: str
    examples: tuple[str, ...] = ()
    together: bool = False

    @property
    def summary(self) -> str:
        """First line of the settings' docstring."""
        return (self.settings.__doc__ or "").strip().splitlines()[0]


COMMANDS: dict[str, Command] = {
    "check": Command(
        config.Check,
        "radiffuse.commands.acts:check",
        (
            "radiffuse check DATA",
            "radiffuse check DATA --header-only",
        ),
    ),
    "anatomy": Command(
        config.Anatomy,
        "radiffuse.commands.acts:anatomy",
        ("radiffuse anatomy bitewing --count 200 --size 64,64 --out data/bitewings",),
    ),
    "pretrain": Command(
        config.Pretrain,
        "radiffuse.commands.pretrain:pretrain",
        (
            "radiffuse pretrain UNLABELLED --out runs/pre",
            "radiffuse pretrain UNLABELLED --config ptdr-paper --out runs/pre --dry-run",
            "radiffuse pretrain CT --coordinates runs/where --out runs/pre3d",
            "radiffuse pretrain CT --objective contrastive --out runs/contrast",
        ),
        together=True,
    ),
    "sample": Command(
        config.Sample,
        "radiffuse.commands.pretrain:sample",
        ("radiffuse sample runs/pre --count 16 --steps 50 --out samples",),
    ),
    "coordinates": Command(
        config.Coordinates,
        "radiffuse.objectives.coordinates:coordinates",
        ("radiffuse coordinates CT --out runs/where",),
        together=True,
    ),
    "finetune": Command(
        config.Finetune,
        "radiffuse.commands.finetune:finetune",
        (
            "radiffuse finetune LABELLED --from runs/pre --labels 5 --draw 0 --out runs/seg",
            "radiffuse finetune LABELLED --labels 5 --draw 0 --out runs/scratch",
            "radiffuse finetune LABELLED --from runs/pre --method pixel --labels 5 --out runs/pixel",
        ),
        together=True,
    ),
    "probe": Command(
        config.Probe,
        "radiffuse.commands.probe:probe",
        (
            "radiffuse probe LABELLED --from runs/pre3d --timesteps 10 --heads linear,nonlinear --out runs/probe",
            "radiffuse probe LABELLED --from runs/pre3d --sweep 1,5,10,15,30,60,100 --out runs/sweep",
        ),
        together=True,
    ),
    "diffseg": Command(
        config.DiffSeg,
        "radiffuse.commands.diffseg:diffseg",
        (
            "radiffuse diffseg LABELLED --strategy recycle --out runs/diff",
            "radiffuse diffseg LABELLED --from runs/pre --labels 5 --out runs/diff",
        ),
        together=True,
    ),
    "predict": Command(
        config.Predict,
        "radiffuse.commands.predict:predict",
        (
            "radiffuse predict runs/seg SCANS --out masks",
            "radiffuse predict runs/diff SCANS --sampler ddim --steps 5 --samples 8 --uncertainty --out masks",
            "radiffuse predict runs/diff runs/seg SCANS --out masks",
            "radiffuse predict runs/seg DICOM --format dicom-seg --out masks",
        ),
    ),
    "convert": Command(
        config.Convert,
        "radiffuse.release.convert:convert",
        (
            "radiffuse convert PIPELINE --out runs/theirs",
            "radiffuse convert MONAI --size 96 --spacing 1.5,1.5,2 --window -1000,1000 --out runs/theirs",
        ),
    ),
    "export": Command(
        config.Export,
        "radiffuse.commands.export:export",
        (
            "radiffuse export runs/seg --licence cc-by-4.0 --out published",
            "radiffuse export runs/seg --format onnx --out onnx",
            "radiffuse export runs/seg --format monai-bundle --out bundle",
            "radiffuse export runs/pre --format nnunet-encoder --out nnunet",
        ),
    ),
    "evaluate": Command(
        config.Evaluate,
        "radiffuse.commands.acts:evaluate",
        (
            "radiffuse evaluate masks LABELLED --out runs/eval",
            "radiffuse evaluate masks BTCV --prediction-classes amos22 --truth-classes btcv --out runs/eval",
        ),
    ),
    "study": Command(
        config.Study,
        "radiffuse.studies.study:study",
        (
            "radiffuse study LABELLED --unlabelled UNLABELLED --methods scratch,finetune,pixel,ddep --out runs/study",
            "radiffuse study LABELLED --methods none,standard,recycle,ensemble --reference none --out runs/diffusion",
        ),
    ),
    "synthesize": Command(
        config.Synthesize,
        "radiffuse.commands.synthesize:synthesize",
        (
            "radiffuse synthesize IMAGES --config synth-64 --out runs/synth",
            "radiffuse synthesize IMAGES --encoder facebook/dinov2-base --from SD_FOLDER --size 256 --out runs/sd",
        ),
        together=True,
    ),
    "generate": Command(
        config.Generate,
        "radiffuse.commands.generate:generate",
        (
            "radiffuse generate runs/synth --strategy interpolate --references REAL --count 500 --out FAKE",
            "radiffuse generate runs/synth --strategy variation,perturb,manifold --sampler dpm++ --steps 20 --out FAKE",
        ),
    ),
    "zeroshot": Command(
        config.ZeroShot,
        "radiffuse.commands.zeroshot:zeroshot",
        ("radiffuse zeroshot runs/synth FILMS --out MASKS",),
    ),
    "fidelity": Command(
        config.Fidelity,
        "radiffuse.synthesis.fidelity:fidelity",
        (
            "radiffuse fidelity REAL FAKE",
            "radiffuse fidelity REAL FAKE --encoder facebook/dinov2-base --out runs/fidelity",
        ),
    ),
    "memorization": Command(
        config.Memorization,
        "radiffuse.synthesis.memorization:memorization",
        ("radiffuse memorization REAL FAKE --out runs/copies",),
    ),
    "classify": Command(
        config.Classify,
        "radiffuse.commands.classify:classify",
        ("radiffuse classify CLASSES --labels 200 --with FAKE --ratio 5 --out runs/class",),
        together=True,
    ),
    "augment": Command(
        config.Augment,
        "radiffuse.studies.augment:augment",
        (
            "radiffuse augment CLASSES --with runs/synth --ratios 0,1,5,10 --pools 50,200,1000 --out runs/aug",
        ),
    ),
    "view": Command(
        config.View,
        "radiffuse.viewer.serve:view",
        (
            "radiffuse view runs/seg SCANS --masks MASKS",
            "radiffuse view runs/a runs/b runs/study",
            "radiffuse view",
        ),
    ),
    "report": Command(
        config.Report,
        "radiffuse.commands.acts:report",
        ("radiffuse report runs/study",),
    ),
    "info": Command(
        config.Info,
        "radiffuse.commands.acts:info",
        ("radiffuse info runs/pre", "radiffuse info runs/pre/model", "radiffuse info plan.json"),
    ),
    "compare": Command(
        config.Compare,
        "radiffuse.studies.compare:compare",
        (
            "radiffuse compare runs/study --methods dynunet",
            "radiffuse compare runs/study --nnunet-python nn/bin/python",
        ),
    ),
    "doctor": Command(
        config.Doctor,
        "radiffuse.commands.doctor:doctor",
        (
            "radiffuse doctor",
            "radiffuse doctor --json",
        ),
    ),
    "completion": Command(
        config.Completion,
        "radiffuse.cli.completion:completion",
        ("radiffuse completion bash",),
    ),
}


def load_act(name: str) -> Callable[[Any], Any]:
    """The function behind a command; it takes the command's settings object.

    It raises ``InputError`` where several processes were started for a command that one process runs.
    """
    module, _, function = COMMANDS[name].target.partition(":")
    act: Callable[[Any], Any] = getattr(importlib.import_module(module), function)
    return act if COMMANDS[name].together else functools.partial(_alone, name, act)


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


def load_command(name: str) -> Callable[..., Any]:
    """The public function of a command: keyword-only arguments, the same names as flags and YAML keys.

    Settings of a group are given by their own name where it is unique (``steps=500``), as a dict
    (``training={"steps": 500}``) or as the dataclass of ``radiffuse.config``.
    """
    command = COMMANDS[name]

    def call(**values: Any) -> Any:
        from ..cli.settings import from_values

        return load_act(name)(from_values(name, values))

    parameters = [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=f.type,
            default=inspect.Parameter.empty if f.default == "" else f.default,
        )
        for f in dataclasses.fields(command.settings)
    ]
    call.__name__ = call.__qualname__ = name
    call.__doc__ = command.settings.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
