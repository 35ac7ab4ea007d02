"""Segmentation at the films' own size: resolutions, starts and methods with the same computing time, on unseen films.

    python benchmarks/native_size.py run WORK DATA NAME --draw 0 --minutes 8 -- FLAGS OF FIT
    python benchmarks/native_size.py publish WORK TABLE --reference NAME
    python benchmarks/native_size.py figure TABLE --of "the lungs"

``run`` trains with few labels and one thread for ``--minutes`` of processor time (steps are counted from what ten steps
cost, so that other work on the machine does not matter; 0: as the flags say), segments all films and scores them at
their own size: Dice, HD95, surface Dice at 2 pixels and at 1 % of the longest side. Films of the training pool whose
label was not used are the part ``dev``, on which anything is decided; ``publish`` reports the part ``test``, over any
number of draws, and writes every score to ``results/scores/TABLE.csv.gz``, which it takes for ``WORK`` as well. Of runs
that expect a Dice of each mask it says how often the true one lay in the interval, and how often that was promised.
``figure`` draws ``docs/images/TABLE.svg`` of both: means and intervals of the table, and the mean of each draw.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from results import (
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
from radiffuse.evaluation.statistics import (
    MARGIN,
    clustered_difference,
    clustered_mean,
    holm,
    verdict,
)
from radiffuse.evaluation.tables import BOUNDS, evaluate_cases
from radiffuse.reports.style import INK, MARKED, MARKERS, SERIES, SOFT, styled

BATCH = 8
METRICS = ("dice", "hd95", "nsd", "nsd_1pct")
EXPECTED = {key: f"expected_{key}" for key in ("dice", "low", "high", "level")}
"""Columns of what was expected of each mask, by its keys in ``masks.jsonl``; only automatic runs expect anything."""
MANY: tuple[str, Any, str] = (INK, "-", "95 %, new patients and draws")
ONE: tuple[str, Any, str] = (SOFT, (0, (2, 2)), "95 %, new patients, this draw")
"""Color, line and meaning of an interval from several draws, and from one."""


def main() -> None:
    """Run one cell of the table, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("work", type=Path)
    run.add_argument("data")
    run.add_argument("name")
    run.add_argument("--draw", type=int, default=0)
    run.add_argument("--labels", type=int, default=5)
    run.add_argument("--minutes", type=float, default=8.0, help="of one core; 0: as the flags say")
    publish = commands.add_parser("publish")
    publish.add_argument("work", type=Path)
    publish.add_argument("table")
    publish.add_argument("--reference", required=True)
    publish.add_argument("--part", default="test")
    figure = commands.add_parser("figure")
    figure.add_argument("table")
    figure.add_argument("--of", default="", help="what is segmented, for the axis")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    given = parser.parse_args(words[:cut])
    if given.command == "run":
        _run(given, words[cut + 1 :])
    elif given.command == "publish":
        _publish(given)
    else:
        table = pd.read_csv(RESULTS / f"{given.table}.csv")
        write_figure(draw(table, read_scores(scores_path(given.table)), given.of), given.table)


