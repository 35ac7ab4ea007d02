"""The reports of one run (what it learned, from what, how well, with which settings) and of one evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ..data.arrays import read_arrays
from ..data.dataset import counted_patients
from ..data.readers import read_scan
from ..data.scan import Array
from ..errors import RunError, damaged
from ..evaluation.tables import METRIC_NAMES, SIZES, read_table
from ..inference.expecting import COLUMN, of_new_scans
from ..system.files import read_json
from ..train.members import trainings_of
from ..train.run import CHOICE, Run
from .figures import loss_curves, losses_by_quarter, timestep_curves, validation_scores
from .html import Report, format_value
from .parts import (
    data_section,
    of_folder,
    plan_section,
    read_optional,
    scores_section,
    settings_section,
)
from .pictures import coordinate_figure, sample_grid, to_uint8

if TYPE_CHECKING:
    import pandas as pd

Log = Sequence[Mapping[str, Any]]


class Chosen(TypedDict, total=False):
    """What a report shows of ``choice.json``, see ``automatic.record``."""

    decisions: list[str]
    outlook: str
    left_out: dict[str, str]
    passed_over: dict[str, str]
    seconds: float
    hours: float


SHOWN_SAMPLES = 64
"""Most samples that a report shows."""
SHOWN_DOUBTS = 20
"""Most structures of cases that are listed as uncertain."""
SHOWN_CASES = 50
"""Most cases that the table of an evaluation lists."""


@of_folder
def write_run_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from whatever of a run it holds.

    Read are ``config.yaml``, ``plan.json``, ``log.jsonl``, ``data.json``, ``samples/*.png`` or
    ``samples.npy`` (uint8 ``(N, H, W)``), ``validation/``, ``sweep.csv``, ``coordinates.npz`` and ``landmarks.csv``;
    a part that is missing leaves its section out.

    Args:
        folder: Folder of a run, finished or not.

    Returns:
        Path of the report.

    Raises:
        RunError: The folder does not exist, or holds nothing of a run.
        InputError: A file of it is damaged, or the report cannot be written.
    """
    if not folder.is_dir():
        raise RunError(folder, "no such run folder", "Give the folder that --out named")
    config = read_optional(folder / "config.yaml")
    log = Run(folder).log()
    data = read_optional(folder / "data.json")
    if not (config or log or data or (folder / "validation" / "cases.csv").is_file()):
        raise RunError(folder, "holds nothing of a run", "Give the folder that --out named")
    command = config.get("command")
    report = Report(folder.resolve().name, f"radiffuse {command}" if command else "A radiffuse run")
    _facts(report, log, data, folder)
    report.fill(
        {
            "Choice": lambda: _choice(report, folder),
            "Validation": lambda: scores_section(report, folder / "validation"),
            "Where it is uncertain": lambda: _uncertain(report, folder / "validation"),
            "Heads": lambda: _heads(report, folder / "sweep.csv"),
            "Samples": lambda: _samples(report, folder),
            "Coordinates": lambda: _coordinates(report, folder),
            "Training": lambda: _trainings(report, folder),
            "Plan": lambda: plan_section(report, folder),
            "Data": lambda: data_section(report, data),
            "Settings": lambda: settings_section(report, folder),
        }
    )
    return report.save(folder / "report.html")


@of_folder
def write_evaluation_report(folder: Path) -> Path:
    """Write ``report.html`` beside the ``cases.csv`` of an evaluation (and its ``overlays.npz``).

    Args:
        folder: Folder of the evaluation; its ``classes.csv`` and ``data.json`` are shown where there are any.

    Returns:
        Path of the report.

    Raises:
        InputError: ``cases.csv`` is missing or damaged, or the report cannot be written.
    """
    table = read_table(folder / "cases.csv", "case", "class", "dice")
    number = table["case"].nunique()
    report = Report(folder.resolve().name, f"Evaluation: {number} cases against the truth")
    report.fill(
        {
            "Scores": lambda: scores_section(report, folder),
            "Classes by name": lambda: _matched(report, folder / "classes.csv"),
            "Cases": lambda: _worst_first(report, table, number),
            "Data": lambda: data_section(report, read_optional(folder / "data.json")),
            "What was scored": lambda: _scored(report, read_optional(folder / "evaluation.json")),
        }
    )
    return report.save(folder / "report.html")


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest that apply.

    Args:
        seconds: Time, at least 0.
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{format_value(whole)} s"


# ------------------------------------------------------------------------------------------------ of a run


