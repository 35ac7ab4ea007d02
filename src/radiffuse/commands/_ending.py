"""What a command says when it is done: where its results are, how good they are, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from itertools import chain, filterfalse, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Check, Evaluate, Fit, Predict, Pretrain, Select, View
from ..config.effect import never
from ..config.given import reader_flags
from ..config.values import to_dict
from ..errors import RadiffuseError
from ..system.files import read_json
from ..system.saying import near
from ..train.run import Run as RunFolder
from ..train.run import find_run
from ._result import Run, said

if TYPE_CHECKING:
    from ..data.dataset import Dataset

WROTE = {
    "predict": "the masks are",
    "zeroshot": "the masks are",
    "generate": "the images are",
    "anatomy": "the images are",
    "export": "the export is",
    "convert": "the run is",
}
PLACEHOLDERS = {"LABELLED": "your labelled images", "SCANS": "the scans to segment"}
"""Words for a folder that the command was not told, and what to put there."""
FEW = 5
"""Scans to choose, or all where they are fewer."""


def ending(name: str, settings: Any, result: Any) -> Iterator[str]:
    """The last lines of a command.

    Args:
        name: Of the command.
        settings: What it was given; the folders in it are those of the next command.
        result: What its function returned.
    """
    if isinstance(result, RunFolder):
        run = Run(result.folder)
        if name in ("pretrain", "fit", "classify", "synthesize"):
            if scores := said(run):
                yield f"validation: {scores}"
            yield f"report: {run.folder / 'report.html'}"
        else:
            yield f"{WROTE.get(name, 'the results are')} in {run.folder}"
        result = run.folder
    elif isinstance(result, Path) and name not in WROTE and name != "select":
        page = result if result.suffix == ".html" else result / "report.html"
        yield f"report: {page}" if page.is_file() else f"the results are in {result}"
    elif isinstance(result, Path) and name in WROTE:
        yield f"{WROTE[name]} in {result}"
    if name in NEXT and isinstance(result, Path):
        for words in NEXT[name](settings, str(result)):
            yield next_line(*words)


def next_line(*words: str) -> str:
    """The command to type next, ready to be copied: ``words`` without the program's name."""
    unknown = [
        f"{word}: {PLACEHOLDERS[word]}"
        for word in words
        if word in PLACEHOLDERS and not Path(word).exists()
    ]
    return f"next: {shlex.join(['radiffuse', *words])}" + (
        f"   ({', '.join(unknown)})" * bool(unknown)
    )


def after_check(settings: Check, cases: int, *, labelled: bool) -> str:
    """What is typed after looking at a data set: what was planned, else ``fit``, or what to label first."""
    if settings.plan and not labelled:
        hours = ("--hours", f"{settings.hours:g}") if settings.hours else ()
        start = ("--from", settings.from_run) if settings.from_run else ()
        out = ("--out", _free("runs/pre"))
        return next_line(
            "pretrain", settings.data, *hours, *start, *out, *_reading(settings, Pretrain)
        )
    if not labelled:
        by = ("--count", _few(cases), "--out", _free("first.csv"))
        return next_line("select", settings.data, *by, *_reading(settings, Select))
    words = ["fit", settings.data]
    if settings.hours or not settings.plan:  # a plan without hours is one of an hour at most
        words += ["--hours", f"{settings.hours or 2:g}"]
    if settings.unlabelled:
        words += ["--unlabelled", ",".join(settings.unlabelled)]
    if settings.from_run:
        words += ["--from", settings.from_run]
    return next_line(*words, "--out", _free("runs/seg"), *_reading(settings, Fit))


# ------------------------------------------------------------------------------------------------ internal

Words = Iterator[tuple[str, ...]]


def _pretrain(settings: Any, run: str) -> Words:
    if settings.objective == "coordinates":
        out = ("--out", _free("runs/pre3d"))
        yield "pretrain", settings.data, "--coordinates", run, *out, *_reading(settings, Pretrain)
    else:
        labelled = settings.for_run or "LABELLED"
        yield "fit", labelled, "--from", run, "--method", "finetune", "--out", _free("runs/seg")


def _fit(settings: Any, run: str) -> Words:
    out = ("--out", _free("masks"))
    if settings.unlabelled:
        yield "predict", run, settings.unlabelled[0], *out, *_reading(settings, Predict)
    elif _tests(run):
        yield "predict", run, settings.data, "--cases", "test", *out, *_reading(settings, Predict)
    else:
        yield "predict", run, "SCANS", *out


