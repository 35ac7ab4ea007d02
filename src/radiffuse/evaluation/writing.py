"""Score cases one by one and leave what a report needs: ``cases.csv`` and ``overlays.npz``."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data.scan import Array, Scan
from ..system.files import write_atomic
from .folders import evaluate_cases

OVERLAY_SIDE = 256
OVERLAY_CASES = 64


def write_evaluation(
    quadruples: Iterable[tuple[str, Scan, Scan, Scan]],
    classes: Sequence[str],
    out: Path,
    *,
    tolerance: float = 2.0,
    groups: dict[str, str] | None = None,
) -> Path:
    """Score cases against the truth.

    Args:
        quadruples: Name, image, predicted and true label map; each is read, scored and let go.
        classes: Names by label value, background first.
        out: Folder for ``cases.csv`` and ``overlays.npz``.
        tolerance: Of the surface Dice, in mm (in pixels where the spacing is unknown).
        groups: Patient of each case, which becomes the column ``group``.

    Returns:
        The path of ``cases.csv``.
    """
    overlays: list[tuple[str, Array, Array, Array]] = []

    def keep() -> Iterator[tuple[str, Scan, Scan]]:
        for name, image, prediction, truth in quadruples:
            if len(overlays) < OVERLAY_CASES:
                overlays.append((name, *thumbnails(image, prediction, truth)))
            yield name, prediction, truth

    table = evaluate_cases(keep(), classes, tolerance)
    if groups is not None:
        table.insert(1, "group", [groups[name] for name in table["case"]])
    if overlays:
        write_overlays(out / "overlays.npz", overlays)
    path = out / "cases.csv"
    write_atomic(path, table.to_csv(index=False))
    return path


def write_overlays(path: Path, overlays: Sequence[tuple[str, Array, Array, Array]]) -> None:
    """Write name, image, prediction and truth of cases, padded to one size, as uint8 arrays."""
    height = max(image.shape[0] for _, image, _, _ in overlays)
    width = max(image.shape[1] for _, image, _, _ in overlays)

    def stack(index: int) -> Array:
        result = np.zeros((len(overlays), height, width), np.uint8)
        for i, row in enumerate(overlays):
            part = np.asarray(row[index])
            result[i, : part.shape[0], : part.shape[1]] = part
        return result

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=np.array([name for name, *_ in overlays]),
        image=stack(1),
        prediction=stack(2),
        truth=stack(3),
    )
    write_atomic(path, buffer.getvalue())


def thumbnails(image: Scan, prediction: Scan, truth: Scan) -> tuple[Array, Array, Array]:
    """Small uint8 pictures ``(rows, columns)`` of image, predicted and true labels.

    Of a volume it is the axial slice with the most labelled voxels, right side of the body on the left.
    """
    arrays = [image.array.astype(np.float32).mean(0), prediction.array[0], truth.array[0]]
    if image.spatial_dims == 3:
        labelled = ((arrays[2] > 0) & (arrays[2] < 255)).sum(axis=(0, 1))
        where = int(labelled.argmax()) if labelled.any() else arrays[0].shape[2] // 2
        arrays = [np.flip(array[:, :, where].T, 0) for array in arrays]
    step = max(1, -(-max(arrays[0].shape) // OVERLAY_SIDE))
    arrays = [array[::step, ::step] for array in arrays]
    low, high = np.percentile(arrays[0], (0.5, 99.5))
    gray = np.clip((arrays[0] - low) / max(float(high - low), 1e-6), 0, 1) * 255
    return gray.astype(np.uint8), arrays[1].astype(np.uint8), arrays[2].astype(np.uint8)
