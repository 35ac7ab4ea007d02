"""The model card of a run: what it is, what went into it under which licence, how good it is, what it is not for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, RunError
from ..system.files import write_atomic
from ..train.run import Run, find_run

NOT_STATED = "not stated"
SEGMENTERS = ("finetune", "probe", "diffseg")
WHAT = {
    "pretrain": "A denoising U-Net, pre-trained on unlabelled images",
    "coordinates": "A regressor of body coordinates, trained on unlabelled scans",
    "finetune": "A segmentation network",
    "probe": "Segmentation heads on the frozen features of a pre-trained network",
    "diffseg": "A segmentation network that draws masks by diffusion",
    "synthesize": "A generator of images",
}
"""First words of the card, by command."""
UNSAFE = re.compile(r"[<>\[\]|`\x00-\x1f]")


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


def write_card(folder: Path, licences: Licences = Licences()) -> Path:
    """Write ``README.md`` of a finished run; nothing in it comes from an image's header.

    Raises:
        RunError: Not a run.
    """
    path = folder / "README.md"
    write_atomic(path, card(Run.open(folder), licences))
    return path


def card(run: Run, licences: Licences = Licences(), name: str | None = None) -> str:
    """The text of the card.

    Args:
        run: The run.
        licences: What is known beyond the run.
        name: Of the model; None: of the folder.
    """
    name = _plain(name or run.folder.resolve().name)
    command = str(run.config.get("command"))
    lines = [_front_matter(command, licences), f"# {name}", ""]
    converted = run.config["settings"].get("converted")
    if isinstance(converted, Mapping):
        kind = _plain(str(converted.get("kind")))
        lines += [f"A denoising U-Net that others trained, converted from {kind}.", ""]
    else:
        lines += [f"{WHAT.get(command, 'A model')}, made by `radiffuse {command}`.", ""]
    for title, rows in (
        ("Network and input", _network(run)),
        ("Data", _data(run, licences)),
        ("Metrics", list(_metrics(run))),
        ("Training", _training(run)),
        ("Intended use", _use(command)),
        ("Limits", _limits(run, command)),
        ("Licences", _licences(run, licences)),
    ):
        lines += [f"## {title}", "", *(f"- {row}" for row in rows), ""]
    return "\n".join(lines)


def sources(run: Run, licences: Licences = Licences()) -> list[Source]:
    """Everything that went into a run: its data, and the runs it started from with theirs."""
    settings = run.config["settings"]
    data = run.data
    stated = licences.data or data.get("licence") or NOT_STATED
    purpose = "training" if run.config.get("command") in SEGMENTERS else "pre-training, no labels"
    found = [Source(_plain(Path(str(data.get("root") or "data")).name), purpose, _plain(stated))]
    for name in data.get("with", ()):
        found.append(Source(_plain(str(name)), f"further images for {purpose}", NOT_STATED))
    for key, purpose in (("from_run", "start of the weights"), ("coordinates", "guide")):
        name = settings.get(key)
        if not name or run.config.get("command") == key:
            continue
        label = _plain(Path(str(name)).name)
        try:
            parent = find_run(str(name))
        except (InputError, RunError):
            found.append(Source(label, f"{purpose}; it is gone", NOT_STATED))
            continue
        own = _stated(parent.folder / "README.md") or NOT_STATED
        found.append(Source(label, f"{purpose}, a run of radiffuse", own))
        found += sources(parent)
    return found


# ------------------------------------------------------------------------------------------------ internal


def _front_matter(command: str, licences: Licences) -> str:
    content: dict[str, Any] = {"library_name": "radiffuse"}
    content["license"] = licences.weights or "other"
    if licences.weights is None:
        content["license_name"] = "not-stated"
    if command in SEGMENTERS:
        content["pipeline_tag"] = "image-segmentation"
    content["tags"] = ["medical-imaging", "diffusion", command]
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n"


def _network(run: Run) -> list[str]:
    plan = run.plan
    parameters = _parameters(run)
    axes = "films" if plan.spatial_dims == 2 else "volumes"
    size = " x ".join(map(str, plan.size))
    rows = [f"{parameters / 1e6:.1f} M parameters" if parameters else "a network as in `model/`"]
    seen = f"whole, at {size} pixels" if plan.spatial_dims == 2 else f"in patches of {size} voxels"
    rows.append(f"sees {axes} {seen}; channels: {', '.join(map(_plain, plan.channels))}")
    if plan.spacing:
        rows.append(f"spacing {' x '.join(map(str, plan.spacing))} mm (right, anterior, superior)")
    if plan.intensity == "window":
        rows.append(f"intensity {plan.low:g} to {plan.high:g}, clipped")
    else:
        rows.append(f"intensity between the percentiles {plan.low:g} and {plan.high:g} of an image")
    if plan.classes:
        labels = ", ".join(f"{i} {_plain(c)}" for i, c in enumerate(plan.classes))
        rows.append(f"labels: {labels}")
    return rows


def _parameters(run: Run) -> int:
    path = run.model / "model.safetensors"
    if not path.is_file():
        return 0
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0
    total = 0
    for shape in shapes:
        count = 1
        for n in shape:
            count *= n
        total += count
    return total


def _data(run: Run, licences: Licences) -> list[str]:
    data = run.data
    rows = []
    for source in sources(run, licences):
        rows.append(f"{source.name}: {source.what}; licence: {source.licence}")
    if data.get("cases"):
        patients = data.get("patients")
        rows.append(f"used: {data['cases']} images of {patients} patients")
    split = data.get("split")
    if isinstance(split, Mapping) and split:
        counts = ", ".join(f"{len(v)} {k}" for k, v in split.items() if isinstance(v, list))
        rows.append(f"parted by patient: {counts}")
    return rows


def _metrics(run: Run) -> Iterator[str]:
    """From the files of the run; what was not measured is said."""
    path = run.folder / "validation" / "cases.csv"
    if path.is_file():
        import pandas as pd

        table = pd.read_csv(path)
        for metric, unit in (("dice", ""), ("hd95", " mm or px")):
            if metric in table and table[metric].notna().any():
                mean = table.groupby("case")[metric].mean().mean()
                cases = table["case"].nunique()
                yield f"validation {metric}: {mean:.4f}{unit}, mean of {cases} cases"
    rows = [row for row in run.log() if isinstance(row.get("validation"), dict)]
    if rows and not path.is_file():
        for key, value in rows[-1]["validation"].items():
            yield f"validation {_plain(key)}: {value:.4g} at step {rows[-1].get('step')}"
    if not rows and not path.is_file():
        yield "none was measured in this run"
    yield "validation cases may have been tuned on; a test on cases of your own is what counts"


def _training(run: Run) -> list[str]:
    config, settings = run.config, run.config["settings"]
    training = settings.get("training") or {}
    rows = [f"radiffuse {config.get('radiffuse')}; every setting is in `config.yaml`"]
    if settings.get("converted"):
        return ["trained elsewhere; how, is for its source to say"]
    if training:
        rows.append(
            f"{training.get('steps')} steps of {training.get('batch_size')}, learning rate "
            f"{training.get('learning_rate')}, seed {training.get('seed')}"
        )
    if settings.get("labels"):
        rows.append(f"{settings['labels']} labelled cases, draw {settings.get('draw')}")
    return rows


def _use(command: str) -> list[str]:
    start = "a starting point for research on segmentation of images like those it was trained on"
    segment = "research on segmentation of images like those it was trained on"
    return [
        segment if command in SEGMENTERS else start,
        "not a medical device: nothing it makes may guide care",
    ]


def _limits(run: Run, command: str) -> list[str]:
    rows = ["other scanners, protocols, ages and diseases than those of the training data: unknown"]
    if command in SEGMENTERS:
        rows.append("it labels every image, also one that shows none of its classes")
    if command in ("pretrain", "synthesize"):
        rows.append("samples can resemble training images; see `radiffuse judge`")
    if run.data.get("skipped"):
        rows.append(f"{len(run.data['skipped'])} cases could not be read and were left out")
    return rows


def _licences(run: Run, licences: Licences) -> list[str]:
    own = _plain(licences.weights or NOT_STATED)
    rows = [f"weights: {own}"]
    rows += [f"{s.name} ({s.what}): {s.licence}" for s in sources(run, licences)]
    if any(source.licence == NOT_STATED for source in sources(run, licences)):
        rows.append("where a licence is not stated, ask before you publish or use it")
    rows.append("code: Apache-2.0 (radiffuse)")
    return rows


def _stated(path: Path) -> str | None:
    """The licence of the weights that a card states."""
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    for pattern in (r"(?m)^license: *(\S.*)$", r"\*\*Licence of the weights\*\*: *(.+)"):
        if (found := re.search(pattern, text)) and found[1].strip() != "other":
            return _plain(found[1].strip().rstrip("."))
    return None


def _plain(text: str) -> str:
    """Text from a file as harmless words of Markdown."""
    return UNSAFE.sub(" ", str(text)).strip()[:300]
