"""Fingerprints of every act, to show that a change of the code changes no result.

    python tools/fingerprints.py OUT.json [--only TEXT] [--keep FOLDER]
    python tools/fingerprints.py --compare BEFORE.json AFTER.json [--only TEXT]

Each act runs for a few steps on tiny drawn data, in this process, on one thread of the CPU. What it leaves is hashed
part by part: tensors of weights, rows of the log, pixels of images, numbers of tables. How files are packed, times,
paths and reports do not count.

The radiffuse under test is the one that Python imports: set PYTHONPATH to its ``src``. Hashes can only be compared on
one machine, with the same versions of torch and numpy.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fingerprint_acts import ACTS

REFERENCE = r"@([\w-]+)"
Results = Mapping[str, Mapping[str, str]]


# ------------------------------------------------------------------------------------------------ fingerprints


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash of every part of what an act left; checkpoints and reports are left out."""
    parts: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "state" not in path.relative_to(folder).parts:
            parts.update((f"{name}{part}", _hash(value)) for part, value in _contents(path))
    return parts


def _hash(value: Any) -> str:
    digest = hashlib.sha256()
    for item in value if isinstance(value, list) else [value]:
        if hasattr(item, "dtype"):
            digest.update(f"{item.dtype} {tuple(item.shape)} ".encode())
            digest.update(item.tobytes())
        else:
            digest.update(json.dumps(item, sort_keys=True).encode())
    return digest.hexdigest()


def _contents(path: Path) -> Iterator[tuple[str, Any]]:
    """What a file holds that must not change, in parts: arrays, or what JSON can write."""
    import numpy as np

    ending = "nii" if path.name.endswith(".nii.gz") else path.suffix[1:]
    if ending == "safetensors":
        import torch
        from safetensors.torch import load_file

        content: list[Any] = []
        for key, tensor in sorted(load_file(path).items()):
            content.append(f"{key} {tensor.dtype} {tuple(tensor.shape)}")
            content.append(tensor.reshape(-1).view(torch.uint8).numpy())  # numpy has no bfloat16
        yield "", content
    elif ending in ("png", "tif", "tiff"):
        from PIL import Image

        yield "", np.asarray(Image.open(path))
    elif ending == "nii":
        import nibabel

        volume = nibabel.load(path)
        yield "", [np.asanyarray(volume.dataobj), volume.affine]
    elif ending == "npy":
        yield "", np.load(path, allow_pickle=False)
    elif ending == "npz":
        with np.load(path, allow_pickle=False) as arrays:
            yield from ((f":{key}", arrays[key]) for key in sorted(arrays))
    elif path.name == "log.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        yield "", [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    elif path.name in ("splits.json", "classes.json"):
        yield "", json.loads(path.read_text())
    elif ending == "csv":
        with path.open(newline="") as file:
            table = list(csv.DictReader(file))
        for column in sorted(table[0]) if table else []:
            with contextlib.suppress(ValueError):
                yield f":{column}", [float(row[column] or "nan") for row in table]


# ------------------------------------------------------------------------------------------------ running


def run(only: str, scratch: Path) -> dict[str, dict[str, str]]:
    """Run the acts whose name holds a text, and those they build on.

    Args:
        only: The text; empty: all acts.
        scratch: Empty folder for data and runs.

    Returns:
        By act, the hash of each part of what it left, or the ``error`` that it ended in.
    """
    from radiffuse import cli

    os.environ["RADIFFUSE_CACHE"] = str(scratch / "cache")
    print(f"testing {cli.__file__}", file=sys.stderr)
    chosen = _with_needed([name for name in ACTS if only in name])
    results: dict[str, dict[str, str]] = {}
    for number, name in enumerate(chosen, 1):
        began = time.monotonic()
        broken = [need for need in _needs(name) if "error" in results[need]]
        results[name] = {"error": f"needs {broken[0]}"} if broken else _act(name, scratch)
        if ACTS[name].startswith("resume ") and "error" not in results[name]:
            same = results[name] == results[_needs(name)[0]]
            results[name]["same as without a stop"] = "yes" if same else "no"
        state = results[name].get("error") or f"{len(results[name])} parts"
        seconds = time.monotonic() - began
        print(f"{number}/{len(chosen)} {name}: {state}, {seconds:.1f} s", file=sys.stderr)
    return results


