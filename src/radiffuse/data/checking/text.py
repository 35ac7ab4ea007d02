"""A check as text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ...errors import printable
from ..dataset import counted_patients
from ..issues import Issue, some
from ..scan import rounded
from .check import CheckResult


@dataclass(frozen=True)
class Indented:
    """Text that stays indented, by as many columns, where it is wrapped."""

    text: Text
    by: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.text.wrap(console, max(options.max_width - self.by, 1)):
            yield Text(" " * self.by) + line


_STYLES = {"error": "bold red", "warning": "yellow"}


def format_check(result: CheckResult, root: Path | str | None = None) -> RenderableType:
    """Tables of contents and classes, and the issues grouped by remedy; paths relative to ``root``."""
    overview = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _lines(result.summary):
        overview.add_row(Text(name, style="bold"), Text(printable(value)))
    parts: list[RenderableType] = [overview]
    if result.summary["classes"]:
        parts.append(_classes(result.summary))
    for severity, style in _STYLES.items():
        by_remedy: dict[str, list[Issue]] = {}
        for issue in result.issues:
            if issue.severity == severity:
                by_remedy.setdefault(issue.remedy, []).append(issue)
        if number := sum(map(len, by_remedy.values())):
            parts.append(Text(f"\n{number} {severity}{'s' if number > 1 else ''}", style=style))
            start = os.fspath(root).rstrip("/") + "/" if root else ""
            for remedy, issues in by_remedy.items():
                parts += _block(remedy, issues, start)
    if not result.issues:
        parts.append(Text("\nNo errors, no warnings.", style="green"))
    if open_ := list(_undecided(result.summary)):
        parts.append(Text("\nTo decide", style="bold"))
        parts += [Indented(Text(line), 2) for line in open_]
    return Group(*parts)


def _undecided(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the files do not say, and only a person knows."""
    if summary["cases"] > 1 and not summary["patients_named"]:
        yield (
            "Does any patient have more than one image? If so, say whose each is, in patients.csv (columns image and "
            "patient) or with --group, a pattern for file names; otherwise scores will be too good. If not, no action "
            "is needed."
        )
    if unnamed := [name for name in summary["classes"] if re.fullmatch(r"class-\d+", name)]:
        words = [f'"{name.removeprefix("class-")}": "..."' for name in unnamed]
        words = words if len(words) <= 5 else [*words[:2], "..."]
        verb, them = ("is", "it") if len(unnamed) == 1 else ("are", "them")
        asked = f"What {verb} {some(unnamed)}? classes.json beside the images can name {them}"
        yield f"{asked}: {{{', '.join(words)}}}"


def _block(remedy: str, issues: Sequence[Issue], start: str) -> Iterator[Indented]:
    for issue in issues:
        text = Text(printable(issue.where.removeprefix(start)), style="bold")
        yield Indented(text.append(f" {printable(issue.problem)}.", style="not bold"), 2)
    yield Indented(Text(f"{printable(remedy)}.", style="italic"), 4)


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    unread = summary["cases"] - summary["readable"]
    unreadable = f", {unread} unreadable" if unread else ""
    lines = [
        ("Layout", summary["layout"]),
        ("Cases", f"{summary['cases']} ({summary['labelled']} with a label map{unreadable})"),
        ("Patients", counted_patients(summary)),
        ("Channels", ", ".join(summary["channels"])),
    ]
    for name, key in (("Classes of images", "targets"), ("Splits", "splits")):
        if summary[key]:
            lines.append((name, ", ".join(f"{k}: {v}" for k, v in summary[key].items())))
    if summary["size"]:
        volumes = len(summary["size"]["median"]) == 3
        axes = ", R x A x S" if volumes else ""
        lines.append((f"Size{axes}", _range(summary["size"], "voxels" if volumes else "px")))
        known = summary["spacing"]
        lines.append(
            (
                f"Spacing{axes}" if known else "Spacing",
                _range(known, "mm") if known else "not in the files",
            )
        )
    if i := summary["intensity"]:
        unit = f" {i['unit']}" if i["unit"] != "gray" else ""
        ends = f"{i['lowest']:,.10g} to {i['highest']:,.10g}{unit}, mean {rounded(i['mean'])}"
        lines.append(("Intensity", ends))
    return lines


def _range(values: Mapping[str, Sequence[float]], unit: str) -> str:
    low, middle, high = (
        " x ".join(f"{number:.4g}" for number in values[key])
        for key in ("smallest", "median", "largest")
    )
    return f"{low} {unit}" if low == high else f"{middle} {unit} (median; {low} to {high})"


def _classes(summary: Mapping[str, Any]) -> Table:
    table, classes = Table(box=None, pad_edge=False), summary["classes"]
    flat = set(summary["spatial_dims"]) == {"2"}
    for title in ("Value", "Class", "Pixels" if flat else "Voxels", "Cases"):
        table.add_column(f"\n{title}", justify="left" if title == "Class" else "right")
    for name, found in classes.items():
        share = f"{100 * found['share']:.3g} %"
        table.add_row(
            f"{found['value']:.0f}", Text(printable(name)), share, f"{found['cases']:.0f}"
        )
    return table
