"""Put small mistakes into the code, one at a time, and see whether the tests notice.

    make mutate
    python tools/mutate.py --only timesteps --jobs 2
    python tools/mutate.py --check

The mistakes stand in ``mutations.toml``: a file of the package, text that occurs in it exactly once, what takes its
place, and the tests that are to fail. Each is made in a copy of the tree, never in the tree itself. A mistake is
caught where a test fails, survives where all pass, and is stale where its text is not found exactly once, or where its
tests cannot be run: then the code has moved on and the list has to follow. The exit code is 1 unless all are caught.
``--check`` only looks for stale entries, in a second and without running tests, as ``make check`` does.

Why a list, and not a mutation tester? mutmut (3.x) and cosmic-ray make their mistakes by rule: another operator,
another number. The ones that matter here are mistakes of meaning, such as a draw that reaches one timestep too far or a
key that forgets the patients, which no rule makes; mutmut 3 also leaves constants of a module alone. And both make
thousands, each to be tried with tests that train networks, so that the answer comes after days. A list holds mistakes
that somebody made or feared, names the tests that guard against them, and is done in minutes.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("mutations.toml")
PACKAGE = Path("src", "radiffuse")
LEFT_OUT = (".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "demo")
"""What a copy of the tree does without."""
PASSED, FAILED = 0, 1
"""Exit codes of pytest; all others say that it could not do its work."""
SECONDS = 900
"""Longest time for the tests of one mistake; a mistake that makes them hang is caught."""


@dataclass(frozen=True)
class Mutation:
    """A mistake.

    Attributes:
        name: What goes wrong, in a few words.
        file: Path in the package.
        old: Text that occurs in the file exactly once.
        new: What takes its place.
        tests: Paths or node ids for pytest, of which at least one is to fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def read_list(path: Path = LIST) -> list[Mutation]:
    """The mistakes, in the order of the file."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]
    return [Mutation(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def why_stale(mutation: Mutation, tree: Path) -> str:
    """Why a mistake cannot be made, or its tests not be found; empty if both can."""
    path = tree / PACKAGE / mutation.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if (count := text.count(mutation.old)) != 1:
        return f"the text occurs {count} times in {mutation.file}"
    for test in mutation.tests:
        file, _, name = test.partition("::")
        place = tree / file
        if not place.is_file():
            return f"there is no {file}"
        if name and f"def {name}(" not in place.read_text(encoding="utf-8"):
            return f"there is no {test}"
    return ""


def copy_tree(place: Path) -> Path:
    """A copy of the tree, without what was built."""
    return Path(shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(*LEFT_OUT)))


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Exit code and output of pytest in a copy of the tree."""
    changed = {
        "PYTHONPATH": str(tree / "src"),
        # A mistake may leave the size and the second of a file as they were, so bytecode could be stale.
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    options = ["-x", "-q", "-n", "0", "-m", "slow or not slow", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "--hypothesis-seed=0", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=os.environ | changed, timeout=SECONDS, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return FAILED, "the tests did not end"
    return done.returncode, done.stdout + done.stderr


def judge(mutation: Mutation, tree: Path) -> tuple[str, str]:
    """Make a mistake in a copy, run its tests, and take it back: the verdict, and what explains it."""
    if reason := why_stale(mutation, tree):
        return "stale", reason
    path = tree / PACKAGE / mutation.file
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        code, output = run_tests(tree, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    if code == PASSED:
        return "survived", " ".join(mutation.tests)
    if code == FAILED:
        failed = [line for line in output.splitlines() if line.startswith("FAILED")]
        return "caught", failed[0].split(" - ")[0].removeprefix("FAILED ") if failed else ""
    return "stale", f"pytest ended with {code}: {output.strip()[-300:]}"


def main() -> int:
    """Run the list, print a line for each mistake and a summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="SUBSTRING", default="", help="of the name or the file")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mistakes at a time")
    parser.add_argument("--check", action="store_true", help="only look for stale entries")
    given = parser.parse_args()
    wanted = given.only.lower()
    chosen = [m for m in read_list() if wanted in m.name.lower() or wanted in m.file.lower()]
    if not chosen:
        print(f"no mutation has {given.only!r} in its name or file")
        return 1
    if given.check:
        reasons = {m.name: reason for m in chosen if (reason := why_stale(m, ROOT))}
        for name, reason in reasons.items():
            print(f"stale    {name}  [{reason}]")
        return 1 if reasons else 0
    counts = {"caught": 0, "survived": 0, "stale": 0}
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for i in range(given.jobs):
            trees.put(copy_tree(Path(folder, str(i))))
        # Without a mistake all must pass, or a failure would say nothing.
        tree = trees.get()
        code, output = run_tests(tree, tuple(dict.fromkeys(t for m in chosen for t in m.tests)))
        trees.put(tree)
        if code != PASSED:
            print(f"the tests fail before anything is changed:\n{output.strip()[-3000:]}")
            return 1

        def work(mutation: Mutation) -> tuple[str, str]:
            tree = trees.get()
            try:
                return judge(mutation, tree)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(given.jobs) as pool:
            for mutation, (verdict, why) in zip(chosen, pool.map(work, chosen), strict=True):
                counts[verdict] += 1
                print(f"{verdict:8} {mutation.name}" + (f"  [{why}]" if why else ""), flush=True)
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    return 0 if counts["caught"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
