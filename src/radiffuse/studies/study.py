"""The study of label efficiency: methods x label budgets x draws, on the same splits, network and training.

    OUT/study.yaml      settings
    OUT/pretrain        the pre-trained run, unless --from names one
    OUT/runs/...        one run per method, budget and draw
    OUT/scores/...      its scores, one folder per method, budget and draw
    OUT/results.csv     every score of every case; further tables and the report are made from it

Every part is a run that resumes, so the same command goes on where it stopped, and with more methods adds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import Study
from ..data.dataset import Dataset
from ..data.prepare import cache_folder
from ..data.splits import Splits, load_splits
from ..errors import InputError
from ..inference.scoring import score_cases
from ..system.files import write_json
from ..train.cases import read_dataset
from ..train.run import Run
from .folder import gather, study_folder
from .methods import DENOISER, METHODS, Variant, variants
from .nnunet import NNUNet, find_nnunet, score_nnunet
from .runs import Acts, StudyRuns

FIXED = (
    "data", "unlabelled", "synthetic", "from_run", "parts", "tolerance", "ensemble",
    "pretrain", "regressor", "finetune", "probing", "diffusion",
)  # fmt: skip
"""Settings of a study that stand once it was begun; methods, budgets and draws may be added."""


def run_study(settings: Study, acts: Acts) -> Path:
    """Train and score every method with every label budget, in every draw.

    Args:
        settings: See ``radiffuse.config.Study``.
        acts: The commands that train.

    Returns:
        The study folder with ``results.csv`` and, where masks were sampled in steps, ``steps.csv``.

    Raises:
        InputError: Data or settings that cannot be used; what was finished is kept.
    """
    verify(settings)
    dataset = read_dataset(settings.data, settings.finetune.reader).labelled
    cache = cache_folder(settings.finetune.reader.cache)
    splits = load_splits(dataset, settings.finetune.split, cache, settings.draws - 1)
    for labels in settings.labels:
        splits.budget(labels, 0)
    names = [name for part in settings.parts for name in splits.part(part)]
    with study_folder(settings, "study.yaml", FIXED) as out:
        nnunet = _nnunet(settings)
        runs = StudyRuns(settings, acts, splits.held_patients(dataset))
        shared = runs.shared()
        for variant, labels, draw, folder in _parts(settings):
            if (folder / "cases.csv").exists():
                continue
            if nnunet is not None and variant.row.segments == "nnunet":
                part = out / "nnunet" / f"{labels}-{draw}"
                training = splits.budget(labels, draw)
                score_nnunet(nnunet, part, dataset, training, names, folder, settings.tolerance)
            else:
                predictor = runs.predictor(variant, labels, draw)
                score_cases(predictor, dataset, names, folder, settings.tolerance)
            _write_results(settings)
        _write_results(settings)
        _write_data(out, dataset, splits, shared)
    return out


def verify(settings: Study) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: Names the setting.
    """
    known = ", ".join(METHODS)
    for name in settings.methods:
        if name not in METHODS:
            raise InputError(f"--methods {name}", "is not a method", f"Methods are {known}")
    if "ensemble" in settings.methods:
        legal = [name for name, row in METHODS.items() if row.fit]
        if len(settings.ensemble) < 2 or not set(settings.ensemble) <= set(legal):
            raise InputError(
                f"--ensemble {','.join(settings.ensemble)}",
                "does not name two or more methods",
                "Give some such as none,recycle",
            )
    for name in settings.methods:
        for member in settings.ensemble if name == "ensemble" else (name,):
            _verify_needs(settings, member)
    if settings.pools and (settings.from_run or not settings.unlabelled):
        raise InputError(
            "--pools", "are pre-trained on here", "Give images with --unlabelled, and no --from"
        )
    if settings.reference not in [variant.name for variant in variants(settings)]:
        raise InputError(
            f"--reference {settings.reference}", "is not among the methods", "Add it to --methods"
        )
    if settings.draws < 1 or not settings.labels:
        raise InputError("--draws", "leaves nothing to do", "Give at least one draw and one budget")


# ------------------------------------------------------------------------------------------------ internal


def _verify_needs(settings: Study, name: str) -> None:
    row = METHODS[name]
    needs = (
        (
            row.start and not settings.unlabelled and not settings.from_run,
            "needs a pre-trained network",
            "Give images with --unlabelled, or a run with --from",
        ),
        (
            row.start and row.start != DENOISER and not settings.unlabelled,
            "trains on unlabelled images",
            "Give --unlabelled",
        ),
        (
            row.synthetic and not settings.synthetic,
            "needs synthetic images",
            "Give folders with --synthetic",
        ),
        (
            row.segments == "nnunet" and not settings.nnunet.python,
            "needs an interpreter that has nnU-Net",
            "Give it with --nnunet.python",
        ),
    )
    for missing, problem, remedy in needs:
        if missing:
            raise InputError(f"--methods {name}", problem, remedy)


def _parts(settings: Study) -> Iterator[tuple[Variant, int, int, Path]]:
    """Variant, label budget and draw, and the folder of their scores."""
    scores = Path(settings.out) / "scores"
    for variant in variants(settings):
        for labels in settings.labels:
            for draw in range(settings.draws):
                yield variant, labels, draw, scores / f"{variant.name}-{labels}-{draw}"


def _write_results(settings: Study) -> None:
    """All scores that are there in one table, and those of single sampling steps in another."""
    for source, target in (("cases.csv", "results.csv"), ("steps.csv", "steps.csv")):
        parts = (
            ({"method": variant.name, "labels": labels, "draw": draw}, folder / source)
            for variant, labels, draw, folder in _parts(settings)
            if (folder / "cases.csv").exists()  # which is the last that is written
        )
        gather(parts, Path(settings.out) / target)


def _nnunet(settings: Study) -> NNUNet | None:
    if not any(METHODS[name].segments == "nnunet" for name in settings.methods):
        return None
    assert settings.nnunet.python is not None
    return find_nnunet(settings.nnunet, settings.finetune.machine, Path(settings.out))


def _write_data(out: Path, dataset: Dataset, splits: Splits, shared: Run | None) -> None:
    data: dict[str, Any] = {
        "root": str(dataset.root),
        "layout": dataset.layout,
        "cases": len(dataset),
        "patients": len({case.group for case in dataset}),
        "skipped": [],
        "split": {part: list(splits.part(part)) for part in ("train", "validation", "test")},
    }
    if shared is not None:
        data["pretrained"] = str(shared.folder)
    write_json(out / "data.json", data)
