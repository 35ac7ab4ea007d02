"""The study of label efficiency: methods x label budgets x draws, on the same splits, network and training.

    OUT/study.yaml      settings of the last call
    OUT/parts.json      those of the calls before it, by the parts that were made in them
    OUT/pretrain        the pre-trained run, unless --from names one
    OUT/runs/...        one run per method, budget and draw
    OUT/scores/...      its scores, one folder per method, budget and draw
    OUT/results.csv     every score of every case, the source of further tables and the report

Every part is a run that resumes, so the same command continues where it stopped, and adds methods named later.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Data, Fit, Generate, Pretrain, Study
from ..config.given import flag
from ..data.dataset import Dataset
from ..data.issues import some
from ..data.layouts import open_dataset
from ..data.layouts.unpaired import no_labels
from ..data.prepare import cache_folder
from ..data.splits import Splits, load_splits
from ..errors import InputError
from ..inference.scoring import score_cases
from ..system.files import refuse_foreign, write_json
from ..system.saying import say
from ..train.further_images import saying_once
from ..train.progress import Countdown, duration
from ..train.run import Run
from .folder import collect, stand_study, study_folder
from .ignored import unused
from .leaks import refuse_leaks
from .methods import (
    DENOISER,
    METHODS,
    Variant,
    group_of,
    pretrainings,
    reference_of,
    trainings,
    variants,
)
from .nnunet import NNUNet, find_nnunet, score_nnunet
from .runs import StudyRuns
from .standing import refuse_other_rows

SETTINGS = "study.yaml"
FIXED = (
    "data", "unlabelled", "synthetic", "from_run", "parts", "tolerance", "ensemble", "pseudo_labels",
    "pretrain", "regressor", "finetune", "probing", "diffusion",
)  # fmt: skip
"""Settings of a study that cannot change after its first call; methods, budgets and draws may be added, see
``standing``."""


def run_study(
    settings: Study,
    pretrain: Callable[[Pretrain], Run],
    fit: Callable[[Fit], Run],
    generate: Callable[[Generate], Path],
) -> Path:
    """Train and score every method with every label budget, in every draw, by the commands given.

    Returns:
        The study folder with ``results.csv`` and, where masks were sampled in steps, ``steps.csv``.

    Raises:
        InputError: Data or settings that cannot be used; finished parts are kept.
    """
    dataset, splits, sentences = open_study(settings)
    settings = replace(settings, reference=reference_of(settings))
    names = [name for part in settings.parts for name in splits.part(part)]
    with study_folder(settings, SETTINGS, FIXED, refuse_other_rows) as out, saying_once():
        most = max(settings.labels)
        budgets = (splits.budget(most, draw) for draw in range(settings.draws))
        stand_study(
            out, dataset, splits, {*names}.union(*budgets, splits.train if settings.choices else ())
        )
        nnunet = _nnunet(settings)
        for sentence in sentences:
            say(sentence)
        runs = StudyRuns(settings, dataset, splits, pretrain, fit, generate)
        refuse_leaks(settings, dataset, splits)
        runs.refuse_timesteps()
        runs.look_at_pool()
        shared = runs.shared()
        parts = list(_parts(settings))
        countdown = Countdown(len(parts))
        for variant, labels, draw, folder in parts:
            if (folder / "cases.csv").exists():
                countdown.skip()
                continue
            budget = f"{labels} label{'s' * (labels != 1)}"
            countdown.begin(f"{budget}, draw {draw}, {variant.name}")
            if nnunet is not None and variant.row.segments == "nnunet":
                part = out / "nnunet" / f"{labels}-{draw}"
                training = splits.budget(labels, draw)
                score_nnunet(nnunet, part, dataset, training, names, folder, settings.tolerance)
            else:
                predictor = runs.predictor(variant, labels, draw)
                score_cases(
                    predictor,
                    dataset,
                    names,
                    folder,
                    settings.tolerance,
                    skip_bad=settings.finetune.reader.skip_bad,
                )
            _write_results(settings)
        _write_results(settings)
        _write_data(settings, dataset, splits, shared, sentences)
    return out


def open_study(settings: Study, *, write: bool = True) -> tuple[Dataset, Splits, list[str]]:
    """The labelled cases, their splits, which are written the first time if ``write``, and what ``verify`` says.

    Raises:
        InputError: Data or settings that cannot be used, or the folder holds something else.
    """
    sentences = verify(settings)
    refuse_foreign(Path(settings.out), SETTINGS)
    dataset = open_dataset(settings.data, settings.finetune.reader).labelled
    if not len(dataset):
        raise no_labels(settings.data)
    cache = cache_folder(settings.finetune.reader.cache)
    splits = load_splits(dataset, settings.finetune.split, cache, settings.draws - 1, write=write)
    splits.verify_budgets(settings.labels, "--labels")
    return dataset, splits, sentences


def foreseen(settings: Study) -> str:
    """What a study has to do, in words: how many trainings, and how long they take where that is given."""
    parts, own, starts = list(_parts(settings)), trainings(settings), pretrainings(settings)
    rows = dict.fromkeys(variant for variant, *_ in parts)
    before = f"{len(starts)} pre-training{'s' * (len(starts) != 1)}, then " if starts else ""
    axes = " x ".join(
        f"{count} {what}{'s' * (count != 1)}" + f" ({', '.join(names)})" * bool(names)
        for count, what, names in (
            (len(rows), "method", [row.name for row in rows]),
            (len(settings.labels), "label budget", [*map(str, settings.labels)]),
            (settings.draws, "draw", []),
        )
    )
    done = sum((folder / "cases.csv").exists() for *_, folder in parts)
    text = f"{before}{len(own)} trainings for {len(parts)} scores: {axes}"
    text += f"; {done} of the scores are there already" * bool(done)
    hours = settings.finetune.hours
    if hours and all(group_of(row) == "finetune" for row in rows):
        takes = duration(3600 * hours * len(own))
        return f"{text}; about {takes} of training, at --finetune.hours {hours:g} each"
    return f"{text}; from its second training on, the study says how long the rest takes"


def scored_besides(settings: Study) -> list[str]:
    """Scores in the study folder of methods, budgets or draws that the settings do not name: their folders' names."""
    named = {folder for *_, folder in _parts(settings)}
    found = sorted(path.parent for path in (Path(settings.out) / "scores").glob("*/cases.csv"))
    return [folder.name for folder in found if folder not in named]


