"""Segmentation at the films' own size: resolutions, starts and methods with the same computing time, on unseen films.

    python benchmarks/native_size.py run WORK DATA NAME --draw 0 --minutes 8 -- FLAGS OF FIT
    python benchmarks/native_size.py after WORK DATA NAME --draw 0 --steps 1=keep:2 --to OTHER
    python benchmarks/native_size.py publish WORK TABLE --reference NAME [OTHER] [--budget 5]
    python benchmarks/native_size.py figure TABLE --of "the lungs"
    python benchmarks/native_size.py outlines FIGURE WORK/NAME-5-0 WORK/OTHER-5-0

``run`` trains with few labels and one thread for ``--minutes`` of processor time (steps are counted from what ten steps
cost, so that other work on the machine does not matter; 0: as the flags say), segments all films or volumes and scores
them at their own size: Dice, HD95, surface Dice at 2 pixels (volumes: 2 mm) and at 1 % of the longest side. Cases of
the training pool whose label was not used are the part ``dev``, on which anything is decided; ``after`` scores such a
run once more, with steps after segmentation or averaged views (``--tta mirror``), as the run OTHER. ``publish`` reports
the part ``test``, over any number of draws, and writes every score to ``results/scores/TABLE.csv.gz``, which it takes
for ``WORK`` as well: each name against each ``--reference``, and with ``--budget 5`` against itself with five labels,
which the same draw of more labels contains (``TABLE-labels.csv``). Of runs that expect a Dice of each mask it says how
often the true one lay in the interval, and how often that was promised. ``figure`` draws ``docs/images/TABLE.svg`` of
both: means and intervals of the table, and the mean of each draw; along the numbers of labels, if the table has
several. ``outlines`` draws ``docs/images/FIGURE.png``: best, median and worst film of the part ``test`` by the Dice of
the first run, at their own size, with the outlines of one run or two.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from native_figures import draw, outlines, small_png
from native_scores import METRICS, measured
from native_tables import COST, EXPECTED, budgets, means, pairs
from results import (
    FIGURES,
    RESULTS,
    hardware,
    origin,
    read_scores,
    scores_path,
    write_figure,
    write_scores,
    write_table,
)

from radiffuse.config import Data
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.data.readers import read_label
from radiffuse.data.readers.write import write_image
from radiffuse.inference.postprocess import postprocess
from radiffuse.reports.pictures import OverlayCase
from radiffuse.system.files import read_yaml, write_atomic
from radiffuse.train.members import members_of
from radiffuse.train.run import Run

BATCH = 8
LIMIT = 300_000
"""Most bytes of a picture in the repository."""


def main() -> None:
    """Run one cell of the table, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run, after = commands.add_parser("run"), commands.add_parser("after")
    for one in (run, after):
        one.add_argument("work", type=Path)
        one.add_argument("data")
        one.add_argument("name")
        one.add_argument("--draw", type=int, default=0)
        one.add_argument("--labels", type=int, default=5)
    run.add_argument("--minutes", type=float, default=8.0, help="of one core; 0: as the flags say")
    how = after.add_mutually_exclusive_group(required=True)
    how.add_argument("--steps", help="after segmentation, apart by commas")
    how.add_argument("--tta", help="views to average, as of predict")
    after.add_argument("--to", required=True, help="name of the masks with these steps")
    publish = commands.add_parser("publish")
    publish.add_argument("work", type=Path)
    publish.add_argument("table")
    publish.add_argument("--reference", nargs="+", required=True, help="compare all with each")
    publish.add_argument("--budget", type=int, help="compare all with these labels")
    publish.add_argument("--part", default="test")
    publish.add_argument("--by", help="what made the scores, if not run")
    figure = commands.add_parser("figure")
    figure.add_argument("table")
    figure.add_argument("--of", default="", help="what is segmented, for the axis")
    figure.add_argument("--names", nargs="+", help="rows of the table; all by default")
    picture = commands.add_parser("outlines")
    picture.add_argument("figure")
    picture.add_argument("runs", type=Path, nargs="+", help="of this script: one or two")
    picture.add_argument("--names", nargs="+", help="how the figure calls the runs")
    picture.add_argument("--part", default="test")
    picture.add_argument(
        "--data", help="the films; by default those that the first run learned from"
    )
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    if given.command == "run":
        _run(given, words[cut + 1 :])
    elif given.command == "after":
        _after(given)
    elif given.command == "publish":
        _publish(given)
    elif given.command == "figure":
        table, scores = pd.read_csv(RESULTS / f"{given.table}.csv"), scores_path(given.table)
        names = given.names or list(table["name"])
        if missing := sorted(set(names) - set(table["name"])):
            raise SystemExit(f"no row of {given.table}.csv is called {', '.join(missing)}")
        table = table[table["name"].isin(names)]
        write_figure(draw(table, read_scores(scores), given.of), given.table)
    else:
        _outlines(given)


