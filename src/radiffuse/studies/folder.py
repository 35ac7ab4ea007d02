"""What every study folder has: fixed settings, a lock, and tables collected from its parts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import yaml

from ..config.effect import effective, idle
from ..config.given import flag, written
from ..config.values import completed, flatten, from_dict, to_dict
from ..data.dataset import Dataset
from ..data.splits import Splits
from ..errors import InputError, damaged
from ..evaluation.tables import read_table
from ..system.cells import csv_text
from ..system.files import (
    locked,
    make_folder,
    read_json,
    read_yaml,
    refuse_foreign,
    write_atomic,
    write_json,
)
from ..train.run import Run
from ..train.unchanged import (
    digests_of_files,
    require_same_cases,
    require_same_names,
    require_same_splits,
)

if TYPE_CHECKING:
    import pandas as pd

PARTS = "parts.json"
"""In a study folder: which parts were made in which call before the last one, with its settings."""
MADE = {
    "scores/*/cases.csv": 0, "runs/*/state/step-*": 1, "runs/*/model/config.json": 1,
    "*/state/step-*": 1, "*/model/config.json": 1,
}  # fmt: skip
"""What shows that a part was trained or scored, and how many folders above it the part is."""
FREE = ("machine.", "reader.", "training.keep_state")
"""What may change of a group of settings, since no result depends on it."""


class Call(TypedDict):
    """A call of a study: its settings, and the parts of the study that were made in it."""

    settings: dict[str, Any]
    parts: list[str]


@contextmanager
def study_folder(
    settings: Any,
    name: str,
    fixed: Sequence[str],
    verify: Callable[[Any, Any, Path], object] = lambda *_: None,
) -> Iterator[Path]:
    """Lock a study folder, with the settings written into it.

    A part that is there stands, so the settings are held against those that it was made by, and those of the last call.

    Args:
        settings: Of the study; ``out`` is the folder.
        name: Of the file of settings.
        fixed: Settings that may not change after the first call; the others may.
        verify: Refuses others of those, of a call before and of this one, by the path of the file that has them.

    Raises:
        InputError: The folder holds a study of other settings, cannot be written, or is in use.
    """
    out = Path(settings.out)
    refuse_foreign(out, name)
    make_folder(out)
    with locked(out):
        if (out / name).exists():
            last = read_yaml(out / name)
            _refuse_other(settings, last, out / name, "was written", fixed, verify)
            for call in _calls(out, last):
                made = f"has {call['parts'][0]}, made"
                _refuse_other(settings, call["settings"], out / PARTS, made, fixed, verify)
        write_atomic(out / name, yaml.safe_dump(effective(settings), sort_keys=False))
        yield out


def stand_study(out: Path, dataset: Dataset, splits: Splits, used: Collection[str]) -> None:
    """Record cases and splits in a study folder; once a part was trained or scored there, they stand.

    Args:
        out: The study folder.
        dataset: All cases.
        splits: Their parts.
        used: Cases that are trained on or scored, of which the files count.

    Raises:
        InputError: The study was begun with other cases or another split.
    """
    made = ("runs/*/state/step-*", "runs/*/model/config.json", "scores/*/cases.csv")
    trained = any(any(out.glob(pattern)) for pattern in made)
    require_same_names(out, (case.name for case in dataset), trained=trained)
    require_same_splits(out, splits, trained=trained)
    require_same_cases(out, {"cases": digests_of_files(dataset, used)}, trained=trained, grows=True)


def stand_pools(out: Path, pools: Mapping[str, Dataset]) -> None:
    """Record which images the pools of a study hold; once anything was trained there, they stand.

    Args:
        out: The study folder.
        pools: By a name of their own.

    Raises:
        InputError: Names what came and what went.
    """
    runs = (path for pattern in ("*", "runs/*") for path in out.glob(f"{pattern}/config.yaml"))
    trained = any(Run(path.parent).trained for path in runs)
    groups = {name: dict.fromkeys((case.name for case in pool), "") for name, pool in pools.items()}
    require_same_cases(out, groups, trained=trained)


def collect(parts: Iterable[tuple[Mapping[str, Any], Path]], target: Path) -> pd.DataFrame | None:
    """Write the tables of all parts as one.

    Args:
        parts: The columns that identify a part, which come first, and the path of its table, if it exists yet.
        target: The whole table; not written if no part has one.
    """
    import pandas as pd

    frames = []
    for columns, path in parts:
        if path.exists():
            frame = read_table(path, "case")
            for i, (name, value) in enumerate(columns.items()):
                frame.insert(i, name, value)
            frames.append(frame)
    if not frames:
        return None
    table = pd.concat(frames)
    write_atomic(target, csv_text(table))
    return table


def _calls(out: Path, last: dict[str, Any]) -> list[Call]:
    """The calls that made the parts that are there: those that are not recorded yet were made in the ``last`` one."""
    found = (path.parents[above] for pattern, above in MADE.items() for path in out.glob(pattern))
    there = {path.relative_to(out).as_posix() for path in found}
    calls: list[Call] = read_json(out / PARTS, list[Call]) if (out / PARTS).is_file() else []
    new = there.difference(*(call["parts"] for call in calls))
    if last not in [call["settings"] for call in calls]:
        calls.append(Call(settings=last, parts=[]))
    for call in calls:
        call["parts"] = sorted(there & {*call["parts"], *(new if call["settings"] == last else ())})
    calls = [call for call in calls if call["parts"]]
    write_json(out / PARTS, calls)
    return calls


def _refuse_other(
    settings: Any,
    stored: dict[str, Any],
    path: Path,
    made: str,
    fixed: Sequence[str],
    verify: Callable[[Any, Any, Path], object],
) -> None:
    default, now = to_dict(type(settings)()), to_dict(settings)
    remedy = "Choose another --out"
    if set(stored) - set(default):
        raise InputError(path, "was written by another version of radiffuse", remedy)
    before = completed(default, stored)
    # What took no effect may be given when methods that use it are added.
    with damaged(path):
        former = from_dict(type(settings), before)
        free = idle(former).keys()
    for key in [key for key in fixed if key not in free]:
        old, new = (
            {k: v for k, v in flatten(value).items() if not k.startswith(FREE)}
            if isinstance(value, dict)
            else value
            for value in (before[key], now[key])
        )
        if old != new:
            problem = f"{made} with other settings of {key}"
            if isinstance(old, dict) and isinstance(new, dict):
                name = next(k for k in (*old, *new) if old.get(k) != new.get(k))
                problem += f": {name} was {written(old.get(name))} and is {written(new.get(name))}"
                word, value = f"--{key.replace('_', '-')}.{flag(name)}", old.get(name)
                again = f"Leave out {word}" if value is None else f"Give {word} {written(value)}"
                remedy = f"{again} to go on, or choose another --out"
            raise InputError(path, problem, remedy)
    verify(former, settings, path)