def _facts(report: Report, log: Log, data: Mapping[str, Any], folder: Path) -> None:
    facts: dict[str, object] = {}
    if (folder / CHOICE).is_file():
        facts["Dice to expect of new scans"] = _expected(folder) or "not measured"
        chosen: Chosen = read_json(folder / CHOICE, Chosen)
        if "seconds" in chosen and "hours" in chosen:
            took, given = chosen["seconds"] / 60, 60 * chosen["hours"]
            facts["Time taken, and given"] = f"{took:.1f} of {given:.1f} min"
    trained = [row for row in log if "loss" in row]
    if trained:
        facts["Steps"] = int(trained[-1]["step"])
        facts["Last loss"] = trained[-1]["loss"]
    for name, points in list(validation_scores(log).items())[:1]:
        facts[f"Best validation {METRIC_NAMES.get(name, name)}"] = max(value for _, value in points)
    for row in log:
        if "kept" in row:
            facts["Weights of step"] = row["kept"]
    if trained and trained[-1].get("images"):
        facts["Images seen"] = f"{trained[-1]['images']:,}"
    if seconds := [r["seconds"] for r in log if isinstance(r.get("seconds"), int | float)]:
        facts["Training time"] = format_duration(float(seconds[-1]))
    if speeds := [row["images_per_second"] for row in trained if row.get("images_per_second")]:
        facts["Images per second"] = f"{float(np.median(speeds)):.3g}"
    if (cases := data.get("cases")) is not None:
        facts["Cases"] = cases if isinstance(cases, int | str) else len(cases)
    if data.get("patients") is not None:
        facts["Patients"] = counted_patients(data).partition(" ")[0]  # more is said under Data
    if facts:
        report.facts(facts)


def _expected(folder: Path) -> str:
    """The Dice to expect of a scan like the labelled ones; '' where no case was held back to measure it."""
    path = folder / "validation" / "cases.csv"
    if not path.is_file():
        return ""
    found, _ = of_new_scans(read_table(path, "case", "group", "dice"))
    return f"{found.dice:.3f} ({found.low:.3f} to {found.high:.3f})" if found else ""


def _choice(report: Report, folder: Path) -> None:
    """What an automatic choice tried, what it decided, and why."""
    from ..automatic.outlook import CURVE
    from ..automatic.record import TABLE, by_reason

    if not (folder / CHOICE).is_file():
        return
    content: Chosen = read_json(folder / CHOICE, Chosen)
    sentences = filter(None, [*content.get("decisions", ()), content.get("outlook", "")])
    report.text(*(f"{one[0].upper()}{one[1:].rstrip('.')}." for one in sentences))
    if (folder / TABLE).is_file():
        table = read_table(folder / TABLE, "candidate", "steps", "dice", "nsd")
        named = table.rename(columns={"dice": "Dice", "nsd": "surface Dice"})
        report.table(
            named.sort_values("Dice", ascending=False, kind="stable"),
            "What was tried, on cases that were left out of the training; minutes of all folds",
        )
    if (folder / CURVE).is_file():
        report.table(
            read_table(folder / CURVE, "labels", "dice", "low", "high").rename(
                columns={"dice": "Dice"}
            ),
            "Mean Dice by the number of labels: measured in the folds, then as the curve goes on; 95 % intervals",
        )
    untried = content.get("left_out", {}) | content.get("passed_over", {})
    for why, names in by_reason(untried).items():
        report.details(f"Not tried: {', '.join(names)}", why)


def _uncertain(report: Report, folder: Path) -> None:
    """Structures of left-out cases by the Dice that their own probabilities expect, which only a choice has."""
    if not (folder / "cases.csv").is_file():
        return
    table = read_table(folder / "cases.csv", "case", "class", "dice")
    if COLUMN not in table or table[COLUMN].isna().all():
        return
    known = table[table[COLUMN].notna()].sort_values(COLUMN, kind="stable")
    shown = known[["case", "class", COLUMN, "dice"]].head(SHOWN_DOUBTS)
    report.table(
        shown.rename(columns={COLUMN: "expected Dice", "dice": "Dice found"}),
        f"The most uncertain {len(shown)} of {len(known)} structures in cases that were left out of the training. The "
        "Dice that the probabilities themselves expect is usually too high; predict corrects it by these cases. Maps "
        "of one scan: predict --uncertainty",
    )


