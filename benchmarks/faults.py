"""Break radiffuse on purpose and count what becomes of it; writes ``results/faults.csv``.

    python benchmarks/faults.py [--kills 30] [--inputs 2000] [--seed 0] [--only kill,disk,...] [--folder DIR]

Kill -9 at random moments of every command; a full disk at random sizes; damaged checkpoints, caches and models; the
clock set back; two runs in one folder; a read-only disk; too little memory; damaged input files; and what leaves every
file whole: data, masks and runs that change under a command, and what comes from strangers
(``faults_of_change.py``). Every row of the table is a fault at a place with the outcomes by count. The runs themselves
are in ``tests/fault_runs.py``, which the slow tests use as well. Parts may be run one by one: rows of others stay.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from results import RESULTS, origin

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

from faults_of_change import FAULTS
from faults_of_change import GOOD as GOOD_CHANGES

from fault_runs import COMMANDS, Bench, Runner, differences, fingerprint, half_written
from radiffuse.system.files import write_atomic

NAME = "faults.csv"
PARTS = ("kill", "disk", "damage", "others", "changes", "inputs")
GOOD = GOOD_CHANGES | {
    "identical",
    "refused in one line",
    "finished before",
    "read",
    "read as edited",
    "same result, one warning",
}
Result = tuple[str, str]


class Table:
    """Counts of outcomes by fault and place; written after every try, so that a long run shows what it has."""

    def __init__(self, command: str, partial: bool) -> None:
        self.origin = origin(command)
        self.counts: dict[tuple[str, str], Counter[str]] = {}
        self.bad: list[str] = []
        self.kept = pd.DataFrame()
        if partial and (RESULTS / NAME).is_file():
            self.kept = pd.read_csv(RESULTS / NAME, dtype=str)

    def add(self, fault: str, where: str, result: Result) -> None:
        """Count a try."""
        outcome, detail = result
        self.counts.setdefault((fault, where), Counter())[outcome] += 1
        if outcome not in GOOD:
            self.bad.append(f"{fault}, {where}: {outcome}: {detail}")
            print(self.bad[-1][-2000:], flush=True)
        self.write()

    def write(self) -> None:
        """Write the table."""
        rows = [
            {
                "fault": fault,
                "where": where,
                "tries": counts.total(),
                "outcomes": "; ".join(f"{name} {n}" for name, n in sorted(counts.items())),
                "as it should": sum(n for name, n in counts.items() if name in GOOD),
                **self.origin,
            }
            for (fault, where), counts in self.counts.items()
        ]
        table = pd.DataFrame(rows).astype(str)
        if len(self.kept):
            fresh = set(zip(table["fault"], table["where"], strict=True))
            old = [
                (f, w) not in fresh
                for f, w in zip(self.kept.fault, self.kept["where"], strict=True)
            ]
            table = pd.concat([self.kept[old], table])
        write_atomic(RESULTS / NAME, table.to_csv(index=False))


# ------------------------------------------------------------------------------------------------ faults


def kills(bench: Bench, table: Table, rng: random.Random, count: int) -> None:
    """Half at a random share of the processor time, half just before a random operation on files."""
    names = list(COMMANDS)
    for number in range(count):
        name = names[number % len(names)]
        straight, _ = bench.reference(name)
        if number // len(names) % 2 == 0:
            moment = {"kill_after": rng.uniform(0.02, 0.9) * straight.cpu}
            where = f"{name}, any moment"
        else:
            moment = {"kill_at_write": rng.randrange(straight.writes)}
            where = f"{name}, before a write"
        table.add("kill -9", where, bench.kill(name, **moment))


def full_disk(bench: Bench, table: Table, rng: random.Random, tries: int) -> None:
    """A file system of a random size, too small, is made large enough after the failure."""
    for name in ("pretrain", "finetune", "synthesize", "predict", "generate", "anatomy"):
        for _ in range(tries):
            table.add("disk full", name, _full_disk(bench, name, rng))


def _full_disk(bench: Bench, name: str, rng: random.Random) -> Result:
    _, straight = bench.reference(name)
    cwd = bench.place(name)
    data, whole = (sum(map(_room, folder.rglob("*"))) for folder in (cwd, straight))
    with mounted(bench.folder) as (disk, size):
        for path in cwd.iterdir():
            shutil.copytree(path, disk / path.name)
        size(data + int(rng.uniform(0.05, 0.95) * (whole - data)))
        first = bench.run(COMMANDS[name].split(), disk)
        if first.code == 0:
            return "finished before", ""
        if not first.clear:
            return "no clear line", first.text
        if wrong := half_written(disk):
            return "half-written file", ", ".join(wrong)
        size(4 * whole + 2**24)
        second = bench.run(COMMANDS[name].split(), disk)
        if second.code:
            return "does not finish", second.text
        wrong = differences(bench.result(name, straight), bench.result(name, disk))
        return ("differs", ", ".join(wrong)) if wrong else ("identical", "")


def _room(path: Path) -> int:
    """Bytes that a file takes in a file system of pages of 4 KiB; a folder takes none."""
    return 4096 * -(-path.stat().st_size // 4096) if path.is_file() else 0


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A file system in memory, and what sets its size; needs the right to mount."""
    disk = Path(tempfile.mkdtemp(prefix="disk-", dir=folder))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(disk)], check=True)

    def size(count: int) -> None:
        option = f"remount,size={max(count, 2**16) // 1024}k"
        subprocess.run(["mount", "-o", option, str(disk)], check=True)

    try:
        yield disk, size
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def damage(bench: Bench, table: Table, rng: random.Random) -> None:
    """A file of a run or of the cache is changed between a kill, or the end, and the next command."""
    for where in (
        "newest checkpoint",
        "both checkpoints",
        "prepared arrays",
        "journal of the arrays",
    ):
        for kind in ("truncated", "bit flipped", "file missing"):
            table.add(kind, where, _damaged_run(bench, where, kind, rng))
    for where, words in (("model of a run", "predict"), ("plan of a run", "predict")):
        for kind in ("truncated", "bit flipped", "file missing"):
            table.add(kind, where, _damaged_model(bench, where, kind, rng, words))