@styled
def draw(table: pd.DataFrame, scores: pd.DataFrame, of: str = "") -> Figure:
    """Dice by method: the mean with its interval, and the mean of each draw of the labels.

    Args:
        table: Columns name, class, labels, draws, dice, dice_low and dice_high; a panel for each class.
        scores: Columns name, class, labels, draw and dice, one row for each film.
        of: What is segmented, for the axis.
    """
    keys = ["name", "labels"]
    order = table.groupby(keys)["dice"].mean().sort_values().index
    many = table["labels"].nunique() > 1
    names = [f"{name}, {labels} labels" if many else name for name, labels in order]
    classes, draws = sorted(set(table["class"])), sorted(set(scores["draw"]))
    looks = {
        number: {"color": color, "marker": marker, "linestyle": "", **MARKED}
        for number, color, marker in zip(draws, cycle(SERIES), cycle(MARKERS))
    }
    figure = Figure(figsize=(max(7.6, 2.4 * len(classes) + 2.6), 1.4 + 0.3 * len(order)))
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, classes, strict=True):
        rows = table[table["class"] == kind].set_index(keys)
        parts = scores[scores["class"] == kind].groupby([*keys, "draw"])["dice"].mean()
        for y, key in enumerate(order):
            if key not in rows.index:
                continue
            row = rows.loc[key]
            color, line, _ = MANY if row["draws"] > 1 else ONE
            axes.hlines(y, row["dice_low"], row["dice_high"], color=color, linestyle=line)
            axes.plot(row["dice"], y, "|", color=color, markersize=13, markeredgewidth=2)
            for number, dice in parts[key].items():
                axes.plot(dice, y, **looks[number])
        axes.grid(axis="x")
        axes.set_xlabel(f"Dice of {of}" if of else "Dice")
        if len(classes) > 1:
            axes.set_title(str(kind))
    panels[0].set_yticks(range(len(order)), names)
    panels[0].set_ylim(-0.6, len(order) - 0.4)
    handles = [Line2D([], [], **look) for look in looks.values()]
    seen = [
        look
        for look, there in zip((MANY, ONE), (table["draws"] > 1, table["draws"] == 1), strict=True)
        if there.any()
    ]
    handles += [Line2D([], [], color=color, linestyle=line) for color, line, _ in seen]
    words = [f"draw {number} of the labels" for number in draws]
    words += [word for _, _, word in seen]
    figure.legend(handles, words, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


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
            _seconds([*fit, "--training.steps", str(n), "--out", f"{out}-{n}"]) for n in (4, 14)
        )
        steps = round(60 * given.minutes / max((more - few) / 10, 1e-3))
        fit += ["--training.steps", str(steps)]
    trained = _seconds([*fit, "--out", str(out)])
    predicted = _seconds(
        ["predict", str(out), given.data, "--out", f"{out}-masks", "--machine.threads", "1"]
    )
    splits = json.loads((out / "splits.json").read_text())
    dataset = open_dataset(Path(given.data), Data())
    used = _budget(out)
    classes = json.loads((Path(f"{out}-masks") / "classes.json").read_text())
    classes = [classes[key] for key in sorted(classes, key=int)]
    digest = sha256(" ".join(sorted(used)).encode()).hexdigest()[:8]
    lines = (Path(f"{out}-masks") / "masks.jsonl").read_text().splitlines()
    expected = {line["case"]: line.get("expected", {}) for line in map(json.loads, lines)}
    rows = []
    for case in dataset:
        part = next((part for part in ("test", "validation") if case.name in splits[part]), "dev")
        if case.name in used and part == "dev":
            continue
        image = read_case_image(case)
        truth = read_case_label(case, image)
        mask = read_label(Path(f"{out}-masks") / f"{case.name}.png")
        one = 0.01 * max(image.array.shape[1:])
        scores = evaluate_cases([(case.name, mask, truth)], classes)
        wide = evaluate_cases([(case.name, mask, truth)], classes, one)
        for row, other in zip(scores.to_dict("records"), wide.to_dict("records"), strict=True):
            rows.append(
                {
                    "name": given.name, "labels": given.labels, "draw": given.draw, "case": case.name,
                    "group": case.group, "part": part, "class": row["class"], "steps": _steps(out),
                    "learned": digest, "hardware": hardware(),
                    "train_seconds": round(trained), "predict_seconds": round(predicted),
                    **{key: row[key] for key in METRICS[:-1]},
                    "nsd_1pct": other["nsd"], "flags": shlex.join(flags),
                    **{EXPECTED[k]: v for k, v in expected[case.name].get(row["class"], {}).items()},
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    table.to_csv(f"{out}.csv", index=False)
    print(given.name, given.draw, _steps(out), "steps", round(trained), "s")
    print(table.groupby(["part", "class"])[list(METRICS)].mean().round(4))


def _steps(run: Path) -> int:
    log = run / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return max((line.get("step", 0) for line in lines), default=0)


def _budget(run: Path) -> set[str]:
    """Names of the labelled cases that were learned from."""
    return set(json.loads((run / "data.json").read_text())["split"]["train"])


def _seconds(words: Sequence[str]) -> float:
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
        f"{script} run WORK DATA NAME --draw {draws} -- FLAGS; "
        f"{script} publish WORK {given.table} --reference {given.reference}"
    )
    table = write_scores(table, given.table)
    for rows, end in ((_means(table), ""), (_pairs(table, given.reference), "-paired")):
        if len(rows):
            here = {key: value for key, value in source.items() if key not in rows}
            write_table(rows, here, f"{given.table}{end}.csv")


def _means(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each name, number of labels and class."""
    rows = []
    for (labels, name, kind), part in table.groupby(["labels", "name", "class"]):
        row = {"name": name, "class": kind, "labels": labels}
        row |= {"draws": part["draw"].nunique(), "films": part["case"].nunique()}
        for metric in METRICS:
            keys = {"draw": list(part["draw"]), "group": list(part["group"])}
            found = clustered_mean(
                part[metric], **keys, bounds=BOUNDS[metric.removesuffix("_1pct")]
            )
            row |= {metric: found.mean, f"{metric}_low": found.low, f"{metric}_high": found.high}
        row |= _kept(part)
        cost = part.groupby("draw")[["steps", "train_seconds", "predict_seconds"]].first().mean()
        rows.append(row | cost.to_dict() | {"flags": part["flags"].iloc[0]} | _where(part))
    return pd.DataFrame(rows)


def _where(*parts: pd.DataFrame) -> dict[str, str]:
    """The hardware of the runs, which need not be that of whoever publishes them."""
    known = pd.concat([part.reindex(columns=["hardware"]) for part in parts])["hardware"].dropna()
    return {"hardware": "; ".join(sorted(set(known)))} if len(known) else {}


def _kept(part: pd.DataFrame) -> dict[str, float]:
    """How often the Dice lay in the interval that was expected of the mask, and how often that was promised."""
    known = part.reindex(columns=["dice", *EXPECTED.values()]).dropna()
    if not len(known):
        return {}
    inside = known["dice"].between(known[EXPECTED["low"]] - 5e-5, known[EXPECTED["high"]] + 5e-5)
    return {
        "expected_dice": known[EXPECTED["dice"]].mean(),
        "kept": inside.mean(),
        "promised": known[EXPECTED["level"]].mean(),
    }


def _pairs(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each name against the reference on the draws and films that both have; p is adjusted within a metric."""
    rows = []
    keys = ["labels", "class", "draw", "case", "group"]
    rival = table[table["name"] == reference]
    for (labels, name, kind), part in table.groupby(["labels", "name", "class"]):
        both = part.merge(rival, on=keys, suffixes=("", "_r"))
        _refuse_other_labels(both, name, reference)
        for metric in METRICS if name != reference and len(both) else ():
            test = clustered_difference(
                both[metric],
                both[f"{metric}_r"],
                draw=list(both["draw"]),
                group=list(both["group"]),
            )
            row = {"name": name, "class": kind, "reference": reference, "labels": labels}
            row |= {"metric": metric, "difference": test.difference, "low": test.low}
            row |= {"high": test.high, "p_value": test.p_value, "draws": test.draws}
            rows.append(row | {"patients": test.n, "note": test.note} | _where(part, rival))
    pairs = pd.DataFrame(rows)
    for metric, part in pairs.groupby("metric") if rows else ():
        adjusted = holm(part["p_value"])
        pairs.loc[part.index, "p_holm"] = adjusted
        sides = part[["low", "high"]] if metric != "hd95" else -part[["high", "low"]]
        margin = MARGIN if metric != "hd95" else 0.0  # fewer pixels are better, and any matters
        pairs.loc[part.index, "verdict"] = [
            verdict(low, high, p, draws=draws, margin=margin)
            for (low, high), p, draws in zip(sides.to_numpy(), adjusted, part["draws"], strict=True)
        ]
    return pairs


def _refuse_other_labels(both: pd.DataFrame, name: str, reference: str) -> None:
    """A draw is one set of labelled films; scores from before this was kept have no column of it."""
    known = both.reindex(columns=["draw", "learned", "learned_r"]).dropna()
    other = sorted({*known[known["learned"] != known["learned_r"]]["draw"]})
    if other:
        draws = ", ".join(map(str, other))
        problem = f"{name} and {reference} did not learn from the same films in draw {draws}"
        raise SystemExit(f"{problem}. Run both with the same --split flags")


if __name__ == "__main__":
    main()
