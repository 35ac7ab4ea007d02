"""Every way in which a value of a JSON, YAML, CSV or array file is not what it should be."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

DEEP: Any = json.loads("[" * 80 + "]" * 80)
WRONG = [None, True, -1, 10**30, 1e308, float("nan"), "x", "", [], {}, [[3]], {"x": "y"}, DEEP]
"""Values of every type, and such as no setting takes."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a document; of a list the first alone."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value[:1])
    for key, one in inner:
        yield from places(one, (*path, key))


def documents(value: Any) -> Iterator[tuple[str, Any]]:
    """A document with one value replaced or taken away, and where."""
    for path in places(value):
        for wrong in WRONG:
            if not path:
                yield f"all -> {str(wrong)[:20]}", wrong
                continue
            edited = copy.deepcopy(value)
            home = edited
            for key in path[:-1]:
                home = home[key]
            home[path[-1]] = wrong
            yield f"{path} -> {str(wrong)[:20]}", edited
        if path:
            edited = copy.deepcopy(value)
            home = edited
            for key in path[:-1]:
                home = home[key]
            del home[path[-1]]
            yield f"{path} is missing", edited


DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml is ten times as fast


def edits(file: Path) -> Iterator[tuple[str, bytes]]:
    """Contents of a file, each with something wrong, and what."""
    content = file.read_bytes()
    yield "empty", b""
    yield "no text", b"\xff\xfe\x00\x80"
    yield "half", content[: len(content) // 2]
    yield "deep", b"[" * 100_000
    if file.suffix in (".json", ".yaml"):
        value = json.loads(content) if file.suffix == ".json" else yaml.safe_load(content)
        for what, edited in documents(value):
            text = (
                json.dumps(edited) if file.suffix == ".json" else yaml.dump(edited, Dumper=DUMPER)
            )
            yield what, text.encode()
        yield "twice", content.replace(b"{", b'{"kind": 1, "kind": 2,', 1)
    elif file.suffix == ".jsonl":
        lines = content.splitlines(keepends=True)
        for what, edited in documents(json.loads(lines[0])):
            yield what, json.dumps(edited).encode() + b"\n" + b"".join(lines[1:])
    elif file.suffix == ".csv":
        rows = list(csv.reader(io.StringIO(content.decode())))
        for column, name in enumerate(rows[0]):
            for wrong in ("", "x", "-1", "1e999", "nan", "9" * 40, "=1+1"):
                changed = [*rows[1][:column], wrong, *rows[1][column + 1 :]]
                yield f"{name} -> {wrong}", _csv([rows[0], changed, *rows[2:]])
            yield f"{name} is missing", _csv([[*r[:column], *r[column + 1 :]] for r in rows])
    elif file.suffix in (".npy", ".npz"):
        loaded = np.load(io.BytesIO(content))
        arrays = dict(loaded) if file.suffix == ".npz" else {"": loaded}
        for name, array in arrays.items():
            for other in (np.zeros(3), np.zeros((0, 2, 2)), array[..., None], np.array("x")):
                buffer = io.BytesIO()
                if file.suffix == ".npz":
                    np.savez(buffer, **(arrays | {name: other}))
                else:
                    np.save(buffer, other)
                yield f"{name} is {other.dtype}{other.shape}", buffer.getvalue()


def _csv(rows: list[list[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()
