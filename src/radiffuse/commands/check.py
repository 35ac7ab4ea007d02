"""``radiffuse check``: what a data set holds, and what is wrong with it; or what would be trained on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ..config import FIT, Check, Pretrain
from ..config.given import refuse_given
from ..data.checking.check import check_path
from ..data.checking.text import Indented, format_check
from ..data.dataset import Dataset
from ..data.layouts.unpaired import pairing
from ..errors import InputError
from ..system.saying import say
from ._ending import after_check


def check(settings: Check) -> int:
    """Print what is in a data set and all that is wrong with it, or with ``plan`` what would be trained on it.

    Returns:
        Exit code: 0 if it can be used, 2 if a case cannot.

    Raises:
        InputError: With ``plan``, data or settings that cannot be used.
    """
    console = Console()
    if settings.plan:
        planned, dataset = _planned(settings)
        console.print(planned)
        say(after_check(settings, len(dataset), labelled=bool(len(dataset.labelled))))
        return 0
    path = Path(settings.data)
    result = check_path(path, settings.reader, decode=not settings.header_only)
    console.print(format_check(result, path))
    if result.errors:
        return 2
    found = result.summary
    if not found["labelled"] and (remedy := pairing(path)):
        say(f"{path}: holds no labelled image. {remedy}.")
        return 0
    say(after_check(settings, found["cases"], labelled=bool(found["labelled"])))
    return 0


def _planned(settings: Check) -> tuple[RenderableType, Dataset]:
    """What ``fit`` would try and the plan of the first, else that of ``pretrain``; and the data set."""
    from ..automatic.opening import described, plan_choice
    from ..data.layouts import open_dataset
    from ..objectives import objective_of
    from ..train.planning.plan_text import format_plan
    from ..train.unlabelled import plan_unlabelled

    names = ("data", "hours", "from_run", "reader", "machine")
    same: dict[str, Any] = {name: getattr(settings, name) for name in names}
    dataset = open_dataset(settings.data, settings.reader)
    if not len(dataset):
        raise InputError(settings.data, "holds no images", "See docs/reference/layouts.md")
    if not len(dataset.labelled):
        refuse_given(settings, Check(), "unlabelled", f"{settings.data} has no labels")
        return format_plan(plan_unlabelled(objective_of(Pretrain(**same))).plan), dataset
    given = replace(FIT["auto"], unlabelled=settings.unlabelled, **same)
    record, labels = plan_choice(given)
    lines = described(record, labels, pool=bool(settings.unlabelled))
    said = [Indented(Text(s := line.lstrip()), len(line) - len(s)) for line in lines]
    first = record.candidates[0]
    title = Text(f"\nthe plan of {first.name}", style="bold")
    return Group(*said, title, format_plan(first.plan)), dataset
