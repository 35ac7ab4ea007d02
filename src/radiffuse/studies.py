"""The study of label efficiency: methods x label budgets x draws, on the same splits, network and training.

    OUT/study.yaml      settings
    OUT/pretrain        the pre-trained run, unless --from names one
    OUT/runs/...        one run per method, budget and draw
    OUT/results.csv     every score of every case; the tables and the report are made from it

Every part is a run that resumes, so the same command goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from . import config
from .config import Finetune, Network, PlanSettings, Study
from .data.dataset import Dataset
from .data.plan import Plan
from .data.prepare import cache_folder
from .data.splits import Splits, load_splits
from .engine.run import Run
from .errors import InputError
from .files import write_atomic
from .methods.common import find_pretrained, read_dataset, score_cases
from .methods.finetune import finetune
from .methods.generated import write_generated
from .methods.pretrain import pretrain
from .reports.study import write_study_report
from .settings import from_dict, to_dict

METHODS = ("scratch", "finetune", "pixel", "ddep", "generated")
PRETRAINED = ("finetune", "pixel", "ddep", "generated")


@dataclass(frozen=True)
class Variant:
    """A method as it stands in the results: with a timestep or weights of its own where several are tried."""

    name: str
    method: str
    timestep: int
    weights: str


def study(settings: Study) -> Path:
    """Compare methods at several label budgets.

    Args:
        settings: See ``radiffuse.config.Study``.

    Returns:
        The study folder with ``results.csv``, ``summary.csv``, ``comparisons.csv`` and ``report.html``.

    Raises:
        InputError: Data or settings that cannot be used; what was finished is kept.
    """
    _verify(settings)
    out = Path(settings.out)
    dataset = read_dataset(settings.data, settings.finetune.reader).labelled
    cache = cache_folder(settings.finetune.reader.cache)
    splits = load_splits(dataset, settings.finetune.split, cache, settings.draws - 1)
    for labels in settings.labels:
        splits.budget(labels, 0)
    _refuse_other(settings, out / "study.yaml")
    write_atomic(out / "study.yaml", yaml.safe_dump(to_dict(settings), sort_keys=False))
    source = _pretrained(settings, out)
    plan = source.plan if source else None
    decoder = _ddep(settings, out, source) if "ddep" in settings.methods else None
    tables = []
    for variant in _variants(settings):
        for labels in settings.labels:
            for draw in range(settings.draws):
                folder = out / "runs" / f"{variant.name}-{labels}-{draw}"
                run = _one(settings, variant, labels, draw, folder, source, decoder, plan)
                scores = folder / "test" / "cases.csv"
                if not scores.exists():
                    names = [name for part in settings.parts for name in splits.part(part)]
                    machine = settings.finetune.machine
                    score_cases(run, dataset, names, scores.parent, machine, settings.tolerance)
                tables.append((variant.name, labels, draw, scores))
                _write_results(out, tables)
    _write_data(out, dataset, splits, settings, source)
    return write_study_report(out)


# ------------------------------------------------------------------------------------------------ internal


def _verify(settings: Study) -> None:
    for method in settings.methods:
        if method not in METHODS:
            raise InputError(
                f"--methods {method}", "is not a method", f"Methods are {', '.join(METHODS)}"
            )
    for flag, words, legal in (
        ("parts", settings.parts, ("test", "validation")),
        ("weights", settings.weights, ("average", "raw")),
    ):
        for word in words:
            if word not in legal:
                raise InputError(
                    f"--{flag} {word}", "is not legal", f"Choose from {', '.join(legal)}"
                )
    needed = [m for m in settings.methods if m in PRETRAINED]
    if needed and not settings.unlabelled and not settings.from_run:
        raise InputError(
            f"--methods {needed[0]}",
            "needs a pre-trained network",
            "Give images with --unlabelled, or a run with --from",
        )
    if "ddep" in settings.methods and not settings.unlabelled:
        raise InputError(
            "--methods ddep", "trains its decoder on unlabelled images", "Give --unlabelled"
        )
    if settings.reference not in settings.methods:
        raise InputError(
            f"--reference {settings.reference}", "is not among the methods", "Add it to --methods"
        )
    if settings.draws < 1 or not settings.labels:
        raise InputError("--draws", "leaves nothing to do", "Give at least one draw and one budget")


def _refuse_other(settings: Study, path: Path) -> None:
    """Refuse to mix runs of other settings into a study; methods, budgets and draws may be added."""
    if not path.exists():
        return
    before, now = yaml.safe_load(path.read_text(encoding="utf-8")) or {}, to_dict(settings)
    for key in ("data", "unlabelled", "from_run", "parts", "tolerance", "pretrain", "finetune"):
        old, new = before.get(key), now[key]
        if key in ("pretrain", "finetune"):
            old, new = (
                {name: v for name, v in (group or {}).items() if name not in ("machine", "reader")}
                for group in (old, new)
            )
        if old != new:
            raise InputError(
                path, f"was written with other settings of {key}", "Choose another --out"
            )


def _variants(settings: Study) -> Iterator[Variant]:
    for method in settings.methods:
        several = method == "finetune"
        for timestep in settings.timesteps if several else (settings.finetune.timestep,):
            for weights in settings.weights if several else (settings.finetune.weights,):
                name = method
                if several and len(settings.timesteps) > 1 and timestep != settings.timesteps[0]:
                    name += f"@t={timestep}"
                if several and len(settings.weights) > 1 and weights != settings.weights[0]:
                    name += f"@{weights}"
                yield Variant(name, method, timestep, weights)


def _pretrained(settings: Study, out: Path) -> Run | None:
    if settings.from_run:
        return find_pretrained(settings.from_run)
    if not settings.unlabelled:
        return None
    folder = out / "pretrain"
    if (folder / "model" / "config.json").exists():
        return Run.open(folder)
    return pretrain(
        dataclasses.replace(settings.pretrain, data=settings.unlabelled, out=str(folder))
    )


def _ddep(settings: Study, out: Path, source: Run | None) -> Run:
    """The rival: the encoder of the pre-trained run, its decoder trained anew at one noise level."""
    assert source is not None
    assert settings.unlabelled is not None
    folder = out / "ddep"
    if (folder / "model" / "config.json").exists():
        return Run.open(folder)
    return pretrain(
        dataclasses.replace(
            settings.pretrain,
            data=settings.unlabelled,
            out=str(folder),
            objective="ddep",
            from_run=str(source.folder),
        )
    )


def _one(
    settings: Study,
    variant: Variant,
    labels: int,
    draw: int,
    folder: Path,
    source: Run | None,
    decoder: Run | None,
    plan: Plan | None,
) -> Run:
    if (folder / "model" / "config.json").exists():
        return Run.open(folder)
    base = dataclasses.replace(
        settings.finetune,
        data=settings.data,
        out=str(folder),
        labels=labels,
        draw=draw,
        timestep=variant.timestep,
        weights=cast(Literal["average", "raw"], variant.weights),
        training=dataclasses.replace(settings.finetune.training, seed=draw, validate_every=0),
    )
    if plan is not None and source is not None:
        base = dataclasses.replace(base, plan=_as_settings(plan), network=_network_of(source))
    if variant.method == "scratch" or source is None:
        return finetune(base)
    if variant.method == "ddep":
        assert decoder is not None
        return finetune(dataclasses.replace(base, from_run=str(decoder.folder)))
    if variant.method == "pixel":
        return finetune(dataclasses.replace(base, from_run=str(source.folder), method="pixel"))
    if variant.method == "generated":
        return _generated(settings, base, labels, draw, folder, source)
    return finetune(dataclasses.replace(base, from_run=str(source.folder)))


def _generated(
    settings: Study, base: Finetune, labels: int, draw: int, folder: Path, source: Run
) -> Run:
    """Label images of the denoiser with the fine-tuned network of this draw, train on them."""
    first = Variant("finetune", "finetune", base.timestep, base.weights)
    teacher = _one(
        settings,
        first,
        labels,
        draw,
        folder.with_name(f"finetune-{labels}-{draw}"),
        source,
        None,
        source.plan,
    )
    data = write_generated(
        source,
        teacher,
        folder.parent / "generated-data" / f"{labels}-{draw}",
        count=settings.generated,
        seed=draw,
        machine=base.machine,
    )
    return finetune(
        dataclasses.replace(
            base,
            data=str(data),
            labels=None,
            draw=0,
            from_run=str(source.folder),
            split=config.Split(test=0.0, validation=0.0),
        )
    )


def _as_settings(plan: Plan) -> PlanSettings:
    """A plan as settings, so that a network from scratch sees what the pre-trained one saw."""
    window = (plan.low, plan.high)
    return PlanSettings(
        size=plan.size,
        spacing=plan.spacing,
        resize=plan.resize,
        window=window if plan.intensity == "window" else None,
        percentiles=window if plan.intensity == "percentiles" else None,
    )


def _network_of(run: Run) -> Network:
    network: Network = from_dict(Network, run.config["settings"]["network"])
    return network


def _write_results(out: Path, tables: list[tuple[str, int, int, Path]]) -> None:
    import pandas as pd

    frames = []
    for method, labels, draw, path in tables:
        frame = pd.read_csv(path, dtype={"case": str, "group": str, "class": str})
        frame.insert(0, "draw", draw)
        frame.insert(0, "labels", labels)
        frame.insert(0, "method", method)
        frames.append(frame)
    write_atomic(out / "results.csv", pd.concat(frames).to_csv(index=False))


def _write_data(
    out: Path, dataset: Dataset, splits: Splits, settings: Study, source: Run | None
) -> None:
    from .files import write_json

    data: dict[str, Any] = {
        "root": str(dataset.root),
        "layout": dataset.layout,
        "cases": len(dataset),
        "patients": len({case.group for case in dataset}),
        "skipped": [],
        "split": {part: list(splits.part(part)) for part in ("train", "validation", "test")},
    }
    if source is not None:
        data["pretrained"] = str(source.folder)
    write_json(out / "data.json", data)
