"""Image synthesis measured: ``python benchmarks/synthesis.py CLASSES --lungs LUNGS --work FOLDER``.

The films are parted by patient: the generator learns from one part, without classes, and is judged on the other.
Fidelity is measured along the training and by sampling strategy, then memorization, and lungs segmented without
labels; ``images_that_help.py`` measures what synthetic films add to classification. Every part is a command that
resumes, so the same call goes on; ``--only`` does some of them. Writes ``synthesis-*.csv``, a grid of samples, and to
``results/scores/`` how near its closest training film every image is; a Fréchet distance has no cases.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from results import (
    FIGURES,
    fill_claim,
    origin,
    overall,
    write_scores,
    write_table,
)

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
COLUMNS = 8
COMMAND = (
    "radiffuse synthesize ../shared/data/cxr-classes --config synth-64 --dino.training.steps 1500 --out runs/synth "
    "(its encoder and autoencoder); python benchmarks/synthesis.py ../shared/data/cxr-classes --lungs "
    "../shared/data/cxr-lungs --work . --encoder runs/synth/encoder/model --autoencoder runs/synth/autoencoder/model"
)
"""How the committed tables were made."""
NEW_PATIENTS = 0.05
"""Share of new patients that the threshold of memorization suspects."""
SHARE = {"": "suspected", "_low": "low", "_high": "high"}
"""Columns of a summary of memorization, by the ending that they get beside other measures."""
OTHER_STEPS = 900
"""Steps of the denoiser on another kind of image."""
DATA = {"dino-8": "1400 and 700 procedural bitewings, 64 px"}
"""Of the claims that were not tested on ``cxr-classes``."""
CPU = {"accelerator": "cpu"}
FIGURE = FIGURES / "synthetic-films.png"


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
        shutil.copytree(run.folder, kept)


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
        common = {"fake": fake, "reader": _reader(given), "machine": CPU}
        radiffuse.judge(real=real, out=str(out), only=("fidelity",), **common)
    out = str(given.work / "memorization")
    radiffuse.judge(real=seen, out=out, only=("memorization",), held_out=real, **common)


def zeroshot(given: argparse.Namespace) -> None:
    """Lungs by self-attention, on films of another hospital; ``benchmarks/zeroshot.py`` publishes them."""
    run, out = given.work / "runs" / f"latent-{STEPS[-1]}", given.work / "zeroshot"
    films = {"data": str(given.lungs), "out": str(out)}
    radiffuse.zeroshot(run=str(run), method="diffseg", machine=CPU, **films)


def modality(given: argparse.Namespace) -> None:
    """The same recipe on another kind of image, nothing but the folder changed, in fewer steps: drawn dental films."""
    work = given.work / "modality"
    train, test, run, fake = (str(work / name) for name in ("train", "test", "runs/synth", "drawn"))
    films = {"size": (64, 64), "labelled": False, "seed": 11}
    radiffuse.anatomy(kind="bitewing", out=train, count=1400, **films)
    radiffuse.anatomy(kind="bitewing", out=test, count=700, start=5000, **films)
    reader = {"cache": str(work / "cache")}
    dino, vae = ({"training": {"steps": steps}} for steps in (600, 700))
    radiffuse.synthesize(
        data=train,
        config="synth-64",
        out=run,
        dino=dino,
        vae=vae,
        training={"decay": "constant", "average_decay": 0.998, "steps": OTHER_STEPS},
        reader=reader,
    )
    options = {"strategy": STRATEGIES[:1], "references": train, "count": COUNT, "machine": CPU}
    radiffuse.generate(run=run, out=fake, **options, **DRAWING)
    common = {"fake": fake, "machine": CPU}
    radiffuse.judge(real=test, out=str(work / "fidelity"), only=("fidelity",), **common)
    common |= {"out": str(work / "memorization"), "only": ("memorization",)}
    radiffuse.judge(real=train, held_out=test, **common)


def publish(given: argparse.Namespace) -> None:
    """Gather what is there into ``results/``, fill the claims, and draw the grid."""
    made = origin(COMMAND)
    fidelity = pd.concat([_fidelity(given.work / "fidelity" / str(n), n) for n in STEPS])
    other = _modality(given.work / "modality")
    searched = given.work / "memorization"
    copies = pd.read_csv(searched / "summary.csv")
    parts = {"synthetic": "nearest.csv", "real": "real.csv"}
    images = {part: pd.read_csv(searched / name) for part, name in parts.items()}
    distances = [table.assign(part=part) for part, table in images.items()]
    write_scores(pd.concat(distances), "synthesis-memorization")
    tables = {
        "fidelity": fidelity,
        "memorization": copies,
        "modality": other,
    }
    for name, table in tables.items():
        write_table(table, made, f"synthesis-{name}.csv")
    _claims(made["command"], fidelity, copies, other)
    _grid(given.work)


ORDER = ("part", "train", "draw", "judge", "zeroshot", "modality", "publish")
PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "part": part,
    "train": train,
    "draw": draw,
    "judge": judge,
    "zeroshot": zeroshot,
    "modality": modality,
    "publish": publish,
}


# ------------------------------------------------------------------------------------------------ internal


def _split(given: argparse.Namespace) -> Split:
    return Split(file=str(given.work / "splits.json"), test=TEST)


def _reader(given: argparse.Namespace) -> dict[str, str]:
    return {"cache": str(given.work / "cache")}


def _fidelity(folder: Path, steps: int) -> pd.DataFrame:
    """One row per strategy: Fréchet distance with its interval, and the shares."""
    table = pd.read_csv(folder / "fidelity.csv")
    if table["part"].nunique() == 1:
        table["part"] = STRATEGIES[0]
    rows = []
    for name, part in table.groupby("part", sort=False):
        of = part.set_index("measure")
        row: dict[str, object] = {"steps": steps, "strategy": name}
        row |= {"synthetic": of["synthetic"].iloc[0], "real": of["real"].iloc[0]}
        row |= {
            "frechet": of.loc["frechet", "value"],
            "frechet_same_size": of.loc["frechet", "at_floor_size"],
        }
        row |= {side: of.loc["frechet", side] for side in ("low", "high")}
        row |= {name: of.loc[name, "value"] for name in ("precision", "recall", "coverage")}
        row |= {
            "coverage_low": of.loc["coverage", "low"],
            "coverage_high": of.loc["coverage", "high"],
        }
        row |= {
            "frechet_floor": of.loc["frechet", "floor"],
            "coverage_same_size": of.loc["coverage", "at_floor_size"],
            "coverage_floor": of.loc["coverage", "floor"],
            "floor_low": of.loc["coverage", "floor_low"],
            "floor_high": of.loc["coverage", "floor_high"],
        }
        rows.append(row | {"network": of["network"].iloc[0]})
    return pd.DataFrame(rows)


def _modality(work: Path) -> pd.DataFrame:
    """Fidelity on another kind of image, and the share suspected as copies."""
    copies = pd.read_csv(work / "memorization" / "summary.csv").iloc[0]
    shares = {f"suspected{end}": copies[name] for end, name in SHARE.items()}
    return _fidelity(work / "fidelity", OTHER_STEPS).assign(**shares)


def _claims(
    command: str,
    fidelity: pd.DataFrame,
    copies: pd.DataFrame,
    other: pd.DataFrame,
) -> None:
    """What became of the claims of Jimenez-Perez et al. 2024."""
    last = fidelity[(fidelity["steps"] == STEPS[-1]) & (fidelity["strategy"] == "all")].iloc[0]
    shares, dental = copies[copies["strategy"] != "all"], other.iloc[0]
    filled = {
        "dino-1": ("1403 unlabelled films, 64 px, 1500 steps of the denoiser", "", "shown"),
        "dino-2": (
            f"Fréchet distance {last.frechet_same_size:.2f} in films-64's features, real to real at the same size "
            f"{last.frechet_floor:.2f}; not comparable with an FID",
            f"{last.low:.2f} to {last.high:.2f}, of all {last.synthetic} films, corrected for bias",
            "not decided",
        ),
        "dino-3": (
            f"coverage {last.coverage_same_size:.3f}, real to real at the same size "
            f"{last.coverage_floor:.3f}; recall {last.recall:.3f}",
            f"real to real {last.floor_low:.3f} to {last.floor_high:.3f}",
            "not decided" if last.coverage_same_size >= last.floor_low else "worse",
        ),
        "dino-7": (
            "suspected as copies, where 5% of new patients are: "
            + "; ".join(f"{r.strategy} {r.suspected:.1%}" for r in shares.itertuples()),
            "; ".join(f"{r.low:.1%} to {r.high:.1%}" for r in shares.itertuples()),
            overall([copied(r.low, r.high) for r in shares.itertuples()]),
        ),
        "dino-8": (
            f"the recipe of the chest films, unchanged but for fewer steps, on drawn dental films: Fréchet distance "
            f"{dental.frechet_same_size:.2f}, real to real {dental.frechet_floor:.2f}; coverage "
            f"{dental.coverage_same_size:.3f}, real to real {dental.coverage_floor:.3f}",
            f"coverage, real to real, {dental.floor_low:.3f} to {dental.floor_high:.3f}",
            "not decided",
        ),
    }
    for claim, (value, interval, answer) in filled.items():
        fill_claim(
            claim,
            {
                "data": DATA.get(claim, "cxr-classes at 64 px, by patient"),
                "command": command,
                "seeds": "1",
                "value": value,
                "interval": interval,
                "test": "interval over patients" if interval else "",
                "verdict": answer,
            },
        )


def copied(low: float, high: float) -> str:
    """What a share of suspected copies says, by the ends of its interval; nothing is adjusted for their number."""
    if high < NEW_PATIENTS:
        return "better"
    return "worse" if low > NEW_PATIENTS else "not decided"


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
