"""The study of augmentation: pools of real films x synthetic films per real one x draws, paired by draw.

    OUT/augment.yaml    settings
    OUT/drawn/...       synthetic films generated from the films of each pool, if --with names a run
    OUT/runs/...        one classifier per pool, arm and draw
    OUT/results.csv     probabilities of every test film, by pool, arm and draw
    OUT/summary.csv     AUROC per class and mean, with intervals, and the gain from synthetic films

Every part is a run that resumes, so the same command continues where it stopped.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import Augment, Classify, Generate
from ..data.dataset import Dataset
from ..data.provenance import SETTINGS as DRAWN
from ..data.splits import Splits
from ..errors import InputError
from ..evaluation.classification import CrossedAreas, columns_of
from ..evaluation.statistics import Interval
from ..system.cells import csv_text
from ..system.files import read_json, refuse_foreign, write_atomic, write_json
from ..train.cases import open_more
from ..train.classes import ClassifiedFilms, classified_films
from ..train.known import learned_images
from ..train.progress import Countdown
from ..train.run import Run
from .folder import collect, stand_pools, stand_study, study_folder

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = "augment.yaml"
REAL = "real"
MEAN = "mean"
FIXED = ("data", "with_run", "likely", "drawing", "classify")
"""Settings that cannot change after the first call; pools, ratios and draws may be added."""
COPIES = 1.25
"""How many times as many films are drawn as are left without near copies; 5 % are suspected of new patients too."""


@dataclass(frozen=True)
class Arm:
    """What a classifier is trained on: ``ratio`` synthetic films per real one, and the real ones if ``real``."""

    ratio: float
    real: bool = True

    @property
    def name(self) -> str:
        """Its name in the results."""
        if not self.ratio:
            return REAL
        return f"real+{self.ratio:g}" if self.real else f"synthetic-{self.ratio:g}"


def run_augment(
    settings: Augment, classify: Callable[[Classify], Run], generate: Callable[[Generate], Path]
) -> Path:
    """Train and test classifiers with and without synthetic films, by the commands given; returns the study folder.

    Raises:
        InputError: Data or settings that cannot be used; finished parts are kept.
    """
    base, (dataset, classes, splits), generator = open_augment(settings)
    with study_folder(settings, SETTINGS, FIXED) as out:
        most = max(settings.pools)
        pools = (splits.budget(most, draw) for draw in range(settings.draws))
        stand_study(out, dataset, splits, {*splits.validation, *splits.test}.union(*pools))
        folders = enumerate(settings.with_run if generator is None else ())
        stand_pools(out, {f"with {i}": open_more(one, base.reader) for i, one in folders})
        parts: list[tuple[dict[str, Any], Path]] = []
        arms = list(_parts(settings))
        countdown = Countdown(len(arms))
        for pool, arm, draw in arms:
            folder = out / "runs" / f"{pool}-{arm.name}-{draw}"
            if Run(folder).ended:
                countdown.skip()
            else:
                countdown.begin(f"{pool} films, {arm.name}, draw {draw}")
                films = _begun_with(folder) if arm.ratio else ()
                if arm.ratio and not films:
                    films = settings.with_run
                    if generator is not None:
                        drawn = _drawing(settings, generator, dataset, splits, pool, draw)
                        films = (str(generate(drawn)),)
                trained = replace(base, out=str(folder), labels=pool, draw=draw, with_run=films)
                if arm.ratio and settings.likely < 1:
                    judge = str(out / "runs" / f"{pool}-{REAL}-{draw}")
                    trained = replace(trained, judge=judge, likely=settings.likely)
                classify(replace(trained, ratio=arm.ratio, real=arm.real))
            parts.append(({"pool": pool, "arm": arm.name, "draw": draw}, folder / "test.csv"))
        results = collect(parts, out / "results.csv")
        assert results is not None
        summary = summarize(results, classes)
        write_atomic(out / "summary.csv", csv_text(summary))
        write_json(out / "warnings.json", _seen_by_generator(generator, dataset, splits))
    return out


def open_augment(
    settings: Augment, *, write: bool = True
) -> tuple[Classify, ClassifiedFilms, Run | None]:
    """Read and split the films, and ``write`` the splits the first time.

    Returns:
        What all classifiers have in common, the films, and the synthesizer, if ``--with`` names one.

    Raises:
        InputError: Data or settings that cannot be used, or the folder holds something else.
    """
    if not settings.with_run:
        raise InputError("--with", "is missing", "Give synthetic films or a run of synthesize")
    if not settings.pools:
        raise InputError("--pools", "is empty", "Give one number of real films or more")
    refuse_foreign(Path(settings.out), SETTINGS)
    base = replace(settings.classify, data=settings.data, draw=settings.draws - 1)
    generator, films = _generator(settings), classified_films(base, write=write)
    for folder in settings.with_run if generator is None else ():
        open_more(folder, base.reader)  # before anything is trained on real films
    films.splits.verify_budgets(settings.pools, "--pools")
    target = {case.name: case.target for case in films.dataset}
    for pool, draw in itertools.product(settings.pools, range(settings.draws)):
        there = {target[name] for name in films.splits.budget(pool, draw)}
        if missing := [name for name in films.classes if name not in there]:
            problem = f"has no film of the class {missing[0]} in draw {draw}"
            remedy = "Give larger pools, fewer --draws or another --classify.split.seed"
            raise InputError(f"--pools {pool}", problem, remedy)
    return base, films, generator


def first_parts(settings: Augment) -> tuple[Classify, Generate | None]:
    """The first classifier with synthetic films and what draws them, for a dry run: nothing is written.

    Raises:
        InputError: As ``open_augment``.
    """
    base, (dataset, _, splits), generator = open_augment(settings, write=False)
    pool = settings.pools[0]
    base = replace(base, labels=pool, draw=0)
    if generator is not None:
        return base, _drawing(settings, generator, dataset, splits, pool, 0)
    return replace(base, with_run=settings.with_run, ratio=max(settings.ratios)), None


def summarize(results: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """AUROC by pool, arm and class, and its difference to the same pool without synthetic films.

    The columns of ``results`` are pool, arm, draw, case, group, class and ``columns_of(classes)``, the probabilities.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for pool, of_pool in results.groupby("pool", sort=True):
        frames = {
            str(arm): [frame.sort_values("case") for _, frame in of_arm.groupby("draw", sort=True)]
            for arm, of_arm in of_pool.groupby("arm", sort=False)
        }
        films = frames[REAL][0]
        truth = np.array([classes.index(name) for name in films["class"]])
        number = len(frames[REAL])
        crossed = CrossedAreas(truth, list(films["group"]))
        by_arm = {
            arm: [frame[columns_of(classes)].to_numpy(np.float64) for frame in draws]
            for arm, draws in frames.items()
        }
        for arm, probabilities in by_arm.items():
            areas = crossed.intervals(probabilities)
            gains: list[Interval | None] = [None] * len(areas)
            if arm != REAL:
                gains = list(crossed.differences(probabilities, by_arm[REAL]))
            for name, area, gain in zip((*classes, MEAN), areas, gains, strict=True):
                row = {"pool": pool, "arm": arm, "class": name, "draws": number, "n": area.n}
                row |= {"auroc": area.mean, "low": area.low, "high": area.high}
                if gain is not None:
                    row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
                rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ internal