def verify(settings: Study) -> list[str]:
    """Sentences that name each setting that some methods do not use.

    Raises:
        InputError: Settings that cannot be compared, or that no method uses; it names the setting.
    """
    known = ", ".join(METHODS)
    for name in settings.methods:
        if name not in METHODS:
            close = difflib.get_close_matches(name, METHODS, n=1)
            remedy = "".join(f"Did you mean {one}? " for one in close) + f"Methods are {known}"
            raise InputError(f"--methods {name}", "is not a method", remedy)
    if "ensemble" in settings.methods:
        legal = [name for name, row in METHODS.items() if row.fit]
        if len(settings.ensemble) < 2 or not set(settings.ensemble) <= set(legal):
            where, problem = (
                f"--ensemble {','.join(settings.ensemble)}",
                "does not name two or more methods",
            )
            raise InputError(where, problem, "Give some such as none,recycle")
    for name in settings.methods:
        for member in settings.ensemble if name == "ensemble" else (name,):
            _verify_needs(settings, member)
    if not settings.methods:
        raise InputError("--methods", "names none", f"Methods are {known}")
    _verify_readers(settings)
    rows = [variant.name for variant in variants(settings)]
    if (reference := reference_of(settings)) not in rows:
        problem = f"is not among the methods, whose rows are {some(rows)}"
        raise InputError(
            f"--reference {reference}", problem, "Name one of them, or add it to --methods"
        )
    if settings.draws < 1 or not settings.labels:
        raise InputError("--draws", "leaves nothing to do", "Give at least one draw and one budget")
    return unused(settings)


# ------------------------------------------------------------------------------------------------ internal


def _verify_readers(settings: Study) -> None:
    """Refuse a group of settings that reads the labelled images in another way: their runs would learn other cases."""
    common, usual = settings.finetune.reader, Data()
    for group in ("probing", "diffusion"):
        for name, value in vars(getattr(settings, group).reader).items():
            if name in ("cache", "skip_bad") or value in (
                getattr(usual, name),
                getattr(common, name),
            ):
                continue
            where, every = f"--{group}.reader.{flag(name)}", f"--finetune.reader.{flag(name)}"
            problem = f"differs from {every}, by which all methods read the labelled images"
            raise InputError(where, problem, f"Leave it out, or give it as {every}")


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
            row.pool in ("unlabelled", "pairs") and not settings.unlabelled,
            "learns from unlabelled images",
            "Give --unlabelled",
        ),
        (
            row.fit == "dino" and not settings.finetune.encoder,
            "needs a DINO encoder",
            "Give it with --finetune.encoder",
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
    """All scores so far in one table, and those of single sampling steps in another."""
    for source, target in (("cases.csv", "results.csv"), ("steps.csv", "steps.csv")):
        parts = (
            ({"method": variant.name, "labels": labels, "draw": draw}, folder / source)
            for variant, labels, draw, folder in _parts(settings)
            if (folder / "cases.csv").exists()  # which is written last
        )
        collect(parts, Path(settings.out) / target)


def _nnunet(settings: Study) -> NNUNet | None:
    if not any(METHODS[name].segments == "nnunet" for name in settings.methods):
        return None
    assert settings.nnunet.python is not None
    fit = settings.finetune
    return find_nnunet(settings.nnunet, fit.machine, Path(settings.out), fit.hours)


def _write_data(
    settings: Study, dataset: Dataset, splits: Splits, shared: Run | None, sentences: Sequence[str]
) -> None:
    data: dict[str, Any] = {
        "root": str(dataset.root.absolute()),
        "layout": dataset.layout,
        "cases": len(dataset),
        "patients": len({case.group for case in dataset}),
        "patients_named": dataset.patients_named,
        "skipped": [],
        "unused": list(sentences),
        "split": {part: list(splits.part(part)) for part in ("train", "validation", "test")},
        "trainings": trainings(settings),
    }
    if shared is not None:
        data["pretrained"] = str(shared.folder)
    write_json(Path(settings.out) / "data.json", data)
    if others := scored_besides(settings):
        which = f"{some(others)}, scored by earlier calls (method-labels-draw)"
        say(f"the tables leave out {which}: name these too to have them back")
