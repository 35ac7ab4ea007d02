"""Plan for whole collections: ``python benchmarks/scale_plan.py`` turns ``results/scale.csv`` into ``scale-plan.csv``.

Only multiplication: unit cost of one thread, times how many. What is assumed of the collections stands in capitals.
"""

from __future__ import annotations

import pandas as pd
from results import RESULTS

from radiffuse.system.files import write_atomic

FILMS = 868_000
"""Chest films that Jimenez-Perez et al. 2024 trained on; here of 2048 x 2048 pixels, 8 bits."""
FILM_SIDE = 256
VOLUMES = 10_000
MEGAVOXELS = 512 * 512 * 300 / 1e6
"""A CT of 512 x 512 x 300 voxels, brought to half its resolution along each axis."""
VOLUME_SHRINKS = 8
EMBEDDING_BYTES = 768 * 4
PRETRAIN_IMAGES = 100_000 * 64
"""Steps and batch of the recipe ``ptdr-paper``."""
DAY = 24


def plan(measured: pd.DataFrame) -> pd.DataFrame:
    """Bytes and hours of every stage.

    Args:
        measured: ``results/scale.csv``.

    Returns:
        One row per stage: set, stage, cases, core_hours, cores_for_a_day, gb_read, gb_kept.
    """
    unit = {row["what"]: float(row["value"]) for _, row in _units(measured).iterrows()}
    source = FILMS * unit["bytes of a film"]
    arrays = FILMS * 2 * FILM_SIDE**2
    scans = VOLUMES * MEGAVOXELS * unit["bytes of a volume"]
    volumes = VOLUMES * MEGAVOXELS * 1e6 * 2 / VOLUME_SHRINKS
    gflop = unit["ptdr-paper, training step of an image"] * PRETRAIN_IMAGES
    rows = [
        ("films", "prepare", FILMS, FILMS * unit["film 2048 to 256"], source, arrays),
        (
            "films",
            "embed with DINOv2-base",
            FILMS,
            FILMS * unit["film DINOv2-base"],
            arrays,
            FILMS * EMBEDDING_BYTES,
        ),
        ("films", "masks at 256", FILMS, FILMS * unit["film masks"], source, FILMS * FILM_SIDE**2),
        (
            "films",
            "pretrain, ptdr-paper",
            PRETRAIN_IMAGES,
            gflop * unit["denoiser step"],
            PRETRAIN_IMAGES * 2 * FILM_SIDE**2,
            0,
        ),
        (
            "volumes",
            "prepare",
            VOLUMES,
            VOLUMES * MEGAVOXELS * unit["volume"],
            scans,
            volumes,
        ),
    ]
    return pd.DataFrame(
        {
            "set": name,
            "stage": stage,
            "cases": cases,
            "core_hours": _rounded(seconds / 3600),
            "cores_for_a_day": max(1, round(seconds / 3600 / DAY)),
            "gb_read": _rounded(read / 1e9),
            "gb_kept": _rounded(kept / 1e9),
        }
        for name, stage, cases, seconds, read, kept in rows
    )


def _units(measured: pd.DataFrame) -> pd.DataFrame:
    return measured[measured["part"] == "units"]


def _rounded(value: float) -> float | int:
    """Three figures, and no fraction of what is large."""
    short = float(f"{value:.3g}")
    return int(short) if short >= 100 else short


def main() -> None:
    """Write the plan."""
    table = plan(pd.read_csv(RESULTS / "scale.csv"))
    path = RESULTS / "scale-plan.csv"
    write_atomic(path, table.to_csv(index=False))
    print(path)


if __name__ == "__main__":
    main()