def _parts(settings: Augment) -> Iterator[tuple[int, Arm, int]]:
    """Pool, arm and draw: real films alone, each ratio, and the highest ratio without real films."""
    ratios = sorted({0.0, *settings.ratios})
    arms = [*(Arm(ratio) for ratio in ratios), *([Arm(ratios[-1], False)] if ratios[-1] else [])]
    for pool in settings.pools:
        for draw in range(settings.draws):
            for arm in arms:
                yield pool, arm, draw


def _generator(settings: Augment) -> Run | None:
    """The run that ``--with`` names, or None where it names folders of films."""
    folder = Path(settings.with_run[0])
    if not (folder / "config.yaml").is_file():
        return None
    run = Run.open(folder)
    if len(settings.with_run) > 1 or run.config.get("command") != "synthesize":
        where = f"--with {','.join(settings.with_run)}"
        problem = "is neither one run of synthesize nor folders of films"
        raise InputError(where, problem, "Give one run of radiffuse synthesize, or folders")
    return run


def _begun_with(folder: Path) -> tuple[str, ...]:
    """The synthetic films that a classifier began to learn from, with which it goes on; () where it did not begin."""
    if not (folder / "config.yaml").is_file():
        return ()
    return tuple(Run.open(folder).config["settings"].get("with_run", ()))


def _drawing(
    settings: Augment, generator: Run, dataset: Dataset, splits: Splits, pool: int, draw: int
) -> Generate:
    """Settings of films whose parents are the films of a pool, so that they need no further label.

    Where fewer or more were drawn before, for other ratios, they have a folder of their own.
    """
    names = set(splits.budget(pool, draw))
    home = dataset.root if dataset.root.is_dir() else dataset.root.parent
    paths = sorted(
        case.images[0].relative_to(home).as_posix() for case in dataset if case.name in names
    )
    only = "^(?:" + "|".join(re.escape(path) for path in paths) + ")$"
    # Every film is a parent equally often, so each class is drawn as often as it occurs; manifold draws at random.
    wanted = pool * math.ceil(max(settings.ratios) / len(settings.drawing.strategy))
    if settings.likely < 1:
        wanted = math.ceil(COPIES * wanted / settings.likely)
    if "manifold" in settings.drawing.strategy:
        wanted = math.ceil(1.3 * wanted) + 16
    out = Path(settings.out) / "drawn" / f"{pool}-{draw}"
    before = read_json(file, dict[str, Any]) if (file := out / DRAWN).is_file() else {}
    if before.get("count", wanted) != wanted:
        out = out.with_name(f"{out.name}-{wanted}")
    return Generate(
        **vars(settings.drawing),
        run=str(generator.folder),
        out=str(out),
        references=settings.data,
        count=wanted,
        seed=draw,
        reader=replace(settings.classify.reader, only=only),
        machine=settings.classify.machine,
    )


def _seen_by_generator(generator: Run | None, dataset: Dataset, splits: Splits) -> list[str]:
    """A warning if the synthesizer was trained on test films."""
    if generator is None:
        return []
    tested = {*learned_images(generator, dataset)} & {*splits.test}
    if not tested:
        return []
    return [
        f"The generator has seen {len(tested)} of the {len(splits.test)} test films, without their classes: train it "
        "on other films for a result that holds for new patients."
    ]
