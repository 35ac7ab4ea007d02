"""The raw data of nnU-Net 2: its folder of images and labels, and ``dataset.json``.

Its format: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.readers.write import write_image, write_label
from ..data.scan import Scan
from ..data.transform import in_gray
from ..system.files import write_json

RESERVED = ("background", "ignore")
"""Names that mean something to nnU-Net; a class of the data set that is called so is written as ``ignore (class)``."""


def write_raw(
    folder: Path,
    dataset: Dataset,
    classes: Sequence[str],
    training: Sequence[str],
    testing: Sequence[str],
) -> str:
    """Write ``imagesTr``, ``labelsTr``, ``imagesTs`` and, last, ``dataset.json`` into ``nnUNet_raw/Dataset001_name``.

    Films are written as TIFF with their gray values, in color too where the data set has one channel, and volumes as
    NIfTI in their own geometry. Ignored pixels become nnU-Net's class ``ignore``. The labels of ``testing`` are not
    written.

    Returns:
        The extension of the files: ``.tif`` or ``.nii.gz``.

    Raises:
        InputError: A case cannot be read, or the disk is full or read-only.
    """
    cases = {case.name: case for case in dataset}
    first = read_case_image(cases[training[0]])
    ending = ".tif" if first.spatial_dims == 2 else ".nii.gz"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    ignored = False
    for name in training:
        scan = _write_image(folder / "imagesTr", cases[name], ending, len(dataset.channels))
        ignored |= _write_label(folder / "labelsTr", cases[name], scan, ending, len(classes))
    for name in testing:
        _write_image(folder / "imagesTs", cases[name], ending, len(dataset.channels))
    channels = [*dataset.channels]
    if first.unit == "HU":
        channels = ["CT"] * len(channels)
    names = [f"{name} (class)" if name in RESERVED else name for name in classes]
    labels = {"background": 0} | {name: i for i, name in enumerate(names) if i}
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


def _write_image(folder: Path, case: Case, ending: str, channels: int) -> Scan:
    scan = read_case_image(case)
    array = in_gray(scan, channels)
    if np.issubdtype(scan.array.dtype, np.integer):
        array = np.rint(array).astype(scan.array.dtype)
    for number, channel in enumerate(array):
        write_image(folder / f"{case.name}_{number:04d}{ending}", channel, scan)
    return scan


def _write_label(folder: Path, case: Case, image: Scan, ending: str, classes: int) -> bool:
    """Write a label map, and return whether it has ignored pixels."""
    scan = read_case_label(case, image)
    mask = scan.array[0]
    ignored = mask == IGNORE
    plain = np.where(ignored, classes, mask).astype(np.uint8)
    path = folder / f"{case.name}{ending}"
    if ending == ".tif":
        write_image(path, plain, scan)
    else:
        write_label(path, plain, scan)
    return bool(ignored.any())
