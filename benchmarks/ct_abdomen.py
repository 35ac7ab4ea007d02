"""A real abdomen segmented by a model that saw procedural ones alone: Dice by organ, and a figure.

    radiffuse predict RUN CT --only images/abdomen --out MASKS
    radiffuse evaluate MASKS CT --only images/abdomen --truth-classes totalsegmentator-v1 --out EVAL
    python benchmarks/ct_abdomen.py EVAL --command "radiffuse ..."

Writes ``ct-abdomen.csv`` and ``docs/images/ct-abdomen.png``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from results import FIGURES, origin, write_table

from radiffuse.reports.parts import load_overlays
from radiffuse.reports.pictures import overlays

FIGURE = FIGURES / "ct-abdomen.png"


def main() -> None:
    """Copy the scores, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--command", required=True)
    given = parser.parse_args()
    cases = pd.read_csv(given.evaluation / "cases.csv", dtype={"case": str, "group": str})
    columns = ["class", "dice", "hd95", "truth_voxels", "predicted_voxels"]
    write_table(cases[columns], origin(given.command), "ct-abdomen.csv")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    of_case = cases.groupby("case")["dice"].mean().to_dict()
    found = load_overlays(given.evaluation / "overlays.npz", of_case)
    overlays(found[:1]).savefig(FIGURE, dpi=110)
    print(FIGURE)


if __name__ == "__main__":
    main()