def _outlines(given: argparse.Namespace) -> None:
    """Best, median and worst film of the first run, under each run."""
    tables = [read_scores(Path(f"{run}.csv")) for run in given.runs]
    names = given.names or [table["name"].iloc[0] for table in tables]
    if len(set(names)) != len(tables):
        raise SystemExit(f"{len(tables)} runs need as many different --names, not {names}")
    scores = [_by_film(table[table["part"] == given.part]) for table in tables]
    shared = scores[0].index
    for other in scores[1:]:
        shared = shared.intersection(other.index)
    if not len(shared):
        raise SystemExit(f"the runs share no film of the part {given.part}")
    order = scores[0].loc[shared].sort_values("dice", kind="stable").index
    places = {"best": -1, "median": (len(order) - 1) // 2, "worst": 0}
    data = given.data or read_yaml(given.runs[0] / "config.yaml")["settings"]["data"]
    films = {case.name: case for case in open_dataset(Path(data), Data())}
    rows: dict[str, list[tuple[OverlayCase, str]]] = {name: [] for name in names}
    for word, place in places.items():
        case = films[order[place]]
        image = read_case_image(case)
        truth = read_case_label(case, image).array[0]
        for name, run, table in zip(names, given.runs, scores, strict=True):
            mask = read_label(Path(f"{run}-masks") / f"{case.name}.png").array[0]
            found = table.loc[case.name]
            said = f"{case.name}: Dice {found['dice']:.3f}\n"
            said += f"surface Dice {found['nsd']:.2f}, HD95 {found['hd95']:.0f} px"
            heading = f"{word} of {len(order)}"
            shown = OverlayCase(heading, case.name, image.array[0], truth, mask, found["dice"])
            rows[name].append((shown, said))
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / f"{given.figure}.png"
    write_atomic(path, small_png(outlines(rows), LIMIT))
    print(path, path.stat().st_size, "bytes")


def _by_film(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the classes of each film."""
    return table.groupby("case")[["dice", "nsd", "hd95"]].mean()


def _run(given: argparse.Namespace, flags: Sequence[str]) -> None:
    out = given.work / f"{given.name}-{given.labels}-{given.draw}"
    fit = [
        "fit",
        given.data,
        "--labels",
        str(given.labels),
        "--draw",
        str(given.draw),
        "--machine.threads",
        "1",
    ]
    fit += ["--training.seed", str(given.draw), *flags]
    if given.minutes:
        fit += ["--training.batch-size", str(BATCH)]
        few, more = (
            seconds_of([*fit, "--training.steps", str(n), "--out", f"{out}-{n}"]) for n in (4, 14)
        )
        steps = round(60 * given.minutes / max((more - few) / 10, 1e-3))
        fit += ["--training.steps", str(steps)]
    trained = seconds_of([*fit, "--out", str(out)])
    predicted = seconds_of(
        ["predict", str(out), given.data, "--out", f"{out}-masks", "--machine.threads", "1"]
    )
    row = {"name": given.name, "labels": given.labels, "draw": given.draw}
    cost = dict(zip(COST[1:], (round(trained), round(predicted), memory_of(out)), strict=True))
    found = scores_of(out, Path(f"{out}-masks"), given.data, row, cost, flags)
    found.to_csv(f"{out}.csv", index=False)
    print(given.name, given.draw, _steps(out), "steps", round(trained), "s")
    print(found.groupby(["part", "class"])[list(METRICS)].mean().round(4))


def _after(given: argparse.Namespace) -> None:
    """Post-process the masks of a run by ``inference.postprocess``, as the run would with these steps in its plan.

    With ``--tta`` its films are segmented once more instead.
    """
    run, to = (
        given.work / f"{name}-{given.labels}-{given.draw}" for name in (given.name, given.to)
    )
    before, masks = Path(f"{run}-masks"), Path(f"{to}-masks")
    known = pd.read_csv(f"{run}.csv").iloc[0]
    cost = {key: known[key] for key in COST[1:] if key in known}
    if given.tta:
        more = ["--tta", given.tta]
        words = ["predict", str(run), given.data, "--out", str(masks), "--machine.threads", "1"]
        cost["predict_seconds"] = round(seconds_of([*words, *more]))
    else:
        more = ["--plan.postprocess", given.steps]
        shutil.copytree(before, masks)
        step_after(masks, given.steps)
    to.symlink_to(run.resolve())
    row = {"name": given.to, "labels": given.labels, "draw": given.draw}
    flags = [*shlex.split(known["flags"]), *more]
    found = scores_of(run, masks, given.data, row, cost, flags)
    found.to_csv(f"{to}.csv", index=False)
    print(given.to, given.draw)
    print(found.groupby(["part", "class"])[list(METRICS)].mean().round(4))


def step_after(masks: Path, steps: str) -> None:
    """Steps after segmentation, apart by commas, on masks that lie in a folder."""
    for path in masks.glob("*.png"):
        mask = read_label(path)
        write_image(path, postprocess(mask.array[0], steps.split(","), mask.spacing), mask)


def scores_of(
    run: Path,
    masks: Path,
    data: str,
    row: dict[str, Any],
    cost: dict[str, Any],
    flags: Sequence[str],
) -> pd.DataFrame:
    """Scores of the masks of all films that a run did not learn from, each with what is known of the run."""
    splits = json.loads((run / "splits.json").read_text())
    used = _budget(run)
    classes = json.loads((masks / "classes.json").read_text())
    classes = [classes[key] for key in sorted(classes, key=int)]
    digest = sha256(" ".join(sorted(used)).encode()).hexdigest()[:8]
    lines = (masks / "masks.jsonl").read_text().splitlines()
    expected = {line["case"]: line.get("expected", {}) for line in map(json.loads, lines)}
    rows = []
    for case in open_dataset(Path(data), Data()):
        part = next((part for part in ("test", "validation") if case.name in splits[part]), "dev")
        if case.name in used and part == "dev":
            continue
        image = read_case_image(case)
        truth = read_case_label(case, image)
        ending = ".png" if image.spatial_dims == 2 else ".nii.gz"
        mask = read_label(masks / f"{case.name}{ending}")
        for kind, values in measured(image, mask, truth, classes).items():
            where = {"case": case.name, "group": case.group, "part": part, "class": kind}
            known = {"steps": _steps(run), "learned": digest, "hardware": hardware()}
            dice = expected[case.name].get(kind, {})
            hoped = {EXPECTED[key]: value for key, value in dice.items()}
            rows.append(row | where | known | cost | values | {"flags": shlex.join(flags)} | hoped)
    return pd.DataFrame(rows)


def _steps(run: Path) -> int:
    """Steps of the training; of a run that was chosen automatically those of all who vote."""
    logs = (member.log() for member in members_of(Run(run)))
    return sum(max((row["step"] for row in log), default=0) for log in logs)


def memory_of(run: Path) -> float:
    """The most memory that one of its trainings took, in GiB; NaN if none says."""
    costs = [json.loads(path.read_text())["measured"] for path in run.rglob("cost.json")]
    return max((cost["memory_gib"] for cost in costs if "memory_gib" in cost), default=math.nan)


def _budget(run: Path) -> set[str]:
    """Names of the labelled cases that were learned from."""
    return set(json.loads((run / "data.json").read_text())["split"]["train"])


def seconds_of(words: Sequence[str]) -> float:
    """Processor time of a command of radiffuse, which must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "radiffuse", *words],
        check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _publish(given: argparse.Namespace) -> None:
    files = [given.work] if given.work.is_file() else sorted(given.work.glob("*-*-*.csv"))
    table = pd.concat(map(read_scores, files), ignore_index=True)
    table = table[table["part"] == given.part]
    draws = ", ".join(map(str, sorted({*table["draw"]})))
    script = "python benchmarks/native_size.py"
    source = origin(
        (given.by or f"{script} run WORK DATA NAME --draw {draws} -- FLAGS")
        + f"; {script} publish WORK {given.table} --reference {shlex.join(given.reference)}"
        + (f" --budget {given.budget}" if given.budget else "")
        + (f" --part {given.part}" if given.part != "test" else "")
    )
    table = write_scores(table, given.table)
    against = pd.concat([pairs(table, reference) for reference in given.reference])
    tables = {"": means(table), "-paired": against}
    if given.budget:
        tables["-labels"] = budgets(table, given.budget)
    for end, rows in tables.items():
        if len(rows):
            here = {key: value for key, value in source.items() if key not in rows}
            write_table(rows, here, f"{given.table}{end}.csv")


if __name__ == "__main__":
    main()
