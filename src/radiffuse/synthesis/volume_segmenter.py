"""Writes segments of volumes, and masks where labelled volumes that cost no annotation gave the segments names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..config import ZeroShot
from ..data.cases import read_case_label
from ..data.copies import finder
from ..data.dataset import Case, Dataset
from ..data.fingerprint import find_classes
from ..data.readers import label_suffix, read_label, write_label
from ..data.scan import Scan
from ..errors import InputError
from ..inference.masks import Facts, Files, read_scan_of
from ..inference.records import Record
from ..system.files import make_folder, write_json
from ..system.saying import say
from ..train.run import Run
from .clusters import read_clusters
from .dense import DenseWindows, open_volumes
from .overlaps import (
    Overlap,
    dice_of_names,
    matched_across,
    name_by_overlap,
    overlap_of,
)
from .reading import counted, readable, verify_kind
from .volumes import VolumeClusters, find_volume_clusters, read_volume_places, segment_volume

LEAST = 0.2
"""Dice with a class that segments have to exceed on the volumes that give names: below, a name would mislead. [ours]"""


@dataclass(frozen=True)
class VolumeSegmenter:
    """Writes the segments of a volume, and its mask where there are names, as ``Recorded`` asks.

    Attributes:
        settings: Of the command, the number of clusters among them.
        run: The network's.
        dataset: All volumes, since clusters are those of the whole set.
        named: Labelled volumes that give names; None: segments alone.
        device: Of the network.
    """

    settings: ZeroShot
    run: Run
    dataset: Dataset
    named: Dataset | None
    device: torch.device

    @property
    def channels(self) -> int:
        """Of a volume."""
        return len(self.run.plan.channels)

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of files, see ``Recorded``."""
        return ("segments",) if self.named is None else ("mask", "segments")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """What the values of the masks mean, or without names those of the segments."""
        if self.named is not None:
            return find_classes(self.named)
        assert self.settings.clusters is not None
        return ("outside", *(f"segment {n + 1}" for n in range(self.settings.clusters)))

    @cached_property
    def dense(self) -> DenseWindows:
        """The source of the features that are clustered."""
        return open_volumes(self.run, self.settings, self.device)

    @cached_property
    def clusters(self) -> VolumeClusters:
        """The clusters of the folder, found when its first volume is segmented and kept for those that come later."""
        path, settings, dense = Path(self.settings.out) / "clusters.json", self.settings, self.dense
        if (known := read_clusters(path, VolumeClusters)) is not None:
            self._verify(known, path)
            return known
        assert settings.clusters is not None
        total = len(self.dataset)
        scans = readable(
            self.dataset, self.channels, self.verify, skip_bad=settings.reader.skip_bad
        )
        places = read_volume_places(scans, total, dense, self.run.plan, self.device, settings.seed)
        try:
            found = find_volume_clusters(
                counted(places, total),
                settings.clusters,
                settings.seed,
                dense.coordinates,
                settings.coordinates,
            )
        except ValueError as error:
            where = f"--clusters {settings.clusters}"
            raise InputError(where, str(error), "Ask for fewer") from None
        if self.named is not None:
            whole = np.sum(list(self._overlaps_of(self.named, found)), axis=0)
            names = name_by_overlap(whole, LEAST)
            dice = [None if np.isnan(d) else float(d) for d in dice_of_names(whole, names)]
            if not names.any():
                problem = "no segment is like a class there, so all masks are empty: try another --clusters"
                say(f"--names-from {settings.names_from}: {problem}")
            found["names"] = names.tolist()
            found["named_dice"] = dict(zip(self.classes[1:], dice, strict=True))
        write_json(path, dict(found))
        return found

    def __call__(self, case: Case, scan: Scan, folder: Path) -> tuple[Files, Facts]:
        """Segments and mask."""
        self.verify(case, scan)
        clusters = self.clusters
        segments = segment_volume(clusters, self.dense, self.run.plan, scan, self.device)
        name = f"{case.name}{label_suffix(scan)}"
        make_folder(folder / "segments")
        files: Files = {}
        if self.named is not None:
            mask = np.asarray(clusters["names"], np.uint8)[segments]
            write_label(folder / name, mask, scan)
            files["mask"] = [name]
        write_label(folder / "segments" / name, segments, scan)
        return files | {"segments": [f"segments/{name}"]}, {}

    def verify(self, case: Case, scan: Scan) -> None:
        """Refuse a scan that the network cannot see.

        Raises:
            InputError: It is a film, or has other channels.
        """
        verify_kind(case, scan, 3)
        if (found := scan.array.shape[0]) != self.channels:
            problem = f"has {found} channels, {self.run.folder} was trained on {self.channels}"
            raise InputError(case.images[0], problem, "Give images of the same kind")

    def scores(self, record: Record) -> pd.DataFrame:
        """Dice of every labelled case and class, empty without labels.

        ``dice_matched`` has the names that labels of the other half of the patients give, and is not zero-shot;
        ``dice_named`` is of the masks.
        """
        cases = [case for case in self.dataset.labelled if case.name not in record.bad]
        if not cases:
            return pd.DataFrame()
        classes, overlaps = find_classes(self.dataset), []
        count = len(self.clusters["centers"])
        for case in cases:
            files = record.entries[case.name]["files"]["segments"]
            segments = read_label(record.folder / next(iter(files)))
            truth = read_case_label(case, segments)
            overlaps.append(
                overlap_of(segments.array[0], truth.array[0], count, len(classes), _voxel(segments))
            )
        table = pd.DataFrame(
            [
                {"case": case.name, "group": case.group, "class": name}
                for case in cases
                for name in classes[1:]
            ]
        )
        matched = matched_across(overlaps, [case.group for case in cases])
        table["dice_matched"] = matched.ravel()
        if self.named is not None:
            names = self._names_among(classes)
            table["dice_named"] = np.concatenate([dice_of_names(o, names) for o in overlaps])
        return table

    def _verify(self, known: VolumeClusters, path: Path) -> None:
        """Refuse clusters that a person edited into another number, or names that are not one class for each segment.

        Raises:
            InputError: There are more or fewer, or one is no class.
        """
        remedy, count = "Correct it, or choose another --out", self.settings.clusters
        if (found := len(known["centers"])) != count:
            raise InputError(path, f"has {found} centers for {count} clusters", remedy)
        wanted = 1 + found if self.named is not None else 0
        legal, names = range(len(self.classes)), known["names"]
        if len(names) != wanted or not set(names) <= set(legal):
            problem = f"has names {names}, and needs {wanted} numbers from 0 to {len(legal) - 1}"
            raise InputError(path, problem, remedy)

    def _names_among(self, classes: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The class of every segment, in the numbers of the labels of the scans."""
        own = [classes.index(name) if name in classes[1:] else 0 for name in self.classes]
        return np.asarray(own, np.int64)[self.clusters["names"]]

    def _overlaps_of(self, dataset: Dataset, clusters: VolumeClusters) -> Iterator[Overlap]:
        """Of every labelled volume of another data set, which is segmented for it."""
        count = len(clusters["centers"])
        for case in counted(dataset, len(dataset), "naming"):
            scan = read_scan_of(case, self.channels)
            self.verify(case, scan)
            segments = segment_volume(clusters, self.dense, self.run.plan, scan, self.device)
            label = read_case_label(case, scan).array[0]
            yield overlap_of(segments, label, count, len(self.classes), _voxel(scan))


def refuse_own_names(dataset: Dataset, named: Dataset) -> None:
    """Refuse to take names from the labels of a scan that is to be segmented.

    Raises:
        InputError: A scan is in both data sets, by the content of its files.
    """
    find = finder(dataset)
    for case in named:
        if other := find(case):
            problem = f"is the scan {other.images[0]}, whose labels must not name it"
            remedy = "Draw others, such as radiffuse anatomy with another --seed"
            raise InputError(f"--names-from: {case.images[0]}", problem, remedy)


def _voxel(scan: Scan) -> float:
    return float(np.prod(scan.spacing or 1.0))
