"""Plans for twelve kinds of data on five machines, beside those of nnU-Net: writes ``results/plans.csv``.

    python benchmarks/plans.py [--nnunet PYTHON]

The data are described by hand: shapes, spacings and the sizes of their structures, from the papers that published them.
Ceilings come from ellipsoids of these sizes, which are brought to every grid and back. ``--nnunet`` names a Python with
nnunetv2, whose ``ExperimentPlanner`` then plans for the same fingerprints (without one these columns stay empty). It
plans for a GPU memory alone, by default of 8 GB; time, cores and structures play no part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from results import RESULTS

from radiffuse.config import resolve_network
from radiffuse.data import ceiling
from radiffuse.data.ceiling import Ceiling, candidates
from radiffuse.data.fingerprint import ClassFacts, Fingerprint, Intensities
from radiffuse.system.files import write_atomic
from radiffuse.train.planning.configuration import Request
from radiffuse.train.planning.machine import GIB, MachineFacts
from radiffuse.train.planning.search import configure

HOURS = 2.0
VALUES = (Intensities(0.0, 2.0),)


@dataclass(frozen=True)
class Data:
    """A kind of data.

    Attributes:
        cases: Labelled ones.
        shape: Median, rows and columns or (right, anterior, superior).
        spacing: In mm; None: unknown.
        structures: Diameter of typical structures of each class, in mm, or pixels where the spacing is unknown.
        channels: Of the input.
        body: Share of each axis that the body spans.
    """

    cases: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    structures: tuple[float, ...]
    channels: int = 1
    body: tuple[float, ...] | None = None


DATA = {
    "chest film, lungs and heart": Data(247, (2500, 2048), (0.14, 0.14), (250.0, 120.0)),
    "panoramic, caries": Data(500, (1435, 2943), None, (150.0, 20.0)),
    "bitewing, caries": Data(200, (1200, 1600), None, (250.0, 30.0)),
    "fundus, vessels": Data(40, (1024, 1024), None, (120.0, 6.0)),
    "ultrasound, muscles": Data(1000, (480, 640), None, (90.0, 60.0)),
    "BTCV": Data(
        30, (512, 512, 135), (0.76, 0.76, 3.0), (110.0, 60.0, 30.0, 12.0), 1, (0.8, 0.6, 1.0)
    ),
    "AMOS MR": Data(
        40, (320, 260, 72), (1.19, 1.19, 3.0), (110.0, 60.0, 30.0, 12.0), 1, (0.9, 0.8, 1.0)
    ),
    "ACDC": Data(100, (216, 256, 10), (1.56, 1.56, 10.0), (45.0, 30.0, 12.0)),
    "BraTS": Data(484, (240, 240, 155), (1.0, 1.0, 1.0), (50.0, 25.0, 20.0), 4, (0.57, 0.7, 0.9)),
    "prostate MR": Data(32, (320, 320, 20), (0.62, 0.62, 3.6), (40.0, 20.0), 2),
    "cxr-lungs": Data(59, (512, 512), None, (150.0,)),
    "ct-sarcoma": Data(10, (150, 150, 48), (0.98, 0.98, 3.27), (40.0,), 1, (1.0, 0.8, 1.0)),
}
MACHINES = {
    "2 cores, 8 GB": MachineFacts("cpu", "2 cores", 0.8 * 8e9, 0.12e12, False),
    "16 cores, 64 GB": MachineFacts("cpu", "16 cores", 0.8 * 64e9, 0.8e12, False),
    "8 GB card": MachineFacts("cuda", "8 GB card", 0.92 * 8e9, 8e12, True),
    "24 GB card": MachineFacts("cuda", "24 GB card", 0.92 * 24e9, 30e12, True),
    "80 GB card": MachineFacts("cuda", "80 GB card", 0.92 * 80e9, 80e12, True),
}
"""Operations per second in training, from the speed tables of this project and about a quarter of what makers state."""
CARD = {"8 GB card": 8, "24 GB card": 24, "80 GB card": 80}
"""nnU-Net's ``gpu_memory_target_in_gb``; on CPUs its default, 8."""

