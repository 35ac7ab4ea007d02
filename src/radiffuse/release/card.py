"""The model card of a run: what it is, what went into it under which licence, how good it is, what it is not for.

The words are in ``templates/card.md``. Whatever comes from a file is written as harmless words of Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..config.network import begins_on_imagenet
from ..data.plan import PREPARED
from ..data.steps import steps_in_words
from ..errors import InputError, RunError
from ..evaluation.tables import distance_unit, read_scores
from ..system.files import count_parameters, write_atomic
from ..train.members import DRAWING, MEMBERS, kind_of, members_of
from ..train.run import CHOICE, Run, find_run
from .documents import harmless, render

NOT_STATED = "not stated"
WHAT = {
    "denoiser": "A denoising U-Net, pre-trained on unlabelled images",
    "coordinates": "A regressor of body coordinates, trained on unlabelled scans",
    "segmenter": "A segmentation network",
    "dynunet": "A segmentation network",
    "dino": "A light decoder on a frozen DINO encoder",
    "imagenet": "A segmentation network on an encoder trained on ImageNet",
    "imagenet-denoiser": "A U-Net on an encoder trained on ImageNet, pre-trained on unlabelled images",
    "pixel": "A pixel classifier on the features of a pre-trained network",
    "probe": "Segmentation heads on the frozen features of a pre-trained network",
    "mask-denoiser": "A segmentation network that draws masks by diffusion",
    "joint-denoiser": "A denoiser of image and mask together, which segments and draws pairs",
    "classifier": "A classifier of films",
}
"""First words of the card, by the kind of the network."""
DIFFUSED = ("ddpm", "clean-features")
"""Objectives of pre-training that are diffusion."""


@dataclass(frozen=True)
class Licences:
    """What the person who publishes says about licences.

    Attributes:
        weights: Of the weights, such as ``apache-2.0``.
        data: Of the data; None: what the data set states.
    """

    weights: str | None = None
    data: str | None = None


@dataclass(frozen=True)
class Source:
    """Something that went into a run.

    Attributes:
        name: Of the data set or the run.
        what: What it was used for.
        licence: As stated.
    """

    name: str
    what: str
    licence: str


IMAGENET_SOURCE = Source("EfficientNet-Lite0", "start of the encoder, from ImageNet", "apache-2.0")


def write_card(folder: Path) -> Path:
    """Write ``README.md`` of a finished run; nothing in it comes from an image's header.

    Raises:
        RunError: Not a run.
    """
    path = folder / "README.md"
    write_atomic(path, card(Run.open(folder)))
    return path


def card(run: Run, licences: Licences = Licences(), name: str | None = None) -> str:
    """The text of the card.

    Args:
        run: The run.
        licences: What is known beyond the run.
        name: Of the model; None: of the folder.
    """
    config, data = run.config, run.data
    split = data.get("split")
    return render(
        "card.md",
        front=_front_matter(run, licences),
        name=name or run.folder.resolve().name,
        what=_what(run),
        command=config.get("command"),
        version=config.get("radiffuse"),
        settings=config["settings"],
        plan=run.plan,
        grids=len({tuple(getattr(part.plan, name) for name in PREPARED) for part in _members(run)}),
        parameters=_parameters(run),
        data=data,
        parts={k: len(v) for k, v in split.items() if isinstance(v, list) and v}
        if isinstance(split, Mapping)
        else {},
        sources=sources(run, licences),
        metrics=list(_metrics(run)),
        licence=licences.weights,
        after=_after(run),
        trainings=list(_trainings(run)),
        choice=CHOICE if kind_of(run) == MEMBERS else None,
        not_stated=NOT_STATED,
    )


RUNS = {
    "from_run": "start of the weights",
    "coordinates": "guide",
    "teacher": "teacher of the pool",
    "corrector": "corrector of the pool's masks",
}
"""Settings that name a run, of a command or of its pool, and what it is for."""


def sources(run: Run, licences: Licences = Licences()) -> list[Source]:
    """Everything that went into a run: its data, and the runs it started from or consists of with theirs."""
    settings, data = run.config["settings"], run.data
    stated = licences.data or data.get("licence") or NOT_STATED
    purpose = "training" if run.plan.classes else "pre-training, no labels"
    found = [
        Source(harmless(Path(str(data.get("root") or "data")).name), purpose, harmless(stated))
    ]
    for name in data.get("with", ()):
        found.append(Source(harmless(name), f"further images for {purpose}", NOT_STATED))
    for name in data.get("unlabelled", ()):
        found.append(Source(harmless(name), "the pool, without labels", NOT_STATED))
    if begins_on_imagenet(settings):
        found.append(IMAGENET_SOURCE)
    pool = settings.get("pool") or {}
    for key, purpose in RUNS.items():
        if not (name := settings.get(key) or pool.get(key)):
            continue
        label = harmless(Path(str(name)).name)
        try:
            parent = find_run(str(name))
        except (InputError, RunError):
            found.append(Source(label, f"{purpose}; it is gone", NOT_STATED))
            continue
        own = _stated(parent.folder / "README.md") or NOT_STATED
        found.append(Source(label, f"{purpose}, a run of radiffuse", own))
        found += sources(parent)
    for part in _members(run):
        if part.folder != run.folder:
            found += sources(part, licences)
    return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------------ internal


def _what(run: Run) -> str:
    parts = _members(run)
    default = "A generator of images" if run.config.get("command") == "synthesize" else "A model"
    what = WHAT.get(kind_of(parts[0]), default)
    if kind_of(run) != MEMBERS:
        return what
    if len(parts) > 1:
        return f"{len(parts)} segmentation networks that vote, chosen automatically"
    return f"{what}, chosen automatically"


def _members(run: Run) -> tuple[Run, ...]:
    """The networks that vote; the run itself where it is one, or where they are gone."""
    try:
        return members_of(run)
    except (InputError, RunError):
        return (run,)


def _diffuses(run: Run) -> bool:
    """Whether a run is a diffusion model, or one of its networks uses or started from one."""
    settings, command = run.config["settings"], run.config.get("command")
    if command == "synthesize" or settings.get("converted") or kind_of(run) in DRAWING:
        return True
    if command == "pretrain" and settings.get("objective", "ddpm") in DIFFUSED:
        return True
    parts = [part for part in _members(run) if part.folder != run.folder]
    if settings.get("from_run") and kind_of(run) != MEMBERS:
        with suppress(InputError, RunError):
            parts.append(find_run(str(settings["from_run"])))
    return any(map(_diffuses, parts))


def _after(run: Run) -> list[str]:
    """The steps on its masks, a line for the classes of each; [] where there are none."""
    plan = run.plan
    steps = [step for step in plan.postprocess if step != "none"]
    return steps_in_words(steps, plan.classes, plan.spatial_dims).split("; ") if steps else []


def _trainings(run: Run) -> Iterator[str]:
    """What was trained for how long, a line per network."""
    parts = _members(run)
    for part in parts:
        settings = part.config["settings"]
        training = settings.get("training") or {}
        if not training.get("steps"):
            continue
        seed = training.get("seed", settings.get("draw"))  # of classifiers the draw is the seed
        who = f"{harmless(part.folder.name)}: " if part.folder != run.folder else ""
        yield (
            f"{who}{training['steps']} steps of {training['batch_size']} images, learning rate "
            f"{training['learning_rate']}, seed {seed}"
        )


def _front_matter(run: Run, licences: Licences) -> list[str]:
    content: dict[str, Any] = {"library_name": "radiffuse", "license": licences.weights or "other"}
    if licences.weights is None:
        content["license_name"] = "not-stated"
    if run.plan.classes:
        content["pipeline_tag"] = "image-segmentation"
    tags = ["medical-imaging", *["diffusion"] * _diffuses(run), str(run.config.get("command"))]
    content["tags"] = tags
    return yaml.safe_dump(content, sort_keys=False).splitlines()


def _parameters(run: Run) -> int | None:
    try:
        return sum(count_parameters(part.model / "model.safetensors") for part in members_of(run))
    except InputError:
        return None


def _metrics(run: Run) -> Iterator[str]:
    """From the files of the run."""
    path = run.folder / "validation" / "cases.csv"
    if path.is_file():
        table = read_scores(path)
        for metric, unit in (("dice", ""), ("hd95", f" {distance_unit(table)}")):
            if metric in table and table[metric].notna().any():
                mean = table.groupby("case")[metric].mean().mean()
                cases = table["case"].nunique()
                yield f"validation {metric}: {mean:.4f}{unit}, mean of {cases} cases"
        return
    rows = [row for row in run.log() if isinstance(row.get("validation"), dict)]
    for key, value in rows[-1]["validation"].items() if rows else ():
        yield f"validation {harmless(key)}: {value:.4g} at step {rows[-1].get('step')}"


def _stated(path: Path) -> str | None:
    """The licence of the weights that a card states."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    for pattern in (r"(?m)^license: *(\S.*)$", r"\*\*Licence of the weights\*\*: *(.+)"):
        if (found := re.search(pattern, text)) and found[1].strip() != "other":
            return harmless(found[1].strip().rstrip("."))
    return None
