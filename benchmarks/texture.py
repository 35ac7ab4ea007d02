"""How much CT varies within an organ, real and drawn: ``python benchmarks/texture.py SHARED/ct-abdomen``.

Of each organ, a voxel away from its edge: the standard deviation in HU (from the quartiles, so that a stray vessel or
cyst does not decide), and the correlation of neighbors along each axis. The real scans are those of TotalSegmentator
in ``ct-abdomen``, at 3 mm and at .98 x .98 x 2 mm; procedural abdomens, plain and textured, stand beside the first.
Writes ``texture.csv``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from results import origin, write_table
from scipy.ndimage import binary_erosion

from radiffuse.phantoms import draw

REAL = {
    "abdomen": "example_ct (TotalSegmentator v1, 104 classes)",
    "slab": "example_ct_dicom (v2 total)",
}
ORGANS = {
    "spleen": "spleen",
    "liver": "liver",
    "pancreas": "pancreas",
    "aorta": "aorta",
    "inferior vena cava": "inferior_vena_cava",
    "right kidney": "kidney_right",
}
FEWEST = 200
"""Voxels of an organ that are enough."""


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path)
    parser.add_argument("--count", type=int, default=8, help="procedural abdomens")
    given = parser.parse_args()
    rows = list(real(given.scans))
    for textured in (False, True):
        drawn = [row for i in range(given.count) for row in one(i, textured)]
        table = pd.DataFrame(drawn).groupby(["scan", "spacing", "organ"], sort=False)
        rows += table.mean().reset_index().to_dict("records")
    table = pd.DataFrame(rows).round(3)
    command = "python benchmarks/texture.py ../shared/data/ct-abdomen"
    write_table(table, origin(command), "texture.csv")


def real(folder: Path) -> Iterator[dict[str, Any]]:
    """Both scans of ``ct-abdomen``."""
    names = json.loads((folder / "labels.json").read_text())
    for scan, classes in REAL.items():
        image = nib.load(folder / "images" / f"{scan}.nii.gz")
        label = nib.load(folder / "labels" / f"{scan}.nii.gz")
        values = {name: int(value) for value, name in names[classes].items()}
        known = {ours: values[theirs] for ours, theirs in ORGANS.items() if theirs in values}
        spacing = " x ".join(f"{float(mm):.3g}" for mm in image.header.get_zooms())
        yield from measured(
            np.asarray(image.dataobj, np.float64),
            np.asarray(label.dataobj).astype(int),
            known,
            {"scan": f"real {scan}", "spacing": spacing},
        )


def one(index: int, textured: bool) -> Iterator[dict[str, Any]]:
    """A procedural abdomen at the voxels of the real one."""
    drawing = draw("abdomen", 0, index, (120, 120, 80), (3.0, 3.0, 3.0), textured=textured)
    values = {name: drawing.classes.index(name) for name in ORGANS}
    scan = f"drawn, {'textured' if textured else 'plain'}"
    yield from measured(
        drawing.image.astype(np.float64),
        drawing.label,
        values,
        {"scan": scan, "spacing": "3 x 3 x 3"},
    )


def measured(
    image: np.ndarray, label: np.ndarray, values: Mapping[str, int], about: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """A row for each organ that is large enough."""
    for organ, value in values.items():
        inside = binary_erosion(label == value)
        if inside.sum() < FEWEST:
            continue
        low, middle, high = np.percentile(image[inside], (25, 50, 75))
        spread = (high - low) / 1.349
        inside &= np.abs(image - middle) < 4 * spread
        rest = np.where(inside, image - image[inside].mean(), np.nan)
        shared = {
            f"neighbors_{axis}": float(np.nanmean(rest * np.roll(rest, 1, i)) / np.nanvar(rest))
            for i, axis in enumerate("xyz")
        }
        yield about | {"organ": organ, "hu": middle, "std": spread} | shared


if __name__ == "__main__":
    main()
