"""From pairs of label maps to a table of scores, and from the table to means with intervals, by class and by size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..config import IGNORE
from ..data.scan import Array, Scan
from ..errors import InputError
from .segmentation import score
from .statistics import clustered_mean

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("dice", "iou", "hd95", "nsd")
"""Columns of the table that are scores."""

ALL_CLASSES = "all"
"""Name of the mean over a case's counted classes."""

COLUMNS = (
    "case", "class", *METRICS, "counted", "truth_voxels", "predicted_voxels", "unit",
)  # fmt: skip
"""Columns of the table of scores."""

SIZES = ("small", "medium", "big")
"""Groups of classes, since small and large structures are missed for different reasons."""


def evaluate_cases(
    pairs: Iterable[tuple[str, Scan, Scan]], classes: Sequence[str], tolerance: float = 2.0
) -> pd.DataFrame:
    """Scores of every case and foreground class, one row each, in the columns ``COLUMNS``; ``hd95`` is in ``unit``.

    Args:
        pairs: (name of the case, predicted label map, true label map); read one at a time.
        classes: Names by label value, background first.
        tolerance: Distance up to which surfaces agree, in mm (in pixels if the spacing is unknown).

    Raises:
        InputError: A pair differs in size or place, or holds values outside the classes.
    """
    import pandas as pd

    rows = []
    for name, prediction, truth in pairs:
        predicted = _label_map(prediction, name, "prediction", len(classes), ignore=False)
        true = _label_map(truth, name, "truth", len(classes), ignore=True)
        _same_place(name, prediction, truth)
        spacing = truth.spacing if truth.spacing is not None else prediction.spacing
        for result in score(predicted, true, classes, spacing, tolerance):
            row = asdict(result)
            rows.append({"case": name, "class": row.pop("class_name"), **row})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_scores(path: Path) -> pd.DataFrame:
    """A table of scores that was written before; names stay text, even if they are numbers."""
    import pandas as pd

    return pd.read_csv(path, dtype={"case": str, "group": str, "class": str})


def summarize(
    table: pd.DataFrame,
    *,
    by: Sequence[str] = (),
    metrics: Sequence[str] = METRICS,
    samples: int = 10_000,
) -> pd.DataFrame:
    """Mean and bootstrap interval of each metric, per class and over all classes.

    The overall row (class ``"all"``) averages a case's counted classes first, then the cases, so that every case
    has the same weight. If the table has a column ``group`` (patient) or ``draw``, the interval resamples these, see
    ``statistics.clustered_mean``.

    Args:
        table: One row per case and class (and method, budget, draw).
        by: Columns whose combinations are summarized separately, such as method and labels.
        metrics: Columns to summarize.
        samples: Bootstrap samples.

    Returns:
        Columns ``by``, class, metric, mean, low, high, n (scores that were counted), not_counted.
    """
    import pandas as pd

    rows = []
    parts = table.groupby(list(by), sort=False) if by else [((), table)]
    for key, part in parts:
        per_class = [(str(name), rows_) for name, rows_ in part.groupby("class", sort=False)]
        for name, rows_ in [*per_class, (ALL_CLASSES, over_classes(part, metrics))]:
            draw = rows_["draw"].tolist() if "draw" in rows_ else None
            group = rows_["group" if "group" in rows_ else "case"].tolist()
            for metric in metrics:
                scores = rows_[metric].to_numpy(dtype=np.float64)
                interval = clustered_mean(scores, draw=draw, group=group, samples=samples)
                values = {"class": name, "metric": metric, **asdict(interval)}
                rows.append(dict(zip(by, key, strict=True)) | values)
                rows[-1]["not_counted"] = len(rows_) - interval.n
    columns = [*by, "class", "metric", "mean", "low", "high", "n", "not_counted"]
    return pd.DataFrame(rows, columns=columns)


def over_classes(table: pd.DataFrame, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """One row per case (and method, budget, draw): the mean over its counted classes; the others hold NaN."""
    known = ("method", "labels", "draw", "group", "case")
    keys = [column for column in known if column in table]
    return table.groupby(keys, sort=False, dropna=False)[list(metrics)].mean().reset_index()


def class_sizes(maps: Iterable[Array], classes: Sequence[str]) -> dict[str, float]:
    """Mean number of voxels of each foreground class, over the label maps that have it; 0 if none has."""
    total, present = np.zeros(len(classes)), np.zeros(len(classes))
    for label in maps:
        values = np.asarray(label).ravel()
        counts = np.bincount(values[values != IGNORE], minlength=len(classes))
        total += counts
        present += counts > 0
    sizes = total / np.maximum(present, 1)
    return dict(zip(classes[1:], sizes[1:].tolist(), strict=True))


def size_groups(sizes: Mapping[str, float]) -> dict[str, str]:
    """Divide classes into small, medium and big thirds by voxels; fewer than three classes are all ``big``."""
    ordered = sorted(sizes, key=lambda name: (sizes[name], name))
    if len(ordered) < 3:
        return dict.fromkeys(ordered, "big")
    return {name: SIZES[i * 3 // len(ordered)] for i, name in enumerate(ordered)}


def _label_map(scan: Scan, name: str, role: str, n_classes: int, *, ignore: bool) -> Array:
    """``(*S)`` integers of a label map, or an error that names the case."""
    array = scan.array
    if array.shape[0] != 1:
        problem = f"the {role} has {array.shape[0]} channels"
        raise InputError(name, problem, "Give a label map with one channel")
    array = array[0]
    if not np.issubdtype(array.dtype, np.integer):
        if not (np.isfinite(array).all() and np.array_equal(np.rint(array), array)):
            problem = f"the {role} holds values that are not whole numbers"
            raise InputError(name, problem, "Give a label map, not probabilities or an image")
        array = np.asarray(array, dtype=np.int64)
    outside = (array < 0) | (array >= n_classes)
    if ignore:
        outside &= array != IGNORE
    wrong = np.unique(array[outside])
    if wrong.size:
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if wrong.size > 5 else "")
        problem = f"the {role} holds label {shown} outside the classes 0 to {n_classes - 1}"
        raise InputError(name, problem, "Map the labels to the declared classes, or declare them")
    return np.asarray(array)


def _same_place(name: str, prediction: Scan, truth: Scan) -> None:
    """Raise InputError unless two label maps lie on the same voxels."""
    if prediction.spatial_shape != truth.spatial_shape:
        sizes = [" x ".join(map(str, scan.spatial_shape)) for scan in (prediction, truth)]
        problem = f"the prediction is {sizes[0]} voxels, the truth {sizes[1]}"
        raise InputError(name, problem, "Predict on the image that the truth was drawn on")
    if prediction.affine is None or truth.affine is None:
        return
    corners = np.array(
        [(*c, 1) for c in itertools.product(*((0, n - 1) for n in truth.spatial_shape))]
    )
    if corners.shape[1] != 4:
        return
    shift = float(np.abs(corners @ (prediction.affine - truth.affine).T).max())
    finest = float(np.linalg.norm(truth.affine[:3, :3], axis=0).min())
    if shift > 0.1 * finest:
        problem = f"prediction and truth lie up to {shift:.3g} mm apart in space"
        raise InputError(name, problem, "Save both with the geometry of the same image")
