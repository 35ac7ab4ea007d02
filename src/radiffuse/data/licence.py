"""The licence that a data set states for itself."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .documents import read_json

LONGEST = 200
"""Characters of a licence that are kept."""


def stated_licence(root: Path) -> str | None:
    """What ``dataset.json`` says under ``licence`` or ``license`` (nnU-Net, Decathlon), or None."""
    path = root / "dataset.json"
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except InputError:
        return None
    words = content.get("licence") or content.get("license") if isinstance(content, dict) else None
    return " ".join(words.split())[:LONGEST] if isinstance(words, str) and words.strip() else None
