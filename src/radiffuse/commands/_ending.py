"""What a command says when it is done: where its results are, how good they are, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..train.run import Run as RunFolder
from ._result import Run, said

NEXT = {
    "pretrain": "radiffuse fit LABELLED --method finetune --from {} --out runs/seg",
    "fit": "radiffuse predict {} SCANS --out masks",
    "coordinates": "radiffuse pretrain CT --coordinates {} --out runs/pre3d",
    "synthesize": "radiffuse generate {} --count 16 --out FAKE",
    "predict": "radiffuse view SCANS --masks {0}, or radiffuse evaluate {0} LABELLED --out runs/eval",
    "generate": "radiffuse judge REAL {}",
}
"""By command: what is typed next; {} or {0} is what it wrote."""
WROTE = {
    "predict": "the masks are",
    "zeroshot": "the masks are",
    "generate": "the images are",
    "anatomy": "the images are",
    "export": "the published run is",
    "convert": "the run is",
}


def ending(name: str, result: Any) -> Iterator[str]:
    """The last lines of a command.

    Args:
        name: Of the command.
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
        if run.config["settings"].get("objective") == "coordinates":
            name = "coordinates"
    elif isinstance(result, Path) and name not in WROTE and name != "select":
        page = result if result.suffix == ".html" else result / "report.html"
        yield f"report: {page}" if page.is_file() else f"the results are in {result}"
    elif isinstance(result, Path) and name in WROTE:
        yield f"{WROTE[name]} in {result}"
    if name in NEXT and isinstance(result, Path):
        yield f"next: {NEXT[name].format(shlex.quote(str(result)))}"
