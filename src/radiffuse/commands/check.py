"""``radiffuse check``: what a data set holds, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..config import Check
from ..data.checking.check import check_path
from ..data.checking.text import format_check


def check(settings: Check) -> int:
    """Print what is in a data set and all that is wrong with it.

    Returns:
        Exit code: 0 if it can be used, 2 if a case cannot.
    """
    path = Path(settings.data)
    result = check_path(path, settings.reader, decode=not settings.header_only)
    Console().print(format_check(result, path))
    return 2 if result.errors else 0