NNUNET = """
import json, sys
import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
jobs, rows = json.load(sys.stdin), []
for job in jobs:
    planner = ExperimentPlanner.__new__(ExperimentPlanner)
    fake = {"channel_names": {str(i): "MRI" for i in range(job["channels"])},
            "labels": {str(i): i for i in range(job["classes"])}}
    planner.__dict__.update(dataset_json=fake, dataset_name="d", suppress_transpose=False, anisotropy_threshold=3,
        dataset_fingerprint={"spacings": [job["spacing"]], "shapes_after_crop": [job["shape"]],
                             "median_relative_size_after_cropping": 1.0},
        UNet_base_num_features=32, UNet_reference_val_3d=560000000, UNet_reference_val_2d=85000000,
        UNet_reference_com_nfeatures=32, UNet_reference_val_corresp_GB=8, UNet_reference_val_corresp_bs_2d=12,
        UNet_reference_val_corresp_bs_3d=2, UNet_featuremap_min_edge_length=4,
        UNet_blocks_per_stage_encoder=(2,) * 14, UNet_blocks_per_stage_decoder=(2,) * 13, UNet_min_batch_size=2,
        UNet_max_features_2d=512, UNet_max_features_3d=320, max_dataset_covered=0.05,
        UNet_vram_target_GB=job["gb"], preprocessor_name="p", plans_identifier="p", overwrite_target_spacing=None)
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    planner.UNet_class = PlainConvUNet
    spacing, shape = job["spacing"], np.asarray(job["shape"], float)
    if len(spacing) == 3:
        spacing = planner.determine_fullres_target_spacing().tolist()
        shape = np.round(shape * np.asarray(job["spacing"]) / np.asarray(spacing))
    voxels = float(np.prod(shape)) * job["cases"]
    plan = planner.get_plans_for_configuration(spacing, shape, "d", voxels, {})
    arch = plan["architecture"]["arch_kwargs"]
    rows.append({"spacing": list(spacing), "patch": [int(n) for n in plan["patch_size"]],
                 "batch": int(plan["batch_size"]), "stages": arch["n_stages"]})
print(json.dumps(rows))
"""


def fingerprint(data: Data) -> Fingerprint:
    """What ``take_fingerprint`` would say of the data."""
    spacing = data.spacing or (1.0,) * len(data.shape)
    body = data.body or (1.0,) * len(data.shape)
    bodies = tuple(round(n * share) for n, share in zip(data.shape, body, strict=True))
    values = VALUES * data.channels
    return Fingerprint(
        cases=data.cases,
        labelled=data.cases,
        channels=data.channels,
        ct=False,
        unit="mm" if data.spacing else "px",
        shapes=(data.shape,),
        spacings=(spacing,),
        bodies=(bodies,),
        body=values,
        foreground=values,
        classes=tuple(
            ClassFacts(f"{size:g}", data.cases, 0.01, size**2, 1, size) for size in data.structures
        ),
    )


def ceilings(data: Data, found: Fingerprint) -> tuple[Ceiling, ...]:
    """The ceilings of ellipsoids, half as long again along the first axis, that lie beside the grid."""
    dims, step = len(data.shape), np.asarray(found.spacing)
    pieces = []
    for value, size in enumerate(data.structures, start=1):
        axes = np.asarray((1.5 * size, *(size,) * (dims - 1))) / 2 / step
        half = np.ceil(axes + 8).astype(int)
        places = np.indices(2 * half) - half.reshape(-1, *(1,) * dims) + 0.3
        inside = ((places / axes.reshape(-1, *(1,) * dims)) ** 2).sum(0) < 1
        pieces.append(ceiling._Piece(value, inside.astype(np.uint8), data.spacing, data.shape))
    results = []
    for grid in candidates(found):
        scores = [ceiling._score(piece, grid) for piece in pieces]
        results.append(Ceiling(grid, *(tuple(column) for column in zip(*scores, strict=True))))
        if results[-1].reaches():
            break
    return tuple(results)


