"""Image synthesis measured: ``python benchmarks/synthesis.py CLASSES --lungs LUNGS --work FOLDER``.

The films are parted by patient: the generator learns from one part, without classes, and is judged on the other.
Fidelity is measured along the training and by sampling strategy, then memorization, what synthetic films add to
classification, and lungs segmented without labels. Every part is a command that resumes, so the same call goes on;
``--only`` does some of them. Writes ``synthesis-*.csv`` and a grid of samples.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from results import RESULTS, origin, write_table

import radiffuse
from radiffuse.config import Data, Split
from radiffuse.data.layouts import open_dataset
from radiffuse.data.splits import load_splits
from radiffuse.reports.pictures import sample_grid

TEST = 1 / 3
"""Share of the patients that the generator never sees."""
STEPS = (500, 1000, 1500)
"""Training steps of the denoiser at which it is judged."""
STRATEGIES = ("variation", "interpolate", "perturb", "from-image", "manifold")
COUNT = 350
DRAWING = {"sampler": "dpm++", "steps": 15, "guidance": 1.0}
POOLS = {50: (1.0, 5.0), 200: (1.0, 5.0), 1000: (1.0,)}
"""Real films of classification, and synthetic films per real one."""
CLASSIFIER_STEPS = 300
COLUMNS = 8
CPU = {"accelerator": "cpu"}
FIGURE = RESULTS.parent / "docs" / "images" / "synthetic-films.png"


def main() -> None:
    """Do the parts, then write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classes", type=Path)
    parser.add_argument("--lungs", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--encoder", help="trained before; else on the training part")
    parser.add_argument("--autoencoder", help="trained before; else on the training part")
    parser.add_argument("--only", help=f"comma-separated: {', '.join(PARTS)}")
    given = parser.parse_args()
    for name in (given.only or ",".join(ORDER)).split(","):
        PARTS[name](given)


def part(given: argparse.Namespace) -> None:
    """Copies of the films in ``parts/train`` and ``parts/test``, by patient, and the splits for classification."""
    dataset = open_dataset(given.classes, Data())
    splits = load_splits(dataset, _split(given), given.work, 0)
    test = set(splits.test)
    for case in dataset:
        out = given.work / "parts" / ("test" if case.name in test else "train") / str(case.target)
        out.mkdir(parents=True, exist_ok=True)
        for image in case.images:
            shutil.copy(image, out)


def train(given: argparse.Namespace) -> None:
    """The denoiser, prolonged from one number of steps to the next; a copy of the run is kept at each."""
    for steps in STEPS:
        kept = given.work / "runs" / f"latent-{steps}"
        if kept.exists():
            continue
        run = radiffuse.synthesize(
            data=str(given.work / "parts" / "train"),
            config="synth-64",
            out=str(given.work / "runs" / "latent"),
            encoder=given.encoder,
            autoencoder=given.autoencoder,
            training={"decay": "constant", "average_decay": 0.998, "steps": steps},
            reader=_reader(given),
        )
        shutil.copytree(run, kept)


def draw(given: argparse.Namespace) -> None:
    """Variations at each number of steps, and every strategy at the last."""
    for steps in STEPS:
        radiffuse.generate(
            run=str(given.work / "runs" / f"latent-{steps}"),
            out=str(given.work / "drawn" / str(steps)),
            strategy=STRATEGIES if steps == STEPS[-1] else STRATEGIES[:1],
            references=str(given.work / "parts" / "train"),
            count=COUNT,
            reader=_reader(given),
            machine=CPU,
            **DRAWING,
        )


def judge(given: argparse.Namespace) -> None:
    """Fidelity against films of patients never seen; memorization against the training films."""
    real, seen = (str(given.work / "parts" / name) for name in ("test", "train"))
    for steps in STEPS:
        fake = str(given.work / "drawn" / str(steps))
        out = given.work / "fidelity" / str(steps)
        radiffuse.fidelity(real=real, fake=fake, out=str(out), reader=_reader(given), machine=CPU)
    out = str(given.work / "memorization")
    options = {"reader": _reader(given), "machine": CPU, "held_out": real}
    radiffuse.memorization(real=seen, fake=fake, out=out, **options)


def augment(given: argparse.Namespace) -> None:
    """Classification with and without synthetic films, drawn from the films of each pool."""
    for pool in POOLS:
        _augment(given, pool)


def zeroshot(given: argparse.Namespace) -> None:
    """Lungs by self-attention, on films of another hospital."""
    run, out = given.work / "runs" / f"latent-{STEPS[-1]}", given.work / "zeroshot"
    radiffuse.zeroshot(run=str(run), data=str(given.lungs), out=str(out), machine=CPU)


def publish(given: argparse.Namespace) -> None:
    """Gather what is there into ``results/``, and draw the grid."""
    made = origin("python benchmarks/synthesis.py ../shared/data/cxr-classes")
    tables: dict[str, list[pd.DataFrame]] = {"fidelity": [], "augment": []}
    for steps in STEPS:
        table = pd.read_csv(given.work / "fidelity" / str(steps) / "fidelity.csv")
        tables["fidelity"].append(table.assign(steps=steps))
    for pool in POOLS:
        path = given.work / f"augment-{pool}" / "summary.csv"
        if path.exists():
            tables["augment"].append(pd.read_csv(path))
    tables["memorization"] = [pd.read_csv(given.work / "memorization" / "summary.csv")]
    tables["zeroshot"] = [pd.read_csv(given.work / "zeroshot" / "zeroshot.csv")]
    for name, frames in tables.items():
        if frames:
            write_table(pd.concat(frames), made, f"synthesis-{name}.csv")
    _grid(given.work)


ORDER = ("part", "train", "draw", "judge", "augment", "zeroshot", "publish")
PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "part": part,
    "train": train,
    "draw": draw,
    "judge": judge,
    "augment": augment,
    **{f"augment-{pool}": lambda given, pool=pool: _augment(given, pool) for pool in POOLS},
    "zeroshot": zeroshot,
    "publish": publish,
}