def _heads(report: Report, path: Path) -> None:
    """Dice of every head of a probed network, and the timestep curve where timesteps were swept over."""
    if not path.is_file():
        return
    table = read_table(path, "head", "kind", "timesteps", "levels", "case", "class", "size", "dice")
    wide = table.pivot_table(index="head", columns="size", values="dice", sort=False)
    wide = wide[[name for name in SIZES if name in wide]]
    wide.insert(0, "all", table.groupby("head", sort=False)["dice"].mean())
    report.table(
        wide.reset_index().rename_axis(columns=None),
        "Mean validation Dice of each head, over all structures and by their size",
    )
    single = table[table["head"].str.contains("@t=", regex=False)]  # heads that a sweep added
    if len(single):
        kind = single["kind"].iloc[0]
        shown = single[single["kind"] == kind]
        report.figure(
            timestep_curves(shown.assign(timestep=shown["timesteps"].map(_place))),
            f"Dice of the {kind} head on the features of one timestep alone, by size of the structures",
        )


def _place(timestep: object) -> int:
    """Of a timestep along an axis: the clean image comes first."""
    return -1 if timestep == "clean" else int(str(timestep))


def _samples(report: Report, folder: Path) -> None:
    stack, files = folder / "samples.npy", sorted((folder / "samples").glob("*.png"))
    caption = "{} of {} images drawn from the model, not selected"
    if stack.is_file():
        with damaged(stack, "Remove it, or sample again"):
            images = read_arrays(stack)["array"]
            number = len(images)
            grid = sample_grid(images[:SHOWN_SAMPLES])
        report.figure(grid, caption.format(min(number, SHOWN_SAMPLES), number))
    elif files:
        shown = files[:SHOWN_SAMPLES]
        report.images(map(_read_png, shown), caption.format(len(shown), len(files)))


def _read_png(path: Path) -> Array:
    array = read_scan(path).array
    return to_uint8(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))


def _coordinates(report: Report, folder: Path) -> None:
    if not (folder / "coordinates.npz").is_file():
        return
    caption = "A scan that was not trained on, and its body coordinates along each axis"
    report.figure(coordinate_figure(folder / "coordinates.npz"), caption)
    if (folder / "landmarks.csv").is_file():
        table = read_table(folder / "landmarks.csv", "class", "error", "same_place")
        medians = table.groupby("class", sort=False)[["error", "same_place"]].median()
        medians.loc["all"] = table[["error", "same_place"]].median()
        report.table(
            medians.reset_index(),
            "Median error of class centers carried to another scan by their coordinates, and of the same place in the "
            "scan's extent (mm; films: pixels)",
        )


def _trainings(report: Report, folder: Path) -> None:
    """The curves of a run, and of an automatic one those of the networks it trained on all labels."""
    for name, log in trainings_of(Run(folder)).items():
        _training(report, log, f"{name}, trained on all labels. " if name else "")


def _training(report: Report, log: Log, which: str) -> None:
    losses = [row["loss"] for row in log if isinstance(row.get("loss"), int | float)]
    if not any(math.isfinite(loss) for loss in losses):
        return
    caption = f"{which}Loss of each logged step (faint) and its running mean"
    if losses_by_quarter(log):
        caption += "; loss by quarter of the timesteps, the first with the least noise"
    if validation_scores(log):
        caption += "; scores on the validation cases"
    report.figure(loss_curves(log), caption + ".")


# ------------------------------------------------------------------------------------------------ of an evaluation


def _matched(report: Report, path: Path) -> None:
    """Which classes were compared by name, and which stand on one side alone."""
    if not path.is_file():
        return
    rows = read_table(path, "class", "prediction", "truth", "scored")
    values = rows[rows["scored"]].astype({"prediction": int, "truth": int})
    report.table(values.drop(columns="scored"), "Values of the classes that both sides have")
    for side, other in (("prediction", "truth"), ("truth", "prediction")):
        alone = rows[~rows["scored"] & rows[other].isna()]["class"]
        if len(alone):
            report.details(f"Not scored, only in the {side}: {len(alone)}", ", ".join(alone))


def _scored(report: Report, content: Mapping[str, Any]) -> None:
    """Where masks and truth came from, which models made the masks, and what speaks against the scores."""
    facts = [
        f"{name}: {content[name]}" for name in ("masks", "truth", "expected") if name in content
    ]
    for name in ("models", "notes"):
        values = content.get(name)
        facts += map(str, values if isinstance(values, list) else ())
    if facts:
        report.text(*facts)


def _worst_first(report: Report, table: pd.DataFrame, number: int) -> None:
    """Dice of each class and their mean, a row per case, the lowest first."""
    if table.empty:
        return
    wide = table.pivot_table(index="case", columns="class", values="dice", sort=False)
    if wide.shape[1] > 1:
        wide["mean"] = wide.mean(axis=1)
    wide = wide.sort_values(wide.columns[-1], kind="stable").head(SHOWN_CASES)
    caption = f"The {min(number, SHOWN_CASES)} lowest of {number} cases"
    report.table(wide.reset_index().rename_axis(columns=None), caption)
