"""Image synthesis measured: ``python benchmarks/synthesis.py CLASSES --work FOLDER``.

The films are parted by patient: the generator learns from one part, without classes, and is judged on the other. Every
part is a command that resumes, so the same call goes on.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from radiffuse.config import Data, Split
from radiffuse.data.layouts import open_dataset
from radiffuse.data.splits import load_splits

TEST = 1 / 3
"""Share of the patients that the generator never sees."""


def part(classes: Path, work: Path) -> None:
    """Copies of the films in ``train`` and ``test``, by patient, and ``splits.json`` for classification."""
    dataset = open_dataset(classes, Data())
    settings = Split(file=str(work / "splits.json"), test=TEST)
    test = set(load_splits(dataset, settings, work, 0).test)
    for case in dataset:
        out = work / ("test" if case.name in test else "train") / str(case.target)
        out.mkdir(parents=True, exist_ok=True)
        for image in case.images:
            shutil.copy(image, out)


def main() -> None:
    """Part the films."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classes", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    part(given.classes, given.work)


if __name__ == "__main__":
    main()