def rows() -> Iterator[dict[str, Any]]:
    """Our plans."""
    for name, data in DATA.items():
        found = fingerprint(data)
        known = ceilings(data, found)
        for machine, facts in MACHINES.items():
            request = Request(
                kind="fit", images=data.cases, classes=len(data.structures) + 1, hours=HOURS
            )
            configured = configure(found, known, facts, request)
            plan, training = configured.plan, configured.training
            assert plan.size is not None
            fixed = training.network
            assert fixed is not None
            unet = resolve_network(
                fixed, spatial_dims=len(plan.size), in_channels=data.channels, out_channels=2
            )
            grid = plan.spacing or plan.grid or plan.size
            reached = next((c for c in known if c.grid == tuple(map(float, grid))), known[-1])
            yield {
                "data": name,
                "machine": machine,
                "hours": HOURS,
                "grid or spacing": text(grid),
                "ceiling Dice": round(min(reached.dice), 3),
                "ceiling surface Dice": round(min(reached.surface), 3),
                "patch": text(plan.size),
                "folds": text(unet.fold),
                "levels": len(unet.multipliers),
                "steps between levels": " ".join(text(step) for step in unet.steps),
                "width": unet.width,
                "batch": training.batch_size,
                "at once": training.micro_batch,
                "recomputed": training.checkpoint_activations,
                "precision": training.precision,
                "steps": training.steps,
                "memory GiB": training.memory_gib,
                "of GiB": round(facts.memory / GIB, 1),
                "minutes": round(training.minutes),
                "why this grid": configured.reasons["spacing" if plan.spacing else "grid"],
            }


def of_nnunet(python: str) -> list[dict[str, Any]]:
    """nnU-Net's plans, in the order of ``rows``; its axes are those of files, the last first."""
    jobs = [
        {
            "shape": data.shape[::-1] if len(data.shape) == 3 else data.shape,
            "spacing": (data.spacing[::-1] if data.spacing else (1.0,) * len(data.shape))
            if len(data.shape) == 3
            else (1.0, 1.0),
            "channels": data.channels,
            "classes": len(data.structures) + 1,
            "cases": data.cases,
            "gb": CARD.get(machine, 8),
        }
        for data in DATA.values()
        for machine in MACHINES
    ]
    done = subprocess.run(
        [python, "-c", NNUNET], input=json.dumps(jobs), capture_output=True, text=True, check=True
    )
    plans = json.loads(done.stdout.splitlines()[-1])
    return [
        {
            "nnU-Net spacing": text(p["spacing"][::-1]) if len(p["patch"]) == 3 else "as it is",
            "nnU-Net patch": text(p["patch"][::-1] if len(p["patch"]) == 3 else p["patch"]),
            "nnU-Net batch": p["batch"],
            "nnU-Net levels": p["stages"],
        }
        for p in plans
    ]


def text(numbers: Any) -> str:
    """Numbers along axes."""
    return "x".join(f"{number:g}" for number in numbers)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nnunet", help="Python with nnunetv2")
    given = parser.parse_args()
    table = pd.DataFrame(rows())
    if given.nnunet:
        table = pd.concat([table, pd.DataFrame(of_nnunet(given.nnunet))], axis=1)
    table["command"] = "python benchmarks/plans.py" + " --nnunet PYTHON" * bool(given.nnunet)
    table["date"] = date.today().isoformat()
    write_atomic(RESULTS / "plans.csv", table.to_csv(index=False))
    print(f"{len(table)} plans in {RESULTS / 'plans.csv'}")


if __name__ == "__main__":
    main()
