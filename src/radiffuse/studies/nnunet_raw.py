"""A data set written as raw data of nnU-Net 2 (github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.readers.write import write_image, write_label
from ..data.scan import Scan
from ..system.files import write_json


def write_raw(
    folder: Path,
    dataset: Dataset,
    classes: Sequence[str],
    training: Sequence[str],
    testing: Sequence[str],
) -> str:
    """Write ``imagesTr``, ``labelsTr``, ``imagesTs`` and, last, ``dataset.json``.

    Films are written as TIFF with their gray values, volumes as NIfTI in their own geometry. Pixels that are not to be
    counted become nnU-Net's class ``ignore``.

    Args:
        folder: Such as ``nnUNet_raw/Dataset001_name``.
        dataset: Where the cases are.
        classes: Names by label value, background first.
        training: Names of the cases that are learned from.
        testing: Names of the cases to segment; their labels are not written.

    Returns:
        The ending of the files: ``.tif`` or ``.nii.gz``.

    Raises:
        InputError: A case cannot be read, or the disk refuses.
    """
    cases = {case.name: case for case in dataset}
    first = read_case_image(cases[training[0]])
    ending = ".tif" if first.spatial_dims == 2 else ".nii.gz"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    ignored = False
    for name in training:
        _write_image(folder / "imagesTr", cases[name], ending)
        ignored |= _write_label(folder / "labelsTr", cases[name], ending, len(classes))
    for name in testing:
        _write_image(folder / "imagesTs", cases[name], ending)
    channels = ["CT"] if first.unit == "HU" else list(dataset.channels)
    labels = {"background": 0} | {name: i for i, name in enumerate(classes) if i}
    if ignored:
        labels["ignore"] = len(classes)
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {str(i): name for i, name in enumerate(channels)},
            "labels": labels,
            "numTraining": len(training),
            "file_ending": ending,
        },
    )
    return ending


def _write_image(folder: Path, case: Case, ending: str) -> None:
    scan = read_case_image(case)
    for number, channel in enumerate(scan.array):
        write_image(folder / f"{case.name}_{number:04d}{ending}", channel, scan)


def _write_label(folder: Path, case: Case, ending: str, classes: int) -> bool:
    """Write a label map; whether it has pixels that are not to be counted."""
    scan: Scan = read_case_label(case)
    mask = scan.array[0]
    ignored = mask == IGNORE
    plain = np.where(ignored, classes, mask).astype(np.uint8)
    path = folder / f"{case.name}{ending}"
    if ending == ".tif":
        write_image(path, plain, scan)
    else:
        write_label(path, plain, scan)
    return bool(ignored.any())
