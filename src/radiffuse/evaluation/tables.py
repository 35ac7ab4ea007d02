"""From pairs of label maps to a table of scores, and from the table to means with intervals, by class and by size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import IGNORE
from ..data.class_names import ALL_CLASSES
from ..data.scan import Array, Scan, on_grid
from ..errors import InputError
from ..system.cells import read_csv
from .segmentation import score
from .statistics import clustered_mean

if TYPE_CHECKING:
    import pandas as pd

BOUNDS = {"dice": (0.0, 1.0), "iou": (0.0, 1.0), "hd95": (0.0, math.inf), "nsd": (0.0, 1.0)}
"""Least and greatest possible value of each score."""

METRICS = tuple(BOUNDS)
"""Columns of the table that are scores."""

METRIC_NAMES = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "nsd": "surface Dice"}
"""Metrics as axes, tables and lines name them."""

COLUMNS = (
    "case", "class", *METRICS, "counted", "truth_voxels", "predicted_voxels", "unit",
)  # fmt: skip
"""Columns of the table of scores."""

TEXTS = ("case", "class", "group", "method", "arm", "head", "kind", "strategy", "image", "metric")
"""Columns that are text."""
NUMBERS = {
    *("dice", "iou", "hd95", "nsd", "labels", "draw", "step", "timestep", "pixels", "confidence"),
    *(
        "accuracy",
        "value",
        "low",
        "high",
        "mean",
        "auroc",
        "gain",
        "pool",
        "n",
        "draws",
        "distance",
    ),
    *("images", "suspected", "smallest", "median", "error", "same_place"),
}
"""Columns that are numbers."""
MOST_TABLE = 2**30
"""Bytes of the largest table that is read."""
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

    rows = [row for pair in pairs for row in case_rows(*pair, classes, tolerance)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def case_rows(
    name: str, prediction: Scan, truth: Scan, classes: Sequence[str], tolerance: float
) -> list[dict[str, Any]]:
    """The rows of one case, see ``evaluate_cases``."""
    spacing = truth.spacing if truth.spacing is not None else prediction.spacing
    prediction = on_grid(prediction, truth, f"{name}: the prediction", "the truth")
    predicted = _label_map(prediction, name, "prediction", len(classes), ignore=False)
    true = _label_map(truth, name, "truth", len(classes), ignore=True)
    results = map(asdict, score(predicted, true, classes, spacing, tolerance))
    return [{"case": name, "class": row.pop("class_name"), **row} for row in results]


def read_table(path: Path, *columns: str) -> pd.DataFrame:
    """A CSV table that was written before; names stay text, even if they are numbers.

    Args:
        path: The file.
        *columns: Columns that must be there.

    Raises:
        InputError: It is missing, no CSV, larger than ``MOST_TABLE``, lacks a column, or has text for numbers.
    """
    import pandas as pd

    try:
        if path.stat().st_size > MOST_TABLE:
            raise ValueError(f"larger than {MOST_TABLE} bytes")
        names = dict.fromkeys(TEXTS, str)
        header = read_csv(path, nrows=0).columns
        empty = {name: [""] if name in TEXTS else ["", "nan", "NaN"] for name in header}
        table = read_csv(path, names, keep_default_na=False, na_values=empty)
    except FileNotFoundError:
        raise InputError(path, "missing", "Run the command that writes it first") from None
    except (ValueError, OSError, OverflowError) as error:
        raise InputError(path, f"not readable as CSV ({error})", "Repair or remove it") from None
    if missing := [column for column in columns if column not in table]:
        problem = f"lacks the column {', '.join(missing)}"
        raise InputError(path, problem, f"It needs {', '.join(columns)}")
    for column in sorted(NUMBERS & set(table)) if len(table) else ():
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise InputError(path, f"column {column} holds text", "Repair or remove it")
    return table


def read_scores(path: Path) -> pd.DataFrame:
    """A table of scores, with columns for case and class; see ``read_table``."""
    return read_table(path, "case", "class")


def summarize(
    table: pd.DataFrame,
    *,
    by: Sequence[str] = (),
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Mean and interval of each metric, per class and over all classes.

    The overall row (class ``"all"``) averages a case's counted classes first, then the cases, so that every case
    has the same weight. If the table has a column ``group`` (patient) or ``draw``, the interval is for new ones,
    see ``statistics.clustered_mean``.

    Args:
        table: One row per case and class (and method, budget, draw).
        by: Columns whose combinations are summarized separately, such as method and labels.
        metrics: Columns to summarize.

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
                within = BOUNDS.get(metric, (-math.inf, math.inf))
                interval = clustered_mean(scores, draw=draw, group=group, bounds=within)
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


def never_predicted(table: pd.DataFrame) -> list[str]:
    """Classes that the truth of some case shows and no mask does, in the order of a table of scores."""
    if not {"truth_voxels", "predicted_voxels"} <= set(table):
        return []
    voxels = table.groupby("class", sort=False)[["truth_voxels", "predicted_voxels"]].sum()
    lost = (voxels["truth_voxels"] > 0) & (voxels["predicted_voxels"] == 0)
    return [str(name) for name in voxels.index[lost]]


def in_no_mask(classes: Sequence[str], masks: int) -> str:
    """``class caries appears in none of the 12 masks``; '' where there is no such class."""
    if not classes:
        return ""
    several = len(classes) > 1
    named = "class" + "es" * several + f" {', '.join(classes)}"
    if masks == 1:
        return f"{named} {'are' if several else 'is'} missing from the only mask"
    return f"{named} appear{'s' * (not several)} in none of the {masks} masks"


def distance_unit(table: pd.DataFrame) -> str:
    """Unit of ``hd95`` in a table of scores: ``mm``, ``px``, or ``mm or px`` where both occur or nothing says which."""
    units = sorted(set(table["unit"].dropna().astype(str))) if "unit" in table else []
    return " or ".join(units or ("mm", "px"))


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
