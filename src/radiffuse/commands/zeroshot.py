"""``radiffuse zeroshot``: segments of films and volumes without any label.

In films a rule names the lungs, and only that is zero-shot; in volumes drawn anatomy may name organs. Where there is
truth, segments that were chosen by it are scored beside them, under another name.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..config import IGNORE, ZeroShot
from ..config.effect import effective
from ..config.given import refuse_given
from ..data.cases import read_case_label
from ..data.dataset import Case, Dataset
from ..data.layouts import open_dataset
from ..data.readers import label_suffix, read_label, write_label
from ..data.scan import Array, Scan
from ..errors import InputError
from ..inference.masks import Facts, Files, Recorded, read_scan_of, write_masks
from ..inference.records import Record, header, identity
from ..phantoms import is_drawn
from ..synthesis.clusters import (
    Clusters,
    find_clusters,
    read_clusters,
    read_places,
    segment_by_clusters,
)
from ..synthesis.dense import Dense, open_denoiser, open_synthesizer
from ..synthesis.lungs import name_lungs
from ..synthesis.reading import counted, readable, verify_kind
from ..synthesis.segments import segment_film
from ..synthesis.synthesizer import Synthesizer, is_synthesizer, synthesizer_of
from ..synthesis.volume_segmenter import VolumeSegmenter, refuse_own_names
from ..system.cells import csv_text
from ..system.files import make_folder, write_atomic, write_json
from ..train.device import local_device
from ..train.run import Run
from ..train.start import find_pretrained, verify_whole

LUNGS = ("background", "lung")
FILM_CLUSTERS, VOLUME_CLUSTERS = 8, 32
"""Clusters where no number is given. The first was chosen on films, see ``results/synthesis-zeroshot.csv``."""


def zeroshot(settings: ZeroShot) -> Path:
    """Write segments of every scan and masks of what has a name; where there is truth, scores.

    Args:
        settings: See ``radiffuse.config.ZeroShot``.

    Returns:
        The folder: masks named as the cases, ``segments/``, their record, ``clusters.json`` of the method clusters, and
        ``zeroshot.csv`` where there are labels.

    Raises:
        InputError: The run cannot be used for the method, a scan cannot be read, or the folder holds anything but
            masks of this run and these settings.
    """
    segmenter = open_zeroshot(settings)
    out = Path(settings.out)
    record = write_masks(
        out,
        made_by(segmenter),
        segmenter.dataset,
        Recorded(out, segmenter.groups, segmenter.channels, segmenter),
        skip_bad=settings.reader.skip_bad,
    )
    if len(table := segmenter.scores(record)):
        write_atomic(out / "zeroshot.csv", csv_text(table, "%.4f"))
        if isinstance(segmenter, VolumeSegmenter):
            _print_volumes(table, segmenter)
        else:
            _print(table)
    return out


@dataclass(frozen=True)
class ZeroShotSegmenter:
    """Writes the segments and the mask of a film into a folder, as ``Recorded`` asks.

    Attributes:
        settings: Of the command.
        run: The network's.
        dataset: All films, since clusters are those of the whole set.
        device: Of the network.
        groups: Groups of files, see ``Recorded``.
        classes: What the values of the masks mean.
    """

    settings: ZeroShot
    run: Run
    dataset: Dataset
    device: torch.device
    groups = ("mask", "segments")
    classes = LUNGS

    @property
    def channels(self) -> int:
        """Of a film."""
        return len(self.run.plan.channels)

    @cached_property
    def synthesizer(self) -> Synthesizer:
        """The networks of a run of radiffuse synthesize.

        Raises:
            RunError: The run is another one.
        """
        return synthesizer_of(self.run).to(self.device)

    @cached_property
    def dense(self) -> Dense:
        """The source of the features that are clustered."""
        if is_synthesizer(self.run.model):
            return open_synthesizer(self.synthesizer, self.run, self.settings)
        return open_denoiser(self.run, self.settings, self.device)

    @cached_property
    def clusters(self) -> Clusters:
        """The clusters of the folder, found when its first film is segmented and kept for films that come later."""
        path, settings = Path(self.settings.out) / "clusters.json", self.settings
        if (known := read_clusters(path, Clusters)) is not None:
            return known
        scans = readable(
            self.dataset, self.channels, self.verify, skip_bad=settings.reader.skip_bad
        )
        places = read_places(scans, self.dense, self.run.plan, self.device)
        count, films = settings.clusters or FILM_CLUSTERS, counted(places, len(self.dataset))
        try:
            found = find_clusters(films, len(self.dataset), count, settings.seed)
        except ValueError as error:
            raise InputError(f"--clusters {count}", str(error), "Ask for fewer") from None
        if not any(found["lung"]):
            problem = "no cluster looks like lungs, so all masks are empty: try another --clusters"
            print(f"radiffuse: {path}: {problem}", file=sys.stderr)
        write_json(path, dict(found))
        return found

    def __call__(self, case: Case, scan: Scan, folder: Path) -> tuple[Files, Facts]:
        """Segments and mask."""
        self.verify(case, scan)
        if self.settings.method == "clusters":
            regions, mask = segment_by_clusters(
                self.clusters, self.dense, self.run.plan, scan, self.device
            )
        else:
            seed, plan = self.settings.seed, self.run.plan
            regions = segment_film(self.synthesizer, plan, scan, seed=seed)
            mask = name_lungs(regions, scan.array.astype(np.float32).mean(0))
        name = f"{case.name}{label_suffix(scan)}"
        files = {"mask": name, "segments": f"segments/{name}"}
        make_folder(folder / "segments")
        for group, array in (("mask", mask), ("segments", regions)):
            write_label(folder / files[group], array.astype(np.uint8), scan)
        return {group: [name] for group, name in files.items()}, {}

    def verify(self, case: Case, scan: Scan) -> None:
        """Refuse a volume."""
        verify_kind(case, scan, 2)

    def scores(self, record: Record) -> pd.DataFrame:
        """Dice of the lungs of every labelled film, empty without labels."""
        cases = [case for case in self.dataset.labelled if case.name not in record.bad]
        return pd.DataFrame([_scores(case, record) for case in cases])


def open_zeroshot(settings: ZeroShot) -> ZeroShotSegmenter | VolumeSegmenter:
    """Open the run and the scans; nothing is written.

    Raises:
        InputError: As ``zeroshot``; of the scans, the first is read unless bad ones are left out.
    """
    run = find_pretrained(settings.run)
    device = local_device(settings.machine).device
    dataset = open_dataset(settings.data, settings.reader)
    segmenter: ZeroShotSegmenter | VolumeSegmenter
    if run.plan.spatial_dims == 3:
        segmenter = _choose_volumes(settings, run, dataset, device)
    else:
        refuse_given(settings, ZeroShot(), "coordinates names_from", f"{run.folder} sees films")
        settings = _counting(settings, FILM_CLUSTERS)
        segmenter = ZeroShotSegmenter(settings, run, dataset, device)
        if settings.method == "diffseg":
            segmenter.synthesizer  # noqa: B018 (opened)
        else:
            verify_whole(run.plan)
            segmenter.dense  # noqa: B018 (opened)
    Record.begin(Path(settings.out), made_by(segmenter))
    if not settings.reader.skip_bad:
        first = dataset.cases[0]
        segmenter.verify(first, read_scan_of(first, segmenter.channels))
    return segmenter


def made_by(segmenter: ZeroShotSegmenter | VolumeSegmenter) -> dict[str, Any]:
    """Header of the record."""
    settings = segmenter.settings
    free = {"run", "data", "out", "reader", "machine"}
    shaping = {k: v for k, v in effective(settings).items() if k not in free}
    if segmenter.run.plan.spatial_dims == 2:  # which know neither, and folders of before go on
        shaping = {k: v for k, v in shaping.items() if k not in ("coordinates", "names_from")}
    runs = [(settings.run, identity(segmenter.run))]
    return header("zeroshot", runs, shaping, segmenter.classes)


# ------------------------------------------------------------------------------------------------ internal


def _choose_volumes(
    settings: ZeroShot, run: Run, dataset: Dataset, device: torch.device
) -> VolumeSegmenter:
    if settings.method == "diffseg":
        problem = f"is for films, and {run.folder} sees volumes"
        raise InputError("--method diffseg", problem, "Leave it out, to segment by clusters")
    settings, named = _counting(settings, VOLUME_CLUSTERS), None
    if settings.names_from is not None:
        named = open_dataset(settings.names_from).labelled
        if not named.cases:
            problem = "has no labels"
            raise InputError(
                f"--names-from {settings.names_from}", problem, "Give labelled volumes"
            )
        refuse_own_names(dataset, named)
    segmenter = VolumeSegmenter(settings, run, dataset, named, device)
    segmenter.dense  # noqa: B018 (opened)
    if named is not None:  # before all scans are read and clustered
        segmenter.verify(named.cases[0], read_scan_of(named.cases[0], segmenter.channels))
    return segmenter


def _counting(settings: ZeroShot, usual: int) -> ZeroShot:
    """With the number of clusters, which has another default for volumes."""
    if settings.clusters is None and settings.method == "clusters":
        return replace(settings, clusters=usual)
    return settings


def _scores(case: Case, record: Record) -> dict[str, Any]:
    files = record.entries[case.name]["files"]
    scans = [read_label(record.folder / next(iter(files[group]))) for group in ("mask", "segments")]
    mask, regions = (scan.array[0] for scan in scans)
    truth = read_case_label(case, scans[0]).array[0]
    counted = truth != IGNORE
    lung = (truth > 0) & counted
    matched = np.zeros(lung.shape, bool)
    for value in np.unique(regions):
        part = (regions == value) & counted
        # With the truth in hand: a segment belongs to the lungs where more than half of it does.
        if (part & lung).sum() > 0.5 * part.sum():
            matched |= part
    return {
        "case": case.name,
        "group": case.group,
        "segments": len(np.unique(regions)),
        "dice_rule": _dice((mask > 0) & counted, lung),
        "dice_matched": _dice(matched, lung),
    }


def _dice(guess: Array, truth: Array) -> float:
    total = int(guess.sum() + truth.sum())
    return 2 * float((guess & truth).sum()) / total if total else float("nan")


def _print(table: pd.DataFrame) -> None:
    rule, matched = table["dice_rule"].mean(), table["dice_matched"].mean()
    print(f"lungs named by rule, zero-shot: Dice {rule:.3f}, n = {len(table)}")
    print(f"segments matched with the truth, not zero-shot: Dice {matched:.3f}")


def _print_volumes(table: pd.DataFrame, segmenter: VolumeSegmenter) -> None:
    mean = table.groupby("class", sort=False).mean(numeric_only=True).mean()
    cases = table["case"].nunique()
    if not np.isnan(mean["dice_matched"]):
        said = "named by the labels of the other half of the patients, not zero-shot"
        print(f"segments {said}: Dice {mean['dice_matched']:.3f}, n = {cases}")
    if "dice_named" in mean:
        assert segmenter.named is not None
        drawn = all(is_drawn(case.name) for case in segmenter.named)
        how = "drawn anatomy" if drawn else f"the labels of {segmenter.settings.names_from}"
        print(f"segments named by {how}: Dice {mean['dice_named']:.3f}, n = {cases}")
        if drawn and any(is_drawn(case.name) for case in segmenter.dataset):
            said = "are drawn as those that gave the names: this says nothing about real scans"
            print(f"radiffuse: {segmenter.dataset.root}: scans {said}", file=sys.stderr)
