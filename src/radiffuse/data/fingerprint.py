"""The fingerprint of a data set: shapes and spacings of a few cases, and classes of its label maps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..config import IGNORE
from ..errors import InputError
from .cases import read_case_image, read_case_label
from .dataset import Case, Dataset
from .scan import canonical_shape, canonical_spacing

FINGERPRINT_CASES = 32
"""Cases that are decoded, evenly chosen from the data set."""


@dataclass(frozen=True)
class Fingerprint:
    """What a few decoded cases say.

    Attributes:
        spatial_dims: 2 or 3.
        ct: All of them are CT.
        shapes: Voxels along (right, anterior, superior); of films (rows, columns).
        spacings: In mm along the same axes; 1 where unknown.
    """

    spatial_dims: int
    ct: bool
    shapes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, ...], ...]


def take_fingerprint(dataset: Dataset) -> Fingerprint:
    """Decode a few cases, one at a time.

    Raises:
        InputError: No case can be read, or 2D and 3D are mixed.
    """
    if not dataset.cases:
        raise InputError(dataset.root, "holds no images", "See docs/reference/layouts.md")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, FINGERPRINT_CASES).round().astype(int))
    shapes, spacings, ct = [], [], True
    for i in chosen:
        try:
            scan = read_case_image(dataset.cases[i])
        except InputError:
            continue
        shapes.append(canonical_shape(scan))
        spacings.append(canonical_spacing(scan))
        # NIfTI has no unit: a volume with at least 1 % of values like air is CT too.
        ct = ct and (
            scan.unit == "HU"
            or (scan.spatial_dims == 3 and bool(np.percentile(scan.array, 1) < -500))
        )
    if not shapes:
        read_case_image(dataset.cases[0])  # raises, and names the file
        raise InputError(dataset.root, "has no readable image", "Run radiffuse check on it")
    dims = {len(shape) for shape in shapes}
    if len(dims) > 1:
        raise InputError(dataset.root, "mixes films and volumes", "Put each kind in its own folder")
    return Fingerprint(dims.pop(), ct, tuple(shapes), tuple(spacings))


def find_classes(dataset: Dataset) -> tuple[str, ...]:
    """Names by label value, declared by the data set or found in its label maps.

    Raises:
        InputError: A label map has a value outside 0 to 255, or all hold only 0 and 255 (ignore).
    """
    if dataset.classes:
        return dataset.classes
    ignoring: set[str] = set()

    def highest(case: Case) -> int:
        values = np.unique(read_case_label(case).array)
        if IGNORE in values:
            ignoring.add(case.name)
        values = values[values != IGNORE]
        if len(values) and (values[0] < 0 or values[-1] > IGNORE):
            problem = f"has label values from {values[0]} to {values[-1]}"
            remedy = f"Use 0 to {IGNORE - 1}, and {IGNORE} for what is ignored"
            raise InputError(case.label or case.name, problem, remedy)
        return int(values[-1]) if len(values) else 0

    with ThreadPoolExecutor() as pool:
        top = max(pool.map(highest, dataset.labelled.cases), default=0)
    if top == 0 and ignoring:
        problem = f"has label maps of nothing but 0 and {IGNORE}, which means ignore"
        remedy = f"If {IGNORE} is the foreground, say so with --label-values 0,{IGNORE}"
        raise InputError(dataset.root, problem, remedy)
    return ("background", *(f"class-{value}" for value in range(1, top + 1)))
