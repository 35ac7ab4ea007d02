"""A check as people read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..issues import Issue

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {"error": "bold red", "warning": "yellow"}


def render(summary: Mapping[str, Any], issues: Sequence[Issue], root: str = "") -> RenderableType:
    """A table of what there is, the classes, and the issues, grouped by what is wrong.

    Args:
        summary: See ``check.summarize``.
        issues: Errors first.
        root: Paths below it are shown relative to it.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_overview(summary)]
    if summary["classes"]:
        parts.append(_classes(summary["classes"]))
    for severity in ("error", "warning"):
        found = [issue for issue in issues if issue.severity == severity]
        if found:
            plural = "s" if len(found) > 1 else ""
            parts.append(Text(f"\n{len(found)} {severity}{plural}", style=_STYLES[severity]))
            parts += [_block(remedy, lines, root) for remedy, lines in _by_remedy(found).items()]
    if not issues:
        parts.append(Text("\nNothing wrong.", style="green"))
    return Group(*parts)


def _by_remedy(issues: Sequence[Issue]) -> dict[str, list[Issue]]:
    grouped: dict[str, list[Issue]] = {}
    for issue in issues:
        grouped.setdefault(issue.remedy, []).append(issue)
    return grouped


def _block(remedy: str, issues: Sequence[Issue], root: str) -> RenderableType:
    from rich.text import Text

    text = Text()
    for issue in issues:
        text.append(f"  {_plain(_short(issue.where, root))}", style="bold")
        text.append(f" {_plain(issue.problem)}.\n")
    text.append(f"    {_plain(remedy)}.", style="italic")
    return text


def _overview(summary: Mapping[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _lines(summary):
        table.add_row(Text(name, style="bold"), Text(_plain(value)))
    return table


def _lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    unread = summary["cases"] - summary["readable"]
    unreadable = f", {unread} unreadable" if unread else ""
    lines = [
        ("Layout", summary["layout"]),
        ("Cases", f"{summary['cases']} ({summary['labelled']} with a label map{unreadable})"),
        ("Patients", str(summary["patients"])),
        ("Channels", ", ".join(summary["channels"])),
    ]
    for name, key in (("Classes of images", "targets"), ("Splits", "splits")):
        if summary[key]:
            lines.append((name, ", ".join(f"{k}: {v}" for k, v in summary[key].items())))
    if summary["size"]:
        lines.append(("Size", _spread(summary["size"], "px")))
        known = summary["spacing"]
        lines.append(("Spacing", _spread(known, "mm") if known else "not in the files"))
    if summary["intensity"]:
        i = summary["intensity"]
        unit = f" {i['unit']}" if i["unit"] != "gray" else ""
        lines.append(
            ("Intensity", f"{i['lowest']:g} to {i['highest']:g}{unit}, mean {i['mean']:.4g}")
        )
    return lines


def _spread(spread: Mapping[str, Sequence[float]], unit: str) -> str:
    low, middle, high = (
        " x ".join(f"{number:.4g}" for number in spread[key])
        for key in ("smallest", "median", "largest")
    )
    return f"{low} {unit}" if low == high else f"{middle} {unit} (median; {low} to {high})"


def _classes(classes: Mapping[str, Mapping[str, float]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("\nValue", justify="right")
    table.add_column("\nClass")
    table.add_column("\nVoxels", justify="right")
    table.add_column("\nCases", justify="right")
    for name, found in classes.items():
        share = f"{100 * found['share']:.3g} %"
        table.add_row(f"{found['value']:.0f}", Text(_plain(name)), share, f"{found['cases']:.0f}")
    return table


def _short(where: str, root: str) -> str:
    return (
        where[len(root) :].lstrip("/")
        if root and where.startswith(root.rstrip("/") + "/")
        else where
    )


def _plain(text: str) -> str:
    """Control characters in hostile names are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
