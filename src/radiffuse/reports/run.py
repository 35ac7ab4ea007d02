"""The report of one run: what it learned, from what, how well, with which settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, RunError
from . import parts
from .coordinates import coordinate_figure, landmarks_table
from .figures import METRIC_NAMES, loss_curves, validation_scores
from .html import Report, format_value
from .pictures import sample_grid, to_uint8
from .probing import sweep_section

if TYPE_CHECKING:
    import pandas as pd

SHOWN_SAMPLES = 64
"""Most samples that a report shows."""

SHOWN_CASES = 50
"""Most cases that the table of an evaluation lists."""


def write_run_report(run_folder: Path) -> Path:
    """Write ``report.html`` into a run folder, from whatever of a run it holds.

    Read are ``config.yaml``, ``plan.json``, ``log.jsonl``, ``data.json``, ``samples/*.png`` or
    ``samples.npy`` (uint8 ``(N, H, W)``), ``validation/cases.csv`` and ``validation/overlays.npz``;
    a part that is missing leaves its section out.

    Args:
        run_folder: Folder of a run, finished or not.

    Returns:
        Path of the report.

    Raises:
        RunError: The folder does not exist, or holds nothing of a run.
        InputError: A file of it is damaged, or the report cannot be written.
    """
    if not run_folder.is_dir():
        raise RunError(run_folder, "no such run folder", "Give the folder that --out named")
    config = parts.read_yaml(run_folder / "config.yaml")
    log = read_log(run_folder / "log.jsonl")
    data = parts.read_data(run_folder / "data.json")
    validated = (run_folder / "validation" / "cases.csv").is_file()
    if not (config or log or data or validated):
        raise RunError(run_folder, "holds nothing of a run", "Give the folder that --out named")
    command = config.get("command") or config.get("act")
    report = Report(
        run_folder.resolve().name, f"radiffuse {command}" if command else "A radiffuse run"
    )
    _facts(report, log, data)
    parts.scores_section(report, run_folder / "validation", "Validation")
    sweep_section(report, run_folder / "sweep.csv")
    _samples(report, run_folder)
    if (run_folder / "coordinates.npz").is_file():
        report.section("Coordinates")
        caption = "A scan that was not trained on, and its body coordinates along each axis"
        report.figure(coordinate_figure(run_folder / "coordinates.npz"), caption)
        landmarks_table(report, run_folder / "landmarks.csv")
    _training(report, log)
    if data:
        parts.data_section(report, data)
    _settings(report, run_folder)
    return report.save(run_folder / "report.html")


def write_evaluation_report(folder: Path) -> Path:
    """Write ``report.html`` beside the ``cases.csv`` of an evaluation (and its ``overlays.npz``).

    Args:
        folder: Folder of the evaluation; its ``classes.csv`` and ``data.json`` are shown where there are any.

    Returns:
        Path of the report.

    Raises:
        InputError: ``cases.csv`` is missing or damaged, or the report cannot be written.
    """
    table = parts.read_table(folder / "cases.csv", ("case", "class", "dice"))
    number = table["case"].nunique()
    report = Report(folder.resolve().name, f"Evaluation: {number} cases against the truth")
    parts.scores_section(report, folder, "Scores")
    if (folder / "classes.csv").is_file():
        _matched(report, folder / "classes.csv")
    if len(table):
        report.section("Cases")
        report.table(
            _worst_first(table), f"The {min(number, SHOWN_CASES)} lowest of {number} cases"
        )
    data = parts.read_data(folder / "data.json")
    if data:
        parts.data_section(report, data)
    return report.save(folder / "report.html")


def _matched(report: Report, path: Path) -> None:
    """Which classes were compared by name, and which stand on one side alone."""
    rows = parts.read_table(path, ("class", "prediction", "truth", "scored"))
    report.section("Classes by name")
    scored = rows[rows["scored"]]
    values = scored.assign(
        prediction=scored["prediction"].astype(int), truth=scored["truth"].astype(int)
    )
    report.table(values.drop(columns="scored"), "Values of the classes that both sides have")
    for side, other in (("prediction", "truth"), ("truth", "prediction")):
        alone = rows[~rows["scored"] & rows[other].isna()]["class"]
        if len(alone):
            report.details(f"Not scored, only in the {side}: {len(alone)}", ", ".join(alone))


def _worst_first(table: pd.DataFrame) -> pd.DataFrame:
    """Dice of each class and their mean, a row per case, the lowest first."""
    wide = table.pivot_table(index="case", columns="class", values="dice", sort=False)
    if wide.shape[1] > 1:
        wide["mean"] = wide.mean(axis=1)
    wide = wide.sort_values(wide.columns[-1], kind="stable").head(SHOWN_CASES)
    return wide.reset_index().rename_axis(columns=None)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of ``log.jsonl``; a last line that a kill cut short is left out.

    Args:
        path: The log; an absent one is empty.

    Raises:
        InputError: A line before the last is no JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            problem = f"line {number} is not JSON ({error})"
            raise InputError(path, problem, "Remove the line") from error
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def _facts(report: Report, log: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> None:
    facts: dict[str, object] = {}
    trained = [row for row in log if "loss" in row]
    if trained:
        facts["Steps"] = int(trained[-1]["step"])
        facts["Last loss"] = trained[-1]["loss"]
    for name, points in validation_scores(log).items():
        facts[f"Best validation {METRIC_NAMES.get(name, name)}"] = max(value for _, value in points)
        break
    seconds = [row["seconds"] for row in log if isinstance(row.get("seconds"), int | float)]
    if seconds:
        facts["Training time"] = format_duration(float(seconds[-1]))
    speeds = [row["images_per_second"] for row in trained if row.get("images_per_second")]
    if speeds:
        facts["Images per second"] = f"{float(np.median(speeds)):.3g}"
    for name in ("cases", "patients"):
        if data.get(name) is not None:
            value = data[name]
            facts[name.capitalize()] = value if isinstance(value, int | str) else len(value)
    if facts:
        report.facts(facts)


def _samples(report: Report, folder: Path) -> None:
    stack, files = folder / "samples.npy", sorted((folder / "samples").glob("*.png"))
    if stack.is_file():
        try:
            images = np.load(stack, allow_pickle=False)
            number = len(images)
            grid = sample_grid(images[:SHOWN_SAMPLES])
        except (OSError, ValueError, EOFError, TypeError) as error:
            raise InputError(
                stack, f"not readable ({error})", "Remove it, or sample again"
            ) from error
        report.section("Samples")
        report.figure(
            grid,
            f"{min(number, SHOWN_SAMPLES)} of {number} images drawn from the model, not selected",
        )
    elif files:
        report.section("Samples")
        shown = files[:SHOWN_SAMPLES]
        report.images(
            [_read_png(path) for path in shown],
            f"{len(shown)} of {len(files)} images drawn from the model, not selected",
        )


def _read_png(path: Path) -> np.ndarray[Any, Any]:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            gray = image.mode in ("L", "1", "I", "I;16", "F")
            return to_uint8(
                np.asarray(
                    image if gray and image.mode != "1" else image.convert("L" if gray else "RGB")
                )
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            path, f"not readable as PNG ({error})", "Remove it, or sample again"
        ) from error


def _training(report: Report, log: Sequence[Mapping[str, Any]]) -> None:
    losses = [row["loss"] for row in log if isinstance(row.get("loss"), int | float)]
    if not any(math.isfinite(loss) for loss in losses):
        return
    report.section("Training")
    caption = "Loss of each logged step (faint) and its running mean"
    if any(row.get("loss_quartiles") for row in log):
        caption += "; loss by quarter of the timesteps, the first with the least noise"
    if validation_scores(log):
        caption += "; scores on the validation cases"
    report.figure(loss_curves(log), caption + ".")


def _settings(report: Report, folder: Path) -> None:
    files = {"config.yaml": "Settings", "plan.json": "Plan of the data"}
    present = {name: title for name, title in files.items() if (folder / name).is_file()}
    if not present:
        return
    report.section("Settings")
    for name, title in present.items():
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        report.details(f"{title} ({name})", text)


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