def _act(name: str, scratch: Path) -> dict[str, str]:
    from radiffuse.cli import main

    out, template = scratch / name, ACTS[name]
    if template.startswith("class-folders "):
        _class_folders(scratch / _needs(name)[0], out)
        return fingerprint(out)
    if template.startswith("resume "):
        source = _needs(name)[0]
        _stopped(scratch / source, out)
        template = ACTS[source]
    argv = [re.sub(REFERENCE, rf"{scratch}/\1", word) for word in template.split()]
    argv += [] if argv[0] == "info" else ["--out", str(out)]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main(argv)
    except Exception:
        code = 1
        traceback.print_exc(file=said)
    if code:
        return {"error": f"exit {code}: " + " | ".join(said.getvalue().splitlines()[-3:])}
    return fingerprint(out) if out.exists() else {"done": "yes"}


def _needs(name: str) -> list[str]:
    return re.findall(REFERENCE, ACTS[name])


def _with_needed(names: Sequence[str]) -> list[str]:
    """These acts and all they build on, in the order of the table."""
    wanted, queue = set(), list(names)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += _needs(name)
    return [name for name in ACTS if name in wanted]


def _class_folders(source: Path, out: Path) -> None:
    """The films of a labelled data set in turn in the folders of two classes."""
    for number, film in enumerate(sorted((source / "images").iterdir())):
        folder = out / ("even", "odd")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, folder / film.name)


def _stopped(run_folder: Path, out: Path) -> None:
    """A copy of a run as if it had been killed after its next to last checkpoint."""
    shutil.copytree(run_folder, out)
    shutil.rmtree(out / "model")
    (out / "report.html").unlink()
    shutil.rmtree(max((out / "state").glob("step-*")))


# ------------------------------------------------------------------------------------------------ comparing


def compare(before: Results, after: Results, only: str = "") -> list[tuple[str, str, str]]:
    """Name of each act, ``same``, ``differs``, ``failed`` or ``missing``, and where."""
    lines = []
    for name in dict.fromkeys([*before, *after]):
        if only not in name:
            continue
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            lines.append((name, "missing", "in the first" if one is None else "in the second"))
        elif "error" in one or "error" in other:
            lines.append((name, "failed", one.get("error", "") or other.get("error", "")))
        else:
            parts = sorted(
                part for part in one.keys() | other.keys() if one.get(part) != other.get(part)
            )
            shown = ", ".join(_difference(part, one, other) for part in parts[:4])
            more = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
            lines.append((name, "differs" if parts else "same", shown + more))
    return lines


def _difference(part: str, one: Mapping[str, str], other: Mapping[str, str]) -> str:
    lacking = "first" if part not in one else "second" if part not in other else ""
    return f"{part} (not in the {lacking})" if lacking else part


def main() -> int:
    """Record fingerprints, or compare two records; 1 where an act failed or anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", nargs="?", type=Path, help="JSON file to write")
    parser.add_argument("--only", default="", help="acts whose name holds this text")
    parser.add_argument("--keep", type=Path, help="new folder for data and runs, which then stays")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    given = parser.parse_args()
    if given.compare:
        before, after = (json.loads(path.read_text()) for path in given.compare)
        lines = compare(before, after, given.only)
        for name, state, where in lines:
            print(f"{state:8} {name}" + (f": {where}" if where else ""))
        same = sum(state == "same" for _, state, _ in lines)
        print(f"{same} of {len(lines)} acts are the same")
        return int(same < len(lines))
    if given.out is None:
        parser.error("give a file to write, or --compare")
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        scratch = given.keep or Path(folder)
        scratch.mkdir(parents=True, exist_ok=True)
        results = run(given.only, scratch.resolve())
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    return int(any("error" in parts for parts in results.values()))


if __name__ == "__main__":
    sys.exit(main())
