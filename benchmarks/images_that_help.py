"""Where drawn films lose what a classifier needs: ``python benchmarks/images_that_help.py CLASSES --work FOLDER``.

From a film to one that was drawn of it leads a chain, and a classifier is trained on what each link leaves: the real
films of a pool; their embeddings (logistic regression); the films through the autoencoder, without and with a
perceptual term; films drawn at their own embeddings; films drawn by each strategy; and the likely half of twice as many
(``classify --judge --likely``). All are tested on the same films, of patients that neither classifier nor generator has
seen. Each link has two classifiers: of the drawn films alone, and of as many together with the real ones.

Every part resumes, so the same call goes on; calls with other ``--pool`` add rows. Writes
``results/images-that-help.csv`` and, to ``results/scores/``, what every classifier said of every film, and fills the
claims on classification.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from results import (
    RESULTS,
    beside,
    fill_claim,
    origin,
    overall,
    read_scores,
    scores_path,
    write_scores,
    write_table,
)
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import radiffuse
from radiffuse.config import Classify, Data, Machine, Split
from radiffuse.config.values import from_dict
from radiffuse.evaluation.statistics import verdict
from radiffuse.nets.encoder import load_encoder
from radiffuse.studies.augment import MEAN, summarize
from radiffuse.synthesis.embedding import embed
from radiffuse.train.cases import prepare_dataset
from radiffuse.train.classes import ClassifiedFilms, classified_films
from radiffuse.train.run import Run
from synthesis import TEST, part

Floats = NDArray[np.float64]

NAME = "images-that-help"
RAISED = 0.2
"""Share by which AUROC rises, of claim dino-4."""
PERCEPTUAL = 1.0
"""Weight of the perceptual term where there is one."""
RIDGE = 1e-3
"""Weight of the squared coefficients of the logistic regression, whose inputs have standard deviation 1."""
CPU = {"accelerator": "cpu", "threads": 1}
SPARE = 1.25
"""How many times as many films are drawn as are left without near copies."""
LINKS: Mapping[str, Mapping[str, Any]] = {
    "reconstruction": {"strategy": ("reconstruction",)},
    "reconstruction, perceptual term": {"strategy": ("reconstruction",)},
    "own embedding": {"strategy": ("variation",), "guidance": 1.0},
    "own embedding, guidance 2": {"strategy": ("variation",), "guidance": 2.0},
    "interpolate": {"strategy": ("interpolate",), "guidance": 1.0},
    "perturb": {"strategy": ("perturb",), "guidance": 1.0},
    "interpolate, likely half": {"strategy": ("interpolate",), "guidance": 1.0},
}
"""How the films of a link are drawn of those of a pool."""


def main() -> None:
    """Train the synthesizers once, then the classifiers of each link; write what is there after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classes", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--dino-steps", type=int, default=1500)
    parser.add_argument("--vae-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=4000, help="of the denoiser")
    parser.add_argument("--pool", type=int, default=200, help="real films of a classifier")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--classifier-steps", type=int, default=300)
    parser.add_argument("--drawing-steps", type=int, default=15)
    given = parser.parse_args()
    if not (given.work / "parts" / "test").exists():
        part(given)
    whole, perceptual = synthesizers(given)
    films = classified_films(from_dict(Classify, _classify(given, given.draws - 1)))
    parts: list[pd.DataFrame] = []
    for draw in range(given.draws):
        real = _trained(given, draw, "real")
        parts += [
            _arm("real", draw, real),
            _arm("embedding", draw, by_embedding(given, films, whole, draw)),
        ]
    for link in LINKS:
        run = perceptual if "perceptual" in link else whole
        for draw in range(given.draws):
            parts += drawn(given, films, run, link, draw)
        publish(given, pd.concat(parts), films.classes)


def synthesizers(given: argparse.Namespace) -> tuple[Path, Path]:
    """A synthesizer of the films that no classifier is tested on, and the same with a perceptual autoencoder."""
    common = {
        "data": str(given.work / "parts" / "train"),
        "plan": {"size": (given.size, given.size)},
        "reader": _reader(given),
        "machine": CPU,
    }
    whole = radiffuse.synthesize(
        **common,
        out=str(given.work / "runs" / "whole"),
        dino={"training": {"steps": given.dino_steps}},
        vae={"training": {"steps": given.vae_steps}},
        training={"steps": given.steps},
    ).folder
    other = radiffuse.synthesize(
        **common,
        out=str(given.work / "runs" / "perceptual"),
        encoder=str(whole / "encoder" / "model"),
        vae={"training": {"steps": given.vae_steps}, "perceptual": PERCEPTUAL},
        training={"steps": 1},  # its denoiser draws nothing
    ).folder
    return whole, other


def by_embedding(
    given: argparse.Namespace, films: ClassifiedFilms, run: Path, draw: int
) -> pd.DataFrame:
    """Probabilities of the test films by logistic regression on embeddings of the pool."""
    reader, machine = Data(cache=_reader(given)["cache"]), Machine(**CPU)
    plan = Run(run).plan
    prepared = prepare_dataset(films.dataset, plan, reader, machine, labelled=False)
    encoder = load_encoder(str(run / "encoder" / "model"))
    rows = np.asarray(embed(prepared, encoder, machine, Path(_reader(given)["cache"])), np.float64)
    cases, classes = prepared.cases, list(films.classes)
    wanted = films.splits.budget(given.pool, draw)
    pool = [i for i, case in enumerate(cases) if case.name in set(wanted)]
    test = [i for i, case in enumerate(cases) if case.name in set(films.splits.test)]
    truth = np.array([classes.index(str(cases[i].target)) for i in pool])
    center, spread = rows[pool].mean(0), rows[pool].std(0) + 1e-9
    found = logistic((rows[pool] - center) / spread, truth, (rows[test] - center) / spread)
    known = [(cases[i].name, cases[i].group, str(cases[i].target)) for i in test]
    return pd.DataFrame(known, columns=["case", "group", "class"]).assign(
        **dict(zip(classes, found.T, strict=True))
    )


def logistic(rows: Floats, truth: NDArray[np.int64], others: Floats) -> Floats:
    """Probabilities ``(m, K)`` of other rows by a multinomial logistic regression with a ridge, fitted to rows."""
    classes = int(truth.max()) + 1
    inputs = np.column_stack([rows, np.ones(len(rows))])

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(-1, classes)
        logs = log_softmax(inputs @ weights, axis=1)
        error = np.exp(logs)
        error[np.arange(len(rows)), truth] -= 1
        value = -logs[np.arange(len(rows)), truth].mean() + RIDGE * float(
            np.square(weights[:-1]).sum()
        )
        slope = inputs.T @ error / len(rows)
        slope[:-1] += 2 * RIDGE * weights[:-1]
        return value, slope.ravel()

    start = np.zeros(inputs.shape[1] * classes)
    weights = minimize(loss, start, jac=True, method="L-BFGS-B").x.reshape(-1, classes)
    found: Floats = softmax(np.column_stack([others, np.ones(len(others))]) @ weights, axis=1)
    return found


def drawn(
    given: argparse.Namespace, films: ClassifiedFilms, run: Path, link: str, draw: int
) -> list[pd.DataFrame]:
    """The two classifiers of a link."""
    likely = "likely" in link
    names = set(films.splits.budget(given.pool, draw))
    root = films.dataset.root
    paths = sorted(
        c.images[0].relative_to(root).as_posix() for c in films.dataset if c.name in names
    )
    drawing = dict(LINKS[link])
    if "guidance" in drawing:
        drawing |= {"sampler": "dpm++", "steps": given.drawing_steps}
    # Each film is a parent as often as the others, so each class has as many films as in the pool.
    times = round(SPARE * 2 + 0.5) if likely else 1
    out = given.work / "drawn" / f"{link}-{draw}"
    radiffuse.generate(
        **drawing,
        run=str(run),
        out=str(out),
        references=str(given.classes),
        count=times * given.pool,
        seed=draw,
        reader=_reader(given) | {"only": "^(?:" + "|".join(map(re.escape, paths)) + ")$"},
        machine=CPU,
    )
    more: dict[str, Any] = {"with_run": (str(out),), "ratio": 1.0}
    if likely:
        more |= {"judge": str(given.work / "classifiers" / f"real-{draw}"), "likely": 0.5}
    arms = ((f"{link}: alone", False), (f"{link}: with the real ones", True))
    return [
        _arm(name, draw, _trained(given, draw, name.replace(": ", "-"), more | {"real": real}))
        for name, real in arms
    ]


def publish(given: argparse.Namespace, results: pd.DataFrame, classes: tuple[str, ...]) -> None:
    """Write the scores, and AUROC and gains of each class and their mean, beside those of pools of other sizes."""
    shown = " ".join(
        f"--{key.replace('_', '-')} {value}"
        for key, value in vars(given).items()
        if key not in ("classes", "work")
    )
    command = f"python benchmarks/images_that_help.py ../shared/data/cxr-classes --work . {shown}"
    scores, table = scores_path(NAME), RESULTS / f"{NAME}.csv"
    every = write_scores(_beside(scores, results.assign(pool=given.pool)), NAME)
    found = summarize(every[every["pool"] == given.pool], classes)
    found = found.rename(columns={"arm": "trained on"}).assign(**origin(command))
    rows = _beside(table, found).sort_values("pool", kind="stable")
    write_table(rows, {}, table.name)
    means = rows[rows["class"] == MEAN]
    _claims(means, command)
    print(means.to_string())


def _beside(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one pool, beside those of others that were kept."""
    return beside(read_scores(path) if path.exists() else None, [rows], "pool")


def _claims(means: pd.DataFrame, command: str) -> None:
    """What became of the claims on classification, of every way of drawing films that were added to the real ones."""
    real = means[means["trained on"] == "real"].set_index("pool")["auroc"]
    drawn = [f"{link}: with the real ones" for link in LINKS if "reconstruction" not in link]
    added = means[means["trained on"].isin(drawn)].rename(columns={"trained on": "arm"})
    few = added[added["pool"] == added["pool"].min()]
    below = (added["gain_high"] / added["pool"].map(real) < RAISED).all()
    for claim, rows in (("dino-4", added), ("dino-5", few)):
        signs = [verdict(r.gain_low, r.gain_high, 0.0, draws=r.draws) for r in rows.itertuples()]
        lost = claim == "dino-4" and below and "better" not in signs
        gains = [(r, r.arm.partition(":")[0]) for r in rows.itertuples()]
        fill_claim(
            claim,
            {
                "command": command,
                "seeds": str(int(rows["draws"].max())),
                "value": "; ".join(f"{r.pool} films, {link}: {r.gain:+.3f}" for r, link in gains),
                "interval": "; ".join(f"{r.gain_low:+.3f} to {r.gain_high:+.3f}" for r, _ in gains),
                "test": "interval over draws and patients",
                "verdict": "worse than claimed" if lost else overall(signs),
            },
        )


def _trained(
    given: argparse.Namespace, draw: int, name: str, more: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    out = given.work / "classifiers" / f"{name}-{draw}"
    if not Run(out).ended:
        radiffuse.classify(**_classify(given, draw), **(more or {}), out=str(out))
    return pd.read_csv(out / "test.csv", dtype={"case": str, "group": str})


def _classify(given: argparse.Namespace, draw: int) -> dict[str, Any]:
    return {
        "data": str(given.classes),
        "labels": given.pool,
        "draw": draw,
        "split": vars(Split(file=str(given.work / "splits.json"), test=TEST)),
        "training": {"steps": given.classifier_steps},
        "plan": {"size": (given.size, given.size)},
        "reader": _reader(given),
        "machine": CPU,
    }


def _reader(given: argparse.Namespace) -> dict[str, str]:
    return {"cache": str(given.work / "cache")}


def _arm(name: str, draw: int, table: pd.DataFrame) -> pd.DataFrame:
    """The probabilities of a classifier as a part of the results."""
    return table.assign(arm=name, draw=draw)


if __name__ == "__main__":
    main()
