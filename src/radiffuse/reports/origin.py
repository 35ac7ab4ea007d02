"""How a study was made, for its page: what repeats it, on what it ran, and what each method took."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.values import flatten
from ..system.hardware import this_machine
from ..train.log import seconds_of
from ..train.run import Run
from . import parts
from .run import format_duration

if TYPE_CHECKING:
    import pandas as pd


def origin_table(folder: Path, command: str, known: Mapping[str, str]) -> pd.DataFrame:
    """Command, version, hardware, date, time and seeds, as far as the files of a study and its runs say.

    Args:
        folder: Of the study; its trainings are in ``runs/``.
        command: That repeats it.
        known: Further rows; an empty text is left out.
    """
    import pandas as pd

    runs = _runs(folder)
    configs = [parts.read_optional(run.folder / "config.yaml") for run in runs]
    found_seeds = [flatten(one).get("settings.training.seed") for one in configs]
    seeds = sorted({seed for seed in found_seeds if isinstance(seed, int)})
    machines = {str(_measured(run)["hardware"]) for run in runs if "hardware" in _measured(run)}
    where = "hardware" if machines else "hardware, where this page was written"
    found = {
        "command": command,
        "version": ", ".join(sorted({str(one["radiffuse"]) for one in configs if "radiffuse" in one})),
        **_nnunet(folder),
        where: "; ".join(sorted(map(str, machines))) or this_machine(),
        "trained": _dates(runs),
        "training of the methods": format_duration(sum(map(seconds_of, runs))) if runs else "",
        "seeds of training": ", ".join(map(str, seeds)),
        **known,
    }  # fmt: skip
    return pd.DataFrame([row for row in found.items() if row[1]], columns=["what", "value"])


def cost_table(folder: Path) -> pd.DataFrame:
    """What a training took, a row for each method and number of labels: means over the draws.

    Columns: method, labels, trainings, steps, minutes, memory_gib; steps of nnU-Net are known where it trained for
    given hours, its memory is not. Variants that share a training, such as heads of one probing run, are one row.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for run in _runs(folder):
        if not (named := re.fullmatch(r"(.+)-(\d+)-(\d+)", run.folder.name)):
            continue
        name, labels, _ = named.groups()
        steps = max((int(row.get("step", 0)) for row in run.log()), default=None)
        took = {"seconds": seconds_of(run), "memory_gib": _measured(run).get("memory_gib")}
        rows.append({"method": name, "labels": int(labels), "steps": steps, **took})
    for path in sorted(folder.glob("nnunet/*/seconds.json")):
        if not _is_named(folder, f"nnunet-{path.parent.name}"):
            continue
        labels = int(path.parent.name.split("-")[0])
        took = {"seconds": parts.read_optional(path).get("train")}
        took |= {"steps": parts.read_optional(path.with_name("length.json")).get("iterations")}
        rows.append({"method": "nnunet", "labels": labels, **took})
    columns = ["method", "labels", "trainings", "steps", "minutes", "memory_gib"]
    if not rows:
        return pd.DataFrame(columns=columns)
    table = pd.DataFrame(rows).reindex(
        columns=["method", "labels", "steps", "seconds", "memory_gib"]
    )
    table = table.astype(dict.fromkeys(("steps", "seconds", "memory_gib"), float))
    table["minutes"] = table.pop("seconds") / 60
    groups = table.groupby(["method", "labels"], sort=False)
    return groups.mean().assign(trainings=groups.size()).reset_index()[columns]


# ------------------------------------------------------------------------------------------------ internal


def _runs(folder: Path) -> list[Run]:
    paths = (path for path in sorted(folder.glob("runs/*")) if path.is_dir())
    return [Run(path) for path in paths if _is_named(folder, path.name)]


def _is_named(folder: Path, training: str) -> bool:
    """Whether the last call of a study had use for a training; in folders of earlier versions, any."""
    named = parts.read_optional(folder / "data.json").get("trainings")
    return not isinstance(named, list) or training in named


def _measured(run: Run) -> Mapping[str, Any]:
    found = parts.read_optional(run.folder / "cost.json").get("measured")
    return found if isinstance(found, Mapping) else {}


def _dates(runs: list[Run]) -> str:
    """The first and the last day on which a training ended."""
    ended = [path.stat().st_mtime for run in runs if (path := run.folder / "log.jsonl").is_file()]
    if not ended:
        return ""
    days = {datetime.date.fromtimestamp(time).isoformat() for time in (min(ended), max(ended))}
    return " to ".join(sorted(days))


def _nnunet(folder: Path) -> dict[str, str]:
    about = parts.read_optional(folder / "nnunet" / "nnunet.json")
    return {"nnU-Net": ", ".join(f"{key} {value}" for key, value in about.items())}
