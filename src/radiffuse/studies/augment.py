"""The study of augmentation: pools of real films x synthetic films per real one x draws, paired by draw.

    OUT/augment.yaml    settings
    OUT/drawn/...       synthetic films drawn from the films of each pool, where --with names a run
    OUT/runs/...        one classifier per pool, arm and draw
    OUT/results.csv     probabilities of every test film, by pool, arm and draw
    OUT/summary.csv     AUROC per class and mean, with intervals, and what synthetic films add to them

Every part is a run that resumes, so the same command goes on where it stopped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..commands.classify import class_names, class_splits, classify, read_classes
from ..config import Augment, Classify, Generate
from ..config.values import completed, to_dict
from ..data.dataset import Case, Dataset
from ..data.splits import Splits
from ..errors import InputError
from ..evaluation.classification import CrossedBootstrap
from ..evaluation.statistics import Interval
from ..reports.augment import write_augment_report
from ..system.files import locked, make_folder, read_yaml, write_atomic, write_json
from ..train.run import Run

if TYPE_CHECKING:
    import pandas as pd

REAL = "real"
MEAN = "mean"


@dataclass(frozen=True)
class Arm:
    """What a classifier is trained on.

    Attributes:
        ratio: Synthetic films per real one.
        real: Whether the real ones are there too.
    """

    ratio: float
    real: bool = True

    @property
    def name(self) -> str:
        """As the results call it."""
        if not self.ratio:
            return REAL
        return f"real+{self.ratio:g}" if self.real else f"synthetic-{self.ratio:g}"


def arms(settings: Augment) -> list[Arm]:
    """Real alone, each ratio, and the highest ratio without real films."""
    ratios = sorted({0.0, *settings.ratios})
    return [*(Arm(ratio) for ratio in ratios), *([Arm(ratios[-1], False)] if ratios[-1] else [])]


def augment(settings: Augment) -> Path:
    """Train and test classifiers with and without synthetic films.

    Args:
        settings: See ``radiffuse.config.Augment``.

    Returns:
        The study folder.

    Raises:
        InputError: Data or settings that cannot be used; what was finished is kept.
    """
    import pandas as pd

    if not settings.with_run:
        raise InputError("--with", "is missing", "Give synthetic films or a run of synthesize")
    if not settings.pools:
        raise InputError("--pools", "is empty", "Give one number of real films or more")
    out = Path(settings.out)
    base = replace(settings.classify, data=settings.data, draw=settings.draws - 1)
    dataset = read_classes(base)
    splits = class_splits(dataset, base)
    for pool in settings.pools:
        splits.budget(pool, 0)
    make_folder(out)
    with locked(out):
        _refuse_other(settings, out / "augment.yaml")
        write_atomic(out / "augment.yaml", yaml.safe_dump(to_dict(settings), sort_keys=False))
        warnings = _seen_by_generator(settings, dataset, splits)
        frames = []
        for pool, arm, draw in _parts(settings):
            folders = settings.with_run
            if arm.ratio and (run := _generator(settings)) is not None:
                folders = (str(_drawn(settings, run, dataset, splits, pool, draw)),)
            frame = _tested(base, out, folders, pool, arm, draw)
            for name, value in (("draw", draw), ("arm", arm.name), ("pool", pool)):
                frame.insert(0, name, value)
            frames.append(frame)
        results = pd.concat(frames)
        write_atomic(out / "results.csv", results.to_csv(index=False))
        summary = summarize(results, class_names(dataset), samples=settings.samples)
        write_atomic(out / "summary.csv", summary.to_csv(index=False))
        write_json(out / "warnings.json", warnings)
        print(f"report: {write_augment_report(out)}")
    return out


def summarize(results: pd.DataFrame, classes: tuple[str, ...], *, samples: int) -> pd.DataFrame:
    """AUROC by pool, arm and class, and its difference to the same pool without synthetic films.

    Args:
        results: Columns pool, arm, draw, case, group, class and one of probabilities for each class.
        classes: Their names.
        samples: Bootstrap samples.
    """
    import numpy as np
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for pool, of_pool in results.groupby("pool", sort=True):
        by_arm = {}
        truth, groups = None, None
        for arm, of_arm in of_pool.groupby("arm", sort=False):
            draws = [frame.sort_values("case") for _, frame in of_arm.groupby("draw", sort=True)]
            by_arm[str(arm)] = [frame[list(classes)].to_numpy(np.float64) for frame in draws]
            truth = np.array([classes.index(name) for name in draws[0]["class"]])
            groups = list(draws[0]["group"])
        assert truth is not None
        assert groups is not None
        number = len(by_arm[REAL])
        bootstrap = CrossedBootstrap(truth, groups, number, samples=samples)
        for arm, probabilities in by_arm.items():
            found = bootstrap.intervals(probabilities)
            gained: list[Interval | None] = [None] * len(found)
            if arm != REAL:
                gained = list(bootstrap.differences(probabilities, by_arm[REAL]))
            for name, area, gain in zip((*classes, MEAN), found, gained, strict=True):
                row = {"pool": pool, "arm": arm, "class": name, "draws": number, "n": area.n}
                row |= {"auroc": area.mean, "low": area.low, "high": area.high}
                if gain is not None:
                    row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
                rows.append(row)
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ internal


def _tested(
    base: Classify, out: Path, folders: tuple[str, ...], pool: int, arm: Arm, draw: int
) -> pd.DataFrame:
    """Probabilities of the test films by a classifier of an arm, which is trained if it is not there yet."""
    import pandas as pd

    folder = out / "runs" / f"{pool}-{arm.name}-{draw}"
    if not Run(folder).ended:
        synthetic = folders if arm.ratio else ()
        of_arm = replace(base, with_run=synthetic, ratio=arm.ratio, real=arm.real)
        classify(replace(of_arm, out=str(folder), labels=pool, draw=draw))
    return pd.read_csv(folder / "test.csv", dtype={"case": str, "group": str, "class": str})


def _parts(settings: Augment) -> Iterator[tuple[int, Arm, int]]:
    for pool in settings.pools:
        for draw in range(settings.draws):
            for arm in arms(settings):
                yield pool, arm, draw


def _generator(settings: Augment) -> Run | None:
    """The run that ``--with`` names, or None where it names folders of films."""
    folder = Path(settings.with_run[0])
    if not (folder / "config.yaml").is_file():
        return None
    run = Run.open(folder)
    if len(settings.with_run) > 1 or run.config.get("command") != "synthesize":
        raise InputError(
            f"--with {','.join(settings.with_run)}",
            "is neither one run of synthesize nor folders of films",
            "Give one run of radiffuse synthesize, or folders",
        )
    return run


def _drawn(
    settings: Augment, run: Run, dataset: Dataset, splits: Splits, pool: int, draw: int
) -> Path:
    """Synthetic films whose parents are the films of this pool, so that they cost no further label."""
    from ..commands.generate import generate

    out = Path(settings.out) / "drawn" / f"{pool}-{draw}"
    names = set(splits.budget(pool, draw))
    paths = sorted(_path(case, dataset) for case in dataset if case.name in names)
    only = "^(?:" + "|".join(re.escape(path) for path in paths) + ")$"
    # Each film is parent equally often, so every class gets its share; manifold draws classes at random.
    wanted = pool * math.ceil(max(settings.ratios) / len(settings.drawing.strategy))
    if "manifold" in settings.drawing.strategy:
        wanted = math.ceil(1.3 * wanted) + 16
    generate(
        Generate(
            **vars(settings.drawing),
            run=str(run.folder),
            out=str(out),
            references=settings.data,
            count=wanted,
            seed=draw,
            reader=replace(settings.classify.reader, only=only),
            machine=settings.classify.machine,
        )
    )
    return out


def _path(case: Case, dataset: Dataset) -> str:
    home = dataset.root if dataset.root.is_dir() else dataset.root.parent
    return case.images[0].relative_to(home).as_posix()


def _seen_by_generator(settings: Augment, dataset: Dataset, splits: Splits) -> list[str]:
    run = _generator(settings)
    if run is None or Path(run.data.get("root", "")).resolve() != dataset.root.resolve():
        return []
    tested = set(splits.test) - set(run.data.get("split", {}).get("validation", ()))
    return [
        f"The generator has seen {len(tested)} of the {len(splits.test)} test films, without their classes: train it "
        "on other films for a result that holds for new patients."
    ]


def _refuse_other(settings: Augment, path: Path) -> None:
    """Refuse to mix runs of other settings into a study; pools, ratios and draws may be added."""
    if not path.exists():
        return
    before = completed(to_dict(Augment()), read_yaml(path))
    now = to_dict(settings)
    free = ("machine", "reader")
    for key in ("data", "with_run", "drawing", "classify"):
        old, new = (
            {k: v for k, v in group.items() if k not in free} if isinstance(group, dict) else group
            for group in (before.get(key), now[key])
        )
        if _plain(old) != _plain(new):
            raise InputError(
                path, f"was written with other settings of {key}", "Choose another --out"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
