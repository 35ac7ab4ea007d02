"""The whole story in minutes, on procedural bitewings: ``python tools/demo.py``.

Draws many unlabelled and a few labelled films, pre-trains by denoising, fine-tunes on very few labels beside the same
network from scratch, and leaves a report. Every step is the public function of the same name.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import radiffuse
from radiffuse.cli.recipes import read_recipe
from radiffuse.errors import RadiffuseError

UNLABELLED = 1600
LABELLED = 120
SIZE = (32, 32)
SEED = 7


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration.

    Args:
        arguments: Command line; None: that of the process.

    Returns:
        0, or 2 for input that cannot be used.
    """
    parser = argparse.ArgumentParser(prog="tools/demo.py", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for data and runs")
    out = parser.parse_args(arguments).out
    try:
        run(out)
    except RadiffuseError as error:
        print(f"radiffuse: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(out: Path) -> Path:
    """Draw, pre-train, fine-tune, compare.

    Returns:
        The report.
    """
    began = time.monotonic()
    print(f"1. drawing {UNLABELLED} unlabelled and {LABELLED} labelled bitewings")
    common: dict[str, Any] = {"kind": "bitewing", "size": SIZE, "seed": SEED}
    radiffuse.anatomy(out=out / "unlabelled", count=UNLABELLED, labelled=False, **common)
    radiffuse.anatomy(out=out / "labelled", count=LABELLED, start=100_000, **common)
    print(
        "2. pre-training on the unlabelled films, then 1 and 5 labels, pre-trained and from scratch"
    )
    settings = read_recipe("demo")
    radiffuse.study(
        config="demo",
        data=out / "labelled",
        unlabelled=out / "unlabelled",
        out=out / "study",
        pretrain=_with_cache(settings.get("pretrain", {}), out / "cache"),
        finetune=_with_cache(settings.get("finetune", {}), out / "cache"),
    )
    _print_comparison(out / "study")
    report = out / "study" / "report.html"
    print(f"done in {(time.monotonic() - began) / 60:.1f} minutes; open {report}")
    return report


def _with_cache(settings: dict[str, Any], cache: Path) -> dict[str, Any]:
    return settings | {"reader": {"cache": str(cache)}}


def _print_comparison(study: Path) -> None:
    """The comparison in a few lines."""
    table = pd.read_csv(study / "comparisons.csv")
    for row in table[table["metric"] == "dice"].to_dict("records"):
        print(
            f"   {row['labels']} label(s): Dice {row['difference']:+.3f} against scratch "
            f"({row['low']:+.3f} to {row['high']:+.3f}): {row['verdict']}"
        )


if __name__ == "__main__":
    sys.exit(main())
