"""``radiffuse select``: which scans of a pool to label next."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..config import Select
from ..config.given import refuse_given
from ..data.dataset import Case, Dataset
from ..data.layouts import open_dataset
from ..data.layouts.doubts import CHOSEN
from ..errors import InputError, printable
from ..inference.predictor import Predictor
from ..inference.selection import (
    SelectedScan,
    choose_typical,
    choose_uncertain,
    labelled_of,
    verify_count,
    warn_of_names,
    without_labelled,
)
from ..objectives import start_for
from ..system.cells import csv_text
from ..system.files import PARTIAL, write_atomic
from ..train.device import local_device
from ..train.start import find_pretrained, verify_kind


@dataclass(frozen=True)
class Opened:
    """What scans are chosen from, and by.

    Attributes:
        pool: All scans.
        cases: Those without labels.
        choose: Chooses from them.
        how: In a few words.
    """

    pool: Dataset
    cases: Dataset
    choose: Callable[[], list[SelectedScan]]
    how: str


def select(settings: Select) -> Path:
    """Choose the scans that are best labelled next, and list them.

    Returns:
        The table with the columns place, case, file (relative to the pool) and why.

    Raises:
        InputError: Pool or run cannot be used, the pool has too few scans without labels, or ``--out`` is another file.
    """
    import pandas as pd

    out, opened = Path(settings.out), open_pool(settings)
    pool, cases = opened.pool, opened.cases
    home = pool.root if pool.root.is_dir() else pool.root.parent
    chosen = enumerate(opened.choose(), start=1)
    rows = [(i, one.case.name, _file(one.case, home), one.why) for i, one in chosen]
    for left in out.parent.glob(f".{glob.escape(out.name)}.*{PARTIAL}"):  # by one that was killed
        left.unlink(missing_ok=True)
    write_atomic(out, csv_text(pd.DataFrame(rows, columns=list(CHOSEN))))
    without = f" ({len(pool) - len(cases)} have labels)" if len(cases) < len(pool) else ""
    print(printable(f"{len(rows)} of {len(pool)} scans{without} to label, in this order: {out}"))
    print(printable(opened.how))
    for row in rows:
        print(printable(f"{row[0]:>4}  {row[2]}  {row[3]}"))
    return out


def open_pool(settings: Select) -> Opened:
    """Open pool, run and device; nothing is written.

    Raises:
        InputError: As ``select``.
    """
    _verify_out(Path(settings.out))
    pool = open_dataset(settings.data, settings.reader)
    run = find_pretrained(settings.from_run) if settings.from_run else None
    if run is not None:
        verify_kind(pool, run, mixed=settings.reader.skip_bad)
    try:
        known = labelled_of(run)
    except InputError as error:
        line = (
            f"{settings.from_run}: which scans of the pool it has labels for is not known: {error}"
        )
        print(f"radiffuse: {line}", file=sys.stderr)
        known = []
    cases, labelled = without_labelled(pool, [case for one in known for case in one])
    verify_count(settings.count, len(cases), len(pool) - len(cases))
    options: dict[str, Any] = {"seed": settings.seed, "skip_bad": settings.reader.skip_bad}
    if run is not None and run.plan.classes:
        options["predictor"] = Predictor.open([run], settings.machine)
        options["labels"] = len(run.data.get("split", {}).get("train", ()))
        patients = {case.group for case in labelled}
        warn_of_names(cases, known)
        by = partial(choose_uncertain, cases, patients, settings.count, **options)
        how = (
            f"{settings.from_run} is uncertain about them, most about the first"
            f"{', the classes in turn' * (len(run.plan.classes) > 2)}; 0 is sure, 1 is a guess"
        )
    else:
        unused = "machine.channels_last"
        if settings.machine.precision == "bf16-mixed":
            unused += " machine.precision"
        refuse_given(settings, Select(), unused, "no segmenter is given with --from")
        options["start"], name = start_for(cases, settings.from_run)
        options["device"] = local_device(settings.machine).device
        by = partial(choose_typical, cases, labelled, settings.count, **options)
        how = f"typical of many scans and unlike each other by {name}; the first stands for most"
    return Opened(pool, cases, by, how)


# ------------------------------------------------------------------------------------------------ internal


def _file(case: Case, home: Path) -> str:
    path = case.images[0]
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def _verify_out(out: Path) -> None:
    if out.is_dir() or not out.name.lower().endswith(".csv"):
        raise InputError(f"--out {out}", "is not the name of a CSV file", "Write such as next.csv")
    if out.is_file() and not out.read_bytes().startswith(",".join(CHOSEN).encode()):
        raise InputError(out, "is there, and is no list of this command", "Choose another --out")
