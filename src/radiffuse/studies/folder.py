"""What every study folder has: fixed settings, a lock, and tables gathered from its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..config.values import completed, to_dict
from ..errors import InputError
from ..evaluation.tables import read_scores
from ..system.files import locked, make_folder, read_yaml, write_atomic

if TYPE_CHECKING:
    import pandas as pd

FREE = ("machine", "reader")
"""Subgroups of settings that may change, since no result depends on them."""


@contextmanager
def study_folder(settings: Any, name: str, fixed: Sequence[str]) -> Iterator[Path]:
    """Lock a study folder, with the settings written into it.

    Args:
        settings: Of the study; ``out`` is the folder.
        name: Of the file of settings.
        fixed: Settings that may not change after the first call; the others may.

    Raises:
        InputError: The folder holds a study of other settings, cannot be written, or is in use.
    """
    out = Path(settings.out)
    make_folder(out)
    with locked(out):
        if (out / name).exists():
            _refuse_other(settings, out / name, fixed)
        write_atomic(out / name, yaml.safe_dump(to_dict(settings), sort_keys=False))
        yield out


def gather(parts: Iterable[tuple[Mapping[str, Any], Path]], target: Path) -> pd.DataFrame | None:
    """Write the tables of all parts as one.

    Args:
        parts: The columns that identify a part, which come first, and the path of its table, if it exists yet.
        target: The whole table; not written if no part has one.
    """
    import pandas as pd

    frames = []
    for columns, path in parts:
        if path.exists():
            frame = read_scores(path)
            for i, (name, value) in enumerate(columns.items()):
                frame.insert(i, name, value)
            frames.append(frame)
    if not frames:
        return None
    table = pd.concat(frames)
    write_atomic(target, table.to_csv(index=False))
    return table


def _refuse_other(settings: Any, path: Path, fixed: Sequence[str]) -> None:
    written, default, now = read_yaml(path), to_dict(type(settings)()), to_dict(settings)
    remedy = "Choose another --out"
    if set(written) - set(default):
        raise InputError(path, "was written by another version of radiffuse", remedy)
    before = completed(default, written)
    for key in fixed:
        old, new = (
            {k: v for k, v in value.items() if k not in FREE} if isinstance(value, dict) else value
            for value in (before[key], now[key])
        )
        if old != new:
            raise InputError(path, f"was written with other settings of {key}", remedy)
