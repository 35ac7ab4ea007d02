"""Names of cases: unique, safe as file names on every system, and the same on every machine."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..system.files import read_json

LONGEST = 120
"""Bytes of UTF-8; leaves room for suffixes below the 255 that file systems allow."""

_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def composed(text: str) -> str:
    """Text with accents as names of cases have them: of one piece with their letters, which macOS takes apart."""
    return unicodedata.normalize("NFC", text)


def unified(text: str) -> str:
    """Text without differences of case, and of how accents are encoded."""
    return composed(text).casefold()


def patient_key(patient: str) -> str:
    """What spellings of one patient have in common: ``7`` for ``007``, ``7.0`` and ``7``."""
    text = " ".join(unified(patient).split())
    number = re.fullmatch(r"0*(\d+)(?:[.,]0+)?", text)
    return number[1] if number else text


def short_hash(text: str) -> str:
    """Twelve hexadecimal digits of SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def safe_name(text: str) -> str:
    """A file name close to ``text``: folders joined by ``__``, characters forbidden somewhere are ``_``."""
    name = composed(text).strip("/").replace("/", "__")
    name = _FORBIDDEN.sub("_", name)
    name = "".join(c if c.isprintable() or c == "\u200d" else "_" for c in name).strip()
    if name.startswith("."):
        name = "_" + name[1:]
    name = name.rstrip(". ") or "_"
    if _RESERVED.fullmatch(name):
        name = "_" + name
    if len(name.encode()) > LONGEST:
        kept = name.encode()[: LONGEST - 13].decode("utf-8", "ignore")
        name = f"{kept}-{short_hash(text)}"
    return name


def unique_names(wanted: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Safe names; those equal but for case get a short hash of their key. ``keys`` are unique."""
    names = [safe_name(text) for text in wanted]
    counts = Counter(name.casefold() for name in names)
    taken = [
        f"{name}-{short_hash(key)[:8]}" if counts[name.casefold()] > 1 else name
        for name, key in zip(names, keys, strict=True)
    ]
    if len({name.casefold() for name in taken}) < len(taken):
        return [f"{name}-{short_hash(key)}" for name, key in zip(names, keys, strict=True)]
    return taken


def listed_fold(path: Path, fold: int) -> dict[str, str]:
    """Training and validation cases of a fold of nnU-Net's ``splits_final.json``, by name.

    Raises:
        InputError: It cannot be read, or has no such fold.
    """
    try:
        listed = read_json(path)[fold]
        parts = {composed(str(name)): "train" for name in listed["train"]}
        return parts | {composed(str(name)): "validation" for name in listed["val"]}
    except (IndexError, KeyError, TypeError):
        problem = f"has no fold {fold} with train and val"
        raise InputError(path, problem, "Repair it, or choose another --split.fold") from None