# ------------------------------------------------------------------------------------------------ internal


def _augment(given: argparse.Namespace, pool: int) -> None:
    radiffuse.augment(
        data=str(given.classes),
        out=str(given.work / f"augment-{pool}"),
        with_run=(str(given.work / "runs" / f"latent-{STEPS[-1]}"),),
        ratios=POOLS[pool],
        pools=(pool,),
        drawing={"strategy": ("interpolate",), **DRAWING},
        classify={
            "split": vars(_split(given)),
            "training": {"steps": CLASSIFIER_STEPS, "warmup_steps": 25},
            "plan": {"size": (64, 64)},
            "reader": _reader(given),
            "machine": CPU,
        },
    )


def _split(given: argparse.Namespace) -> Split:
    return Split(file=str(given.work / "splits.json"), test=TEST)


def _reader(given: argparse.Namespace) -> dict[str, str]:
    return {"cache": str(given.work / "cache")}


def _grid(work: Path) -> None:
    """A row of real films of the test part, then one of each strategy; the first ones, not the best."""
    drawn = work / "drawn" / str(STEPS[-1])
    table = pd.read_csv(drawn / "provenance.csv")
    real = sorted((work / "parts" / "test").rglob("*.jpg"))
    rows = [real[:: len(real) // COLUMNS][:COLUMNS]]
    for strategy in STRATEGIES:
        names = table.loc[table["strategy"] == strategy, "image"]
        rows.append([drawn / name for name in names[:: len(names) // COLUMNS][:COLUMNS]])
    films = [Image.open(path).convert("L").resize((64, 64)) for row in rows for path in row]
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    sample_grid(np.stack([np.asarray(film) for film in films]), columns=COLUMNS).savefig(
        FIGURE, dpi=80
    )
    print(FIGURE)


if __name__ == "__main__":
    main()
