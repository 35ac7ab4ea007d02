"""The study of label efficiency: methods x label budgets x draws, on the same splits, network and training.

    OUT/study.yaml      settings
    OUT/pretrain        the pre-trained run, unless --from names one
    OUT/runs/...        one run per method, budget and draw
    OUT/scores/...      its scores, one folder per method, budget and draw
    OUT/results.csv     every score of every case; the tables and the report are made from it

Every part is a run that resumes, so the same command goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..config import Study
from ..config.values import completed, to_dict
from ..data.dataset import Dataset
from ..data.prepare import cache_folder
from ..data.splits import Splits, load_splits
from ..errors import InputError
from ..evaluation.scoring import score_with
from ..reports.study import write_study_report
from ..system.files import locked, make_folder, read_yaml, write_atomic, write_json
from ..train.cases import read_dataset
from ..train.run import Run
from .runs import METHODS, PRETRAINED, StudyRuns, Variant, variants
from .sources import SYNTHETIC

OUTSIDE = ("nnunet",)
"""Methods that another program trains; radiffuse compare adds their scores."""


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
    dataset, splits = study_cases(settings)
    for labels in settings.labels:
        splits.budget(labels, 0)
    make_folder(out)
    with locked(out):
        _refuse_other(settings, out / "study.yaml")
        write_atomic(out / "study.yaml", yaml.safe_dump(to_dict(settings), sort_keys=False))
        runs = StudyRuns(settings, out, splits.held_patients(dataset))
        source = runs.sources.first()
        names = [name for part in settings.parts for name in splits.part(part)]
        for variant, labels, draw in _units(settings):
            folder = _scores(settings, variant.name, labels, draw)
            if not (folder / "cases.csv").exists():
                predictor = runs.predictor(variant, labels, draw)
                score_with(predictor, dataset, names, folder, settings.tolerance)
                write_results(settings)
        write_results(settings)
        _write_data(out, dataset, splits, settings, source)
        return write_study_report(out)


def study_cases(settings: Study) -> tuple[Dataset, Splits]:
    """The labelled cases of a study, and how they are parted."""
    dataset = read_dataset(settings.data, settings.finetune.reader).labelled
    cache = cache_folder(settings.finetune.reader.cache)
    return dataset, load_splits(dataset, settings.finetune.split, cache, settings.draws - 1)


def write_results(settings: Study) -> None:
    """All scores that are there in one table, ``results.csv``; those of single sampling steps in ``steps.csv``."""
    import pandas as pd

    scored = list(_scored(settings))
    for source, target in (("cases.csv", "results.csv"), ("steps.csv", "steps.csv")):
        frames = []
        for method, labels, draw, folder in scored:
            if not (folder / source).exists():
                continue
            frame = pd.read_csv(folder / source, dtype={"case": str, "group": str, "class": str})
            frame.insert(0, "draw", draw)
            frame.insert(0, "labels", labels)
            frame.insert(0, "method", method)
            frames.append(frame)
        if frames:
            write_atomic(Path(settings.out) / target, pd.concat(frames).to_csv(index=False))


# ------------------------------------------------------------------------------------------------ internal


def _units(settings: Study) -> Iterator[tuple[Variant, int, int]]:
    for variant in variants(settings):
        for labels in settings.labels:
            for draw in range(settings.draws):
                yield variant, labels, draw


def _scores(settings: Study, method: str, labels: int, draw: int) -> Path:
    return Path(settings.out) / "scores" / f"{method}-{labels}-{draw}"


def _scored(settings: Study) -> Iterator[tuple[str, int, int, Path]]:
    """Method, labels, draw, and the folder of the scores, of all that was scored."""
    for method in (*(variant.name for variant in variants(settings)), *OUTSIDE):
        for labels in settings.labels:
            for draw in range(settings.draws):
                folder = _scores(settings, method, labels, draw)
                if (folder / "cases.csv").exists():
                    yield method, labels, draw, folder


def _verify(settings: Study) -> None:
    for method in settings.methods:
        if method not in METHODS:
            raise InputError(
                f"--methods {method}", "is not a method", f"Methods are {', '.join(METHODS)}"
            )
    for flag, words, legal in (
        ("parts", settings.parts, ("test", "validation")),
        ("weights", settings.weights, ("average", "raw")),
        ("samplers", settings.samplers, ("ddpm", "ddim")),
        ("probe", settings.probe, ("linear", "nonlinear", "finetune")),
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
    for method in ("ddep", "guided", "restorative", "contrastive", "synthetic-unlabelled"):
        if method in settings.methods and not settings.unlabelled:
            raise InputError(
                f"--methods {method}", "trains on unlabelled images", "Give --unlabelled"
            )
    if any(method in SYNTHETIC for method in settings.methods) and not settings.synthetic:
        raise InputError(
            "--methods synthetic-...", "needs synthetic images", "Give folders with --synthetic"
        )
    if settings.pools and (settings.from_run or not settings.unlabelled):
        raise InputError(
            "--pools", "are pre-trained on here", "Give images with --unlabelled, and no --from"
        )
    if "ensemble" in settings.methods:
        strange = [m for m in settings.ensemble if m not in METHODS or m == "ensemble"]
        if strange or len(settings.ensemble) < 2:
            raise InputError(
                f"--ensemble {','.join(settings.ensemble)}",
                "does not name two or more methods",
                "Give some such as none,recycle",
            )
    if settings.reference not in [variant.name for variant in variants(settings)]:
        raise InputError(
            f"--reference {settings.reference}", "is not among the methods", "Add it to --methods"
        )
    if settings.draws < 1 or not settings.labels:
        raise InputError("--draws", "leaves nothing to do", "Give at least one draw and one budget")


def _refuse_other(settings: Study, path: Path) -> None:
    """Refuse to mix runs of other settings into a study; methods, budgets and draws may be added."""
    if not path.exists():
        return
    before = completed(to_dict(Study()), read_yaml(path))
    now = to_dict(settings)
    groups = ("pretrain", "coordinates", "finetune", "probing", "diffseg")
    for key in (
        "data",
        "unlabelled",
        "synthetic",
        "from_run",
        "parts",
        "tolerance",
        "ensemble",
        *groups,
    ):
        old, new = before.get(key), now[key]
        if key in groups:
            old, new = (
                {name: v for name, v in (group or {}).items() if name not in ("machine", "reader")}
                for group in (old, new)
            )
        if old != new:
            raise InputError(
                path, f"was written with other settings of {key}", "Choose another --out"
            )


def _write_data(
    out: Path, dataset: Dataset, splits: Splits, settings: Study, source: Run | None
) -> None:
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
