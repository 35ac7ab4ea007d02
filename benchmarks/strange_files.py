"""Try data sets of strangers through the commands; writes ``results/strange-files.csv``.

    python benchmarks/strange_files.py [--only NAME,NAME] [--folder DIR]

Each kind of ``tests/data/strange_files.py`` goes through ``check``; where that finds no error, through two steps of
training, ``fit`` where there are labels, else ``pretrain``; and through ``predict`` with a network that nobody trained.
``tests/data/test_strange_files.py`` compares the voxels that are read with those that were written.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd
from results import RESULTS, origin

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

from strange_files import KINDS, Kind

from fault_runs import CPU, DEVICE, NET, Outcome, Runner
from radiffuse.data.plan import Plan
from radiffuse.system.files import write_atomic
from tiny_runs import finished_run, volume_plan

NAME = "strange-files.csv"
TRAIN = f"{NET} --training.steps 2 --training.batch_size 2 --training.log_every 1 {CPU}"
SAID = re.compile(r"^\d+ (?:error|warning)s?\n((?:  .*\n?)+)", re.MULTILINE)


def said(outcome: Outcome, folder: Path) -> str:
    """The first error or warning of ``check`` with its remedy, or the one line of a command that was refused."""
    text = outcome.text.replace(f"{folder}/", "").replace(str(folder), "data")
    if found := SAID.search(text):
        lines = [line.strip() for line in found[1].splitlines()]
        more = f" (and {n} more)" if (n := len(lines) - 2) > 0 else ""
        return f"{lines[0]}{more} {lines[-1]}"
    own = [
        line
        for line in outcome.lines
        if line.startswith("radiffuse: ") and not line.startswith("radiffuse: next: ")
    ]
    if not own and outcome.code == 0:
        return ""
    line = (
        (own or text.splitlines() or [""])[-1]
        .replace(f"{folder}/", "")
        .replace(str(folder), "data")
    )
    return line.removeprefix("radiffuse: ").split(" Expected is ")[0]


def attempt(
    run: Runner, name: str, kind: Kind, folder: Path, models: dict[str, Path]
) -> dict[str, object]:
    """One row of the table."""
    data = folder / name
    data.mkdir()
    kind.make(data)
    check = run(["check", data], folder)
    row: dict[str, object] = {
        "kind": name,
        "what": kind.title,
        "check": {0: "fine", 2: "refused"}.get(check.code, "crashed"),
        "says": said(check, data),
        "training": "",
        "masks": "",
    }
    if row["check"] == "fine" and row["says"]:
        row["check"] = "warned"
    good = check.code == 2 * kind.refused and kind.says in check.text
    if check.code == 0:
        command = "fit" if kind.labelled else "pretrain"
        volumes = re.search(r"^Size .* x .* x ", check.text, re.MULTILINE) is not None
        size = "--size 16,16,16" if volumes else "--size 32,32"
        words = f"{size} {TRAIN}" + (" --labels 1" if kind.labelled else "")
        trained = run([command, data, "--out", folder / "run" / name, *words.split()], folder)
        row["training"] = command if trained.code == 0 else said(trained, data)
        masks = folder / "masks" / name
        model = models["volumes" if volumes else "films"]
        predicted = run(["predict", model, data, "--out", masks, *DEVICE.split()], folder)
        made = [p for p in masks.glob("*") if p.suffix in (".png", ".gz")] if masks.is_dir() else []
        row["masks"] = str(len(made)) if predicted.code == 0 else said(predicted, data)
        good = good and trained.code == 0 and predicted.code == 0
    return row | {"as it should": "yes" if good else "no"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of kinds; other rows are kept")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the data and runs are kept"
    )
    settings = parser.parse_args()
    names = settings.only.split(",") if settings.only else list(KINDS)
    old = pd.DataFrame({"kind": []})
    if settings.only and (RESULTS / NAME).is_file():
        old = pd.read_csv(RESULTS / NAME, dtype=str, keep_default_na=False)
    rows: dict[str, dict[str, object]] = {row["kind"]: row for row in old.to_dict("records")}
    facts = origin("benchmarks/strange_files.py")
    with tempfile.TemporaryDirectory() as temporary, Runner({"COLUMNS": "2000"}) as run:
        folder = settings.folder or Path(temporary)
        os.makedirs(folder, exist_ok=True)
        films = Plan(2, ("image",), ("background", "a"), (32, 32))
        models = {
            "films": finished_run(folder / "films", films, seed=1),
            "volumes": finished_run(folder / "volumes", volume_plan(), seed=1),
        }
        for name in names:
            rows[name] = attempt(run, name, KINDS[name], folder, models) | facts
            print(name, {k: v for k, v in rows[name].items() if k not in facts}, flush=True)
            kept = [rows[each] for each in KINDS if each in rows]
            write_atomic(RESULTS / NAME, pd.DataFrame(kept).to_csv(index=False))
    if bad := [name for name in names if rows[name]["as it should"] != "yes"]:
        sys.exit(f"did not end as they should: {', '.join(bad)}")


if __name__ == "__main__":
    main()
