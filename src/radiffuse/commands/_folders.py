"""What a folder is that is no run: a study, an evaluation, masks or images that a command wrote."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import damaged
from ..system.files import read_json, read_yaml

Lines = Iterator[tuple[str, str]]


def describe_folder(folder: Path) -> list[tuple[str, str]] | None:
    """Names and values, in the order in which a person wants them; None: it is no such folder.

    Raises:
        InputError: A file of it is damaged.
    """
    for name, describe in KINDS.items():
        if (folder / name).is_file():
            read = (
                read_yaml
                if name.endswith(".yaml")
                else lambda path: read_json(path, dict[str, Any])
            )
            content = read(folder / name)
            with damaged(folder / name):
                return list(describe(folder, content))
    return None


# ------------------------------------------------------------------------------------------------ internal


def _study(folder: Path, settings: Mapping[str, Any]) -> Lines:
    yield "study", str(folder)
    yield "data", str(settings["data"])
    yield "methods", ", ".join(settings["methods"])
    labels, draws = ", ".join(map(str, settings["labels"])), settings["draws"]
    yield "labels", f"{labels}; {draws} draw{'s' * (draws != 1)}, against {settings['reference']}"
    yield "scored", f"{len([*folder.glob('scores/*/cases.csv')])} runs"
    yield from _scores(folder / "summary.csv", "method", "labels")
    yield from _page(folder)


def _augment(folder: Path, settings: Mapping[str, Any]) -> Lines:
    yield "study", f"{folder}, what synthetic films add to classification"
    yield "data", str(settings["data"])
    pools, ratios = (", ".join(map(str, settings[name])) for name in ("pools", "ratios"))
    draws = settings["draws"]
    yield (
        "pools",
        f"{pools} films with {ratios} synthetic ones each; {draws} draw{'s' * (draws != 1)}",
    )
    for row in _rows(folder / "summary.csv"):
        if row["class"] == "mean":
            number = f"AUROC {_interval(row, 'auroc')}"
            yield "result", f"{row['pool']} films, {row['arm']}: {number}"
    yield from _page(folder)


def _evaluation(folder: Path, content: Mapping[str, Any]) -> Lines:
    yield "evaluation", str(folder)
    yield "masks", str(content.get("masks"))
    yield "truth", str(content.get("truth"))
    yield from _scores(folder / "summary.csv")
    yield from (("note", str(note)) for note in content.get("notes", ()))
    yield from _page(folder)


def _masks(folder: Path, content: Mapping[str, Any]) -> Lines:
    yield "masks", str(folder)
    yield "runs", ", ".join(str(run.get("run", run.get("name"))) for run in content["runs"])
    yield "classes", ", ".join(map(str, content["classes"].values()))
    lines = (folder / "masks.jsonl").read_bytes().splitlines()
    yield "made", f"{len({line.partition(b',')[0] for line in lines})} scans"


def _images(folder: Path, content: Mapping[str, Any]) -> Lines:
    yield "images", f"{folder}, synthetic"
    for name in ("run", "strategy", "sampler", "steps", "seed"):
        if content.get(name) is not None:
            yield name, str(content[name])
    yield "made", f"{len([*_rows(folder / 'provenance.csv')])} images"


KINDS: Mapping[str, Callable[[Path, Any], Lines]] = {
    "study.yaml": _study,
    "augment.yaml": _augment,
    "evaluation.json": _evaluation,
    "prediction.json": _masks,
    "generation.json": _images,
}
"""By the file that only such a folder has."""


def _scores(path: Path, *by: str) -> Lines:
    """Mean Dice over all classes with its interval, by method and number of labels if there are such."""
    for row in _rows(path):
        if row["class"] == "all" and row["metric"] in ("dice", "nsd"):
            what = ", ".join(f"{row[name]}{' labels' * (name == 'labels')}" for name in by)
            metric = {"dice": "Dice", "nsd": "surface Dice"}[row["metric"]]
            yield "result", f"{what}{': ' * bool(what)}{metric} {_interval(row, 'mean')}"


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def _interval(row: Mapping[str, str], name: str) -> str:
    mean, low, high = (float(row[key] or "nan") for key in (name, "low", "high"))
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def _page(folder: Path) -> Lines:
    if (folder / "report.html").is_file():
        yield "report", str(folder / "report.html")