def _hurt(files: list[Path], kind: str, rng: random.Random) -> None:
    path = rng.choice(sorted(files))
    raw = bytearray(path.read_bytes())
    if kind == "file missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(raw[: rng.randrange(len(raw))])
    else:
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)


def _damaged_run(bench: Bench, where: str, kind: str, rng: random.Random) -> Result:
    straight, reference = bench.reference("finetune")
    cwd = bench.place("finetune")
    words = COMMANDS["finetune"].split()
    # Just before the last checkpoint would be written: two older ones are there.
    bench.run(words, cwd, kill_at_write=int(0.75 * straight.writes))
    steps = sorted((cwd / "out" / "state").glob("step-*"))
    if "checkpoint" in where:
        for step in steps if where.startswith("both") else steps[-1:]:
            _hurt([p for p in step.iterdir() if p.is_file()], kind, rng)
    elif where == "prepared arrays":
        _hurt(list((cwd / "cache" / "prepared").rglob("*.npy")), kind, rng)
    else:
        _hurt(list((cwd / "cache" / "prepared").rglob("rows.jsonl")), kind, rng)
    second = bench.run(words, cwd)
    if second.code:
        return "does not finish", second.text
    wrong = differences(bench.result("finetune", reference), bench.result("finetune", cwd))
    return ("differs", ", ".join(wrong)) if wrong else ("identical", "")


def _damaged_model(bench: Bench, where: str, kind: str, rng: random.Random, name: str) -> Result:
    cwd = bench.place(name)
    run = cwd / "seg"
    files = [run / "plan.json"] if where.startswith("plan") else list((run / "model").glob("m*"))
    _hurt(files, kind, rng)
    outcome = bench.run(COMMANDS[name].split(), cwd)
    if outcome.clear:
        return "refused in one line", ""
    if outcome.code == 0 and kind == "bit flipped" and where.startswith("plan"):
        return "read as edited", ""  # a plan is there to be edited
    return "no clear line", outcome.text