def _predict(settings: Any, masks: str) -> Words:
    yield "view", settings.data, *settings.runs, "--masks", masks, *_reading(settings, View)
    dataset = _opened(settings)
    if dataset is not None and len(dataset.labelled):
        yield (
            "evaluate",
            masks,
            settings.data,
            "--out",
            _free("runs/eval"),
            *_reading(settings, Evaluate),
            *_truth(settings.runs[0]),
        )
    elif dataset is not None and (left := _to_label(dataset, settings.runs[0])):
        by = ("--from", settings.runs[0], "--count", _few(left), "--out", _free("next.csv"))
        yield "select", settings.data, *by, *_reading(settings, Select)


def _select(settings: Any, table: str) -> Words:
    run, masks = settings.from_run, ""
    if run and _segments(run):
        masks = _masks_of(run, settings, table) or _free("masks")
        if not Path(masks).exists():
            yield "predict", run, settings.data, "--out", masks, *_reading(settings, Predict)
    shown = (run, "--masks", masks) if masks else ()
    yield "view", settings.data, *shown, "--worklist", table, *_reading(settings, View)


def _synthesize(_: Any, run: str) -> Words:
    yield "generate", run, "--count", "16", "--out", _free("synthetic")


def _generate(settings: Any, images: str) -> Words:
    try:
        real = find_run(settings.run).data.get("root")
    except RadiffuseError:
        real = None
    if real and Path(str(real)).exists():
        yield "judge", near(Path(str(real))), images


NEXT: dict[str, Callable[[Any, str], Words]] = {
    "pretrain": _pretrain,
    "fit": _fit,
    "synthesize": _synthesize,
    "predict": _predict,
    "select": _select,
    "generate": _generate,
}
"""By command: the words of what is typed next, of its settings and what it wrote."""


def _free(name: str) -> str:
    """The name, or with a number behind it where something of the name is there already."""
    path, number = Path(name), 1
    while path.exists():
        number += 1
        path = Path(name).with_stem(f"{Path(name).stem}-{number}")
    return path.as_posix()


def _masks_of(run: str, settings: Any, table: str) -> str:
    """A folder beside us with masks of this run alone, of all scans in a table of ``select``, or ''."""
    import pandas as pd

    from ..inference.records import FOLDER, Record, scan_of

    dataset = _opened(settings)
    if dataset is None:
        return ""
    names = {str(name) for name in pd.read_csv(table, dtype=str)["case"]}
    scans = {case.name: scan_of(case)["state"] for case in dataset if case.name in names}
    for path in sorted(Path().glob(f"*/{FOLDER}")):
        try:
            record = Record.read(path.parent)
        except RadiffuseError:
            continue
        if record is None or [one["run"] for one in record.header["runs"]] != [run]:
            continue
        made = {name: entry["scan"].get("state") for name, entry in record.entries.items()}
        if scans.items() <= made.items():
            return path.parent.as_posix()
    return ""


def _few(cases: int) -> str:
    """How many scans to choose of so many."""
    return str(min(FEW, cases))


def _opened(settings: Any) -> Dataset | None:
    """The scans, for what is known of them; None where they cannot be read any more."""
    from ..data.layouts import open_dataset

    try:
        return open_dataset(settings.data, settings.reader)
    except RadiffuseError:
        return None


def _to_label(dataset: Dataset, name: str) -> int:
    """How many of the scans ``select`` would choose from, those whose labels the run does not have; ``FEW``: or more.

    Hashing thousands of scans for one line would take minutes.
    """
    from ..data.copies import finder
    from ..data.issues import unsaid
    from ..inference.selection import labelled_of

    try:
        with unsaid():  # it is about other data than those that were segmented
            known = labelled_of(find_run(name))
    except RadiffuseError:
        known = []
    find = finder(chain.from_iterable(known), glance=True)
    return len(list(islice(filterfalse(find, dataset), FEW)))


def _reading(settings: Any, command: type) -> list[str]:
    """How the data were read, but for what the next command never uses and therefore refuses."""
    unused = {name.removeprefix("reader.") for name in never(command)}
    values = to_dict(settings.reader)
    return reader_flags({name: values[name] for name in values if name not in unused})


def _truth(run: str) -> list[str]:
    """How the run read its label maps: ``predict`` reads none, ``evaluate`` those of such folders."""
    try:
        reader = find_run(run).config["settings"].get("reader", {})
    except (RadiffuseError, KeyError):
        return []
    names = ("label_values", "label_threshold", "class_names")
    return reader_flags({name: reader[name] for name in names if name in reader})


def _tests(run: str) -> bool:
    """Whether labelled cases were kept for a test."""
    try:
        return bool(read_json(Path(run) / "splits.json", dict[str, Any]).get("test"))
    except RadiffuseError:
        return False


def _segments(name: str) -> bool:
    run = find_run(name)
    return run.finished and bool(run.plan.classes)
