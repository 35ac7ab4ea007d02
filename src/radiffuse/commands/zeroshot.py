"""``radiffuse zeroshot``: segments of films without any label, and a rule that names the lungs.

Only the rule is zero-shot. Where there is truth, the segments that lie in it are scored beside it, under another name,
since choosing them needs the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..config import IGNORE, ZeroShot
from ..config.effect import effective
from ..data.cases import read_case_label
from ..data.dataset import Case, Dataset
from ..data.layouts import open_dataset
from ..data.readers import label_suffix, read_label, write_label
from ..data.scan import Array, Scan
from ..errors import InputError
from ..inference.masks import Facts, Files, Recorded, read_scan_of, write_masks
from ..inference.records import Record, header, identity
from ..synthesis.clusters import (
    Clusters,
    Places,
    find_clusters,
    read_places,
    segment_by_clusters,
)
from ..synthesis.dense import Dense, open_denoiser, open_synthesizer
from ..synthesis.lungs import name_lungs
from ..synthesis.segments import segment_film
from ..synthesis.synthesizer import Synthesizer, is_synthesizer, load_synthesizer
from ..system.cells import csv_text
from ..system.files import make_folder, read_json, write_atomic, write_json
from ..train.device import local_device
from ..train.progress import ProgressLine
from ..train.run import Run
from ..train.start import find_pretrained, verify_whole

if TYPE_CHECKING:
    import pandas as pd

LUNGS = ("background", "lung")


def zeroshot(settings: ZeroShot) -> Path:
    """Write masks and segments of every film; where there is truth, scores.

    Args:
        settings: See ``radiffuse.config.ZeroShot``.

    Returns:
        The folder: masks named as the cases, ``segments/``, their record, ``clusters.json`` of the method clusters, and
        ``zeroshot.csv`` where there are labels.

    Raises:
        InputError: The run cannot be used for the method, a film cannot be read, or the folder holds anything but
            masks of this run and these settings.
    """
    import pandas as pd

    segmenter = choose(settings)
    out, dataset = Path(settings.out), segmenter.dataset
    record = write_masks(
        out,
        segmenter.made_by,
        dataset,
        Recorded(out, ("mask", "segments"), segmenter.channels, segmenter),
        skip_bad=settings.reader.skip_bad,
    )
    rows = [_scores(case, record) for case in dataset.labelled if case.name not in record.bad]
    if rows:
        table = pd.DataFrame(rows)
        write_atomic(out / "zeroshot.csv", csv_text(table, "%.4f"))
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
        made_by: Header of the record.
    """

    settings: ZeroShot
    run: Run
    dataset: Dataset
    device: torch.device
    made_by: dict[str, Any]

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
        return load_synthesizer(self.run.model, self.channels).to(self.device)

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
        if path.is_file():
            known: Clusters = read_json(path, Clusters)
            if missing := sorted(Clusters.__required_keys__ - known.keys()):
                raise InputError(path, f"lacks {missing[0]}", "Restore it, or choose another --out")
            return known
        places = read_places(self._scans(), self.dense, self.run.plan, self.device)
        line = ProgressLine("reading")
        films = _counted(places, line, len(self.dataset))
        try:
            found = find_clusters(films, len(self.dataset), settings.clusters, settings.seed)
        except ValueError as error:
            raise InputError(
                f"--clusters {settings.clusters}", str(error), "Ask for fewer"
            ) from None
        if not any(found["lung"]):
            problem = "no cluster looks like lungs, so all masks are empty: try another --clusters"
            print(f"radiffuse: {path}: {problem}", file=sys.stderr)
        write_json(path, dict(found))
        return found

    def __call__(self, case: Case, scan: Scan, folder: Path) -> tuple[Files, Facts]:
        """Segments and mask."""
        _verify_film(case, scan)
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

    def _scans(self) -> Iterator[Scan]:
        """All films; those that cannot be read are left out where the settings say so."""
        for case in self.dataset:
            try:
                scan = read_scan_of(case, self.channels)
                _verify_film(case, scan)
            except InputError:
                if not self.settings.reader.skip_bad:
                    raise
            else:
                yield scan


def choose(settings: ZeroShot) -> ZeroShotSegmenter:
    """Open the run and the films; nothing is written.

    Raises:
        InputError: As ``zeroshot``; of the films, the first is read unless bad ones are left out.
    """
    run = find_pretrained(settings.run)
    device = local_device(settings.machine).device
    dataset = open_dataset(settings.data, settings.reader)
    free = {"run", "data", "out", "reader", "machine"}
    shaping = {k: v for k, v in effective(settings).items() if k not in free}
    made_by = header("zeroshot", [(settings.run, identity(run))], shaping, LUNGS)
    segmenter = ZeroShotSegmenter(settings, run, dataset, device, made_by)
    if settings.method == "diffseg":
        segmenter.synthesizer  # noqa: B018 (opened)
    else:
        verify_whole(run.plan)
        segmenter.dense  # noqa: B018 (opened)
    Record.begin(Path(settings.out), made_by)
    if not settings.reader.skip_bad:
        first = dataset.cases[0]
        _verify_film(first, read_scan_of(first, segmenter.channels))
    return segmenter


# ------------------------------------------------------------------------------------------------ internal


def _counted(places: Iterator[Places], line: ProgressLine, total: int) -> Iterator[Places]:
    for number, film in enumerate(places, start=1):
        line(number, total)
        yield film


def _verify_film(case: Case, scan: Scan) -> None:
    if scan.spatial_dims != 2:
        raise InputError(case.images[0], "is a volume", "Zero-shot segmentation takes films")


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