def others(bench: Bench, table: Table) -> None:
    """The clock, the lock, permissions, memory."""
    words = COMMANDS["finetune"].split()
    straight, reference = bench.reference("finetune")

    cwd = bench.place("finetune")
    bench.run(words, cwd, kill_at_write=int(0.7 * straight.writes))
    again = bench.run(words, cwd, clock=-10 * 365 * 86400.0)
    wrong = differences(bench.result("finetune", reference), bench.result("finetune", cwd))
    result = (
        ("identical", "") if not again.code and not wrong else ("differs", f"{wrong} {again.text}")
    )
    table.add("clock set back ten years", "finetune", result)

    import fcntl

    cwd = bench.place("finetune")
    (cwd / "out").mkdir()
    with (cwd / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = bench.run(words, cwd)
    held = "in use by another process" in second.text and second.clear
    table.add("second run in one folder", "finetune", _line(held, second.text))

    with mounted(bench.folder) as (disk, _):
        for path in bench.place("finetune").iterdir():
            shutil.copytree(path, disk / path.name)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused = bench.run(words, disk)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        table.add("read-only disk", "finetune", _line(refused.clear, refused.text))

    cwd = bench.place("pretrain")
    large = COMMANDS["pretrain"].split()
    place = large.index("--training.batch_size")
    large[place + 1 : place + 2] = ["38", "--training.steps", "2"]
    free = bench.run(large, cwd)
    whole = fingerprint(cwd / "out")
    losses = _losses(cwd)
    shutil.rmtree(cwd / "out")
    for megabytes in (160, 120, 90, 70, 50):
        starved = bench.run(large, cwd, memory=megabytes * 2**20)
        said = starved.text.count("images at a time do not fit into memory; going on")
        if starved.code == 0 and said == 1:
            near = max(abs(a - b) / abs(a) for a, b in zip(losses, _losses(cwd), strict=True))
            good = near < 1e-4 and set(whole) == set(fingerprint(cwd / "out"))
            result = ("same result, one warning" if good else "differs", f"{near}")
        elif starved.code == 0:
            result = ("identical" if fingerprint(cwd / "out") == whole else "differs", starved.text)
        else:
            result = (
                "refused in one line" if starved.clear_after_warning else "no clear line",
                starved.text,
            )
        table.add(f"address space of {megabytes} MB more", "pretrain", result)
        shutil.rmtree(cwd / "out", ignore_errors=True)
    assert free.code == 0, free.text


def _line(good: bool, text: str) -> Result:
    return ("refused in one line", "") if good else ("no clear line", text)


def _losses(cwd: Path) -> list[float]:
    from radiffuse.train.run import Run

    return [row["loss"] for row in Run(cwd / "out").log() if "loss" in row]


def inputs(table: Table, rng: random.Random, count: int) -> None:
    """Real files with bits turned over or cut, in every format: the readers' own error, or an image."""
    import damaged_files

    with tempfile.TemporaryDirectory() as folder:
        samples = damaged_files.make_all(Path(folder) / "whole")
        names = sorted(samples)
        for number in range(count):
            name = names[number % len(names)]
            began = time.monotonic()
            result = damaged_files.attempt(samples[name], Path(folder) / "hurt", rng)
            if time.monotonic() - began > 60:
                result = ("hangs", name)
            table.add("damaged file", name, result)


def changes(bench: Bench, table: Table, names: str) -> None:
    """Faults of ``faults_of_change.py`` whose function has one of the names; all where none is given."""
    for (kind, where), attempt in FAULTS.items():
        if not names or attempt.__name__ in names.split(","):
            try:
                table.add(kind, where, attempt(bench))
            except Exception as error:
                table.add(kind, where, (f"{type(error).__name__}", str(error)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--disks", type=int, default=2, help="tries per command")
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--changes", default="", help="only these of the part 'changes'")
    parser.add_argument("--folder", type=Path, default=None, help="where the runs are kept")
    settings = parser.parse_args()
    parts = settings.only.split(",")
    options = {name: vars(settings)[name] for name in ("kills", "disks", "inputs", "seed")}
    command = " ".join(["benchmarks/faults.py", *(f"--{k} {v}" for k, v in options.items())])
    if len(parts) < len(PARTS):
        command += f" --only {settings.only}"
    table = Table(command, partial=len(parts) < len(PARTS))
    with tempfile.TemporaryDirectory() as temporary, Runner() as run:
        bench = Bench(run, settings.folder or Path(temporary))
        bench.folder.mkdir(exist_ok=True)
        if "kill" in parts:
            kills(bench, table, random.Random(settings.seed), settings.kills)
        if "disk" in parts:
            full_disk(bench, table, random.Random(settings.seed + 1), settings.disks)
        if "damage" in parts:
            damage(bench, table, random.Random(settings.seed + 2))
        if "others" in parts:
            others(bench, table)
        if "changes" in parts:
            changes(bench, table, settings.changes)
    if "inputs" in parts:
        inputs(table, random.Random(settings.seed + 3), settings.inputs)
    print(RESULTS / NAME)
    if table.bad:
        sys.exit(f"{len(table.bad)} tries did not end as they should:\n" + "\n".join(table.bad))


if __name__ == "__main__":
    main()
