"""The fingerprint of a data set: shapes, spacings, intensities and structures of a few cases; its classes."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..config import IGNORE
from ..errors import InputError
from ..system.hardware import cores, free_memory
from .cases import read_case_image, read_case_label
from .components import constant_pieces, island_size
from .dataset import Case, Dataset
from .issues import raise_first, say, some
from .label_values import judge_values
from .readers import inspect
from .scan import Array, in_color, resampled
from .structures import CaseFacts, measure_case
from .workers import each

FINGERPRINT_CASES = 32
"""Cases that are decoded, evenly chosen from the data set."""
BYTES_PER_VOXEL = 24
"""What reading and measuring a case takes, with its label map [measured]."""


@dataclass(frozen=True)
class Intensities:
    """Values of a channel: their 0.5 and 99.5 percentile."""

    low: float
    high: float


@dataclass(frozen=True)
class ClassFacts:
    """A class over the decoded cases; of the cases that have it, ``volume`` to ``thickness`` are medians.

    Attributes:
        name: Its name.
        cases: How many of them have it.
        share: Of all labelled voxels that are not ignored, 0 to 1.
        volume: In mm^3; of films in mm^2; in voxels where the fingerprint's ``unit`` is ``"px"``.
        components: Pieces; what touches by sides, edges or corners is one.
        thickness: Thinnest extent in mm or voxels, see ``structures.thickness``.
        sides: Where it is from side to side in each case that has it, see ``structures.Structure.side``.
        pieces: Its number in each counted case where that is the same in all, see ``components.constant_pieces``.
        island: The volume and the share of the image below which a piece is none, see ``components.island_size``.
    """

    name: str
    cases: int
    share: float
    volume: float
    components: float
    thickness: float
    sides: tuple[float, ...] = ()
    pieces: int | None = None
    island: tuple[float, float] | None = None


@dataclass(frozen=True)
class Fingerprint:
    """What a few decoded cases say.

    Attributes:
        cases: Of the data set, decoded or not.
        labelled: Those with a label map.
        channels: Of the input.
        ct: All of them are CT, in the first channel.
        unit: ``"mm"``, or ``"px"`` where the spacing of a case is unknown.
        shapes: Voxels along (right, anterior, superior); of films (rows, columns).
        spacings: In mm along the same axes; 1 where unknown.
        bodies: Voxels that the body spans, along the same axes.
        body: Intensities inside the body, by channel.
        foreground: The same inside all classes together; () without labels.
        classes: By label value, without the background; () without labels.
        colored: Decoded films in color, where the input has one channel.
        mixed: One of them is CT with channels that are none.
    """

    cases: int
    labelled: int
    channels: int
    ct: bool
    unit: Literal["mm", "px"]
    shapes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, ...], ...]
    bodies: tuple[tuple[int, ...], ...]
    body: tuple[Intensities, ...]
    foreground: tuple[Intensities, ...] = ()
    classes: tuple[ClassFacts, ...] = ()
    colored: int = 0
    mixed: bool = False

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.shapes[0])

    @property
    def taken(self) -> str:
        """What is taken for known although no volume says it, in words; '' where nothing is, and for films."""
        unsaid = self.spatial_dims == 3 and self.unit == "px"
        return "a voxel whose size no file says is taken for 1 mm" if unsaid else ""

    @property
    def spacing(self) -> tuple[float, ...]:
        """The median along each axis."""
        return tuple(round(float(v), 4) for v in np.median(self.spacings, axis=0))

    @property
    def anisotropy(self) -> float:
        """The coarsest median spacing over the finest, 1 or more."""
        return max(self.spacing) / min(self.spacing)

    def body_on(self, spacing: tuple[float, ...]) -> tuple[float, ...]:
        """Median extent of the body after resampling to a spacing, in voxels."""
        pairs = zip(self.bodies, self.spacings, strict=True)
        return tuple(np.median([resampled(n, mm, spacing) for n, mm in pairs], axis=0).tolist())


def take_fingerprint(
    dataset: Dataset,
    *,
    labelled: bool = True,
    skip_bad: bool = False,
    workers: int | None = None,
    counted: Collection[str] | None = None,
) -> Fingerprint:
    """Decode a few cases, in one pass, several at a time where memory allows it.

    Label maps are measured as well where ``labelled``. Where films and volumes are mixed, ``skip_bad`` takes the more
    frequent kind, as preparing will. Pieces are counted in the cases named ``counted`` alone, of which some more are
    decoded where the few have too few; None: in all that are decoded.

    Raises:
        InputError: No case can be read, or 2D and 3D are mixed.
    """
    if not dataset.cases:
        raise InputError(dataset.root, "holds no images", "See docs/reference/layouts.md")
    chosen = [dataset.cases[i] for i in evenly(len(dataset), FINGERPRINT_CASES)]
    more = _to_count(dataset, chosen, counted or ()) if labelled else []

    def look(case: Case) -> CaseFacts:
        scan, label = read_case_image(case), None
        if labelled and case.label is not None:
            with contextlib.suppress(InputError):  # preparing the case will say what is wrong
                label = read_case_label(case, scan)
        return measure_case(scan, label)

    workers = threads_within_memory(chosen, workers)
    looked = each(look, [*chosen, *more], workers=workers)
    measured = {case: fact for case, fact in looked if isinstance(fact, CaseFacts)}
    facts = {case: measured[case] for case in chosen if case in measured}
    if not facts:
        read_case_image(dataset.cases[0])  # raises, and names the file
        raise InputError(dataset.root, "has no readable image", "Run radiffuse check on it")
    kinds = Counter(len(fact.shape) for fact in facts.values()).most_common()
    if len(kinds) > 1 and not skip_bad:
        rare = [str(c.images[0]) for c, fact in facts.items() if len(fact.shape) == kinds[-1][0]]
        problem = f"mixes films and volumes; {kinds[-1][0]}D are {some(sorted(rare), 3)}"
        raise InputError(dataset.root, problem, "Put each kind in its own folder, or --skip-bad")
    same = {case: fact for case, fact in measured.items() if len(fact.shape) == kinds[0][0]}
    found = [fact for case, fact in same.items() if case in facts]
    maps = {case: fact for case, fact in same.items() if counted is None or case.name in counted}
    return Fingerprint(
        cases=len(dataset),
        labelled=len(dataset.labelled),
        channels=len(dataset.channels),
        ct=all(fact.ct for fact in found),
        unit="px" if any(fact.spacing is None for fact in found) else "mm",
        shapes=tuple(fact.shape for fact in found),
        spacings=tuple(fact.spacing or (1.0,) * len(fact.shape) for fact in found),
        bodies=tuple(fact.body for fact in found),
        body=_intensities([fact.values for fact in found]),
        foreground=_intensities([s.values for f in found for s in f.structures.values()]),
        classes=_classes(dataset.classes, found, maps),
        colored=sum(in_color(len(f.values), len(f.shape), len(dataset.channels)) for f in found),
        mixed=any(fact.mixed for fact in found),
    )


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, evenly chosen, the first and the last among them."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, most).round())]


def threads_within_memory(cases: Sequence[Case], workers: int | None = None) -> int:
    """Threads that may decode cases at once: as many as half of the free memory holds, at least one."""
    largest = 1
    for case in cases:
        with contextlib.suppress(InputError):
            header = inspect(case.images[0], case.series, case.file_channels)
            largest = max(largest, math.prod(header.spatial_shape) * len(case.images))
    memory = free_memory() // 2 // (largest * BYTES_PER_VOXEL)
    return int(max(1, min(workers or cores(), len(cases), memory)))


def threads_for(cases: Sequence[Case], workers: int | None = None) -> int:
    """The same for many cases, of which a few headers are read."""
    if len(cases) > (most := max(FINGERPRINT_CASES, workers or cores())):
        cases = [cases[i] for i in evenly(len(cases), most)]
    return threads_within_memory(cases, workers)


def find_dims(dataset: Dataset) -> int:
    """Spatial axes of the first case whose header can be read, 2 or 3; mixed sets are refused when they are prepared.

    Raises:
        InputError: There is no such case.
    """
    for case in dataset:
        with contextlib.suppress(InputError):
            return len(inspect(case.images[0], case.series, case.file_channels).spatial_shape)
    raise InputError(dataset.root, "has no readable image", "Run radiffuse check on it")


def find_classes(dataset: Dataset) -> tuple[str, ...]:
    """Names by label value, declared by the data set or found in its label maps.

    Raises:
        InputError: A label map has a value outside 0 to 255, or none has foreground.
    """
    if dataset.classes:
        return dataset.classes

    def count(case: Case) -> dict[int, int]:
        values, numbers = np.unique(read_case_label(case).array, return_counts=True)
        if values[0] < 0 or values[-1] > IGNORE:
            problem = f"has label values from {values[0]} to {values[-1]}"
            remedy = f"Use 0 to {IGNORE - 1}, and {IGNORE} for what is ignored"
            raise InputError(case.label or case.name, problem, remedy)
        return {int(v): int(n) for v, n in zip(values, numbers, strict=True)}

    cases, maps = dataset.labelled.cases, list[dict[int, int]]()
    for _, counts in each(count, cases, workers=threads_for(cases)):
        if isinstance(counts, InputError):
            raise counts
        maps.append(counts)
    judged = [counts for case, counts in zip(cases, maps, strict=True) if case.own_values]
    issues = judge_values(dataset.root, judged, declared=False)
    raise_first(issues)
    say(issues)
    top = max((value for counts in maps for value in counts if value != IGNORE), default=0)
    return ("background", *(f"class-{value}" for value in range(1, top + 1)))


# ------------------------------------------------------------------------------------------------ internal


def _to_count(dataset: Dataset, chosen: Sequence[Case], counted: Collection[str]) -> list[Case]:
    """Cases to decode beside the chosen ones, so that as many are among those whose pieces are counted."""
    others = [case for case in dataset if case.name in counted and case not in chosen]
    missing = FINGERPRINT_CASES - sum(case.name in counted for case in chosen)
    return [others[i] for i in evenly(len(others), missing)] if others and missing > 0 else []


def _classes(
    names: Sequence[str], found: Sequence[CaseFacts], maps: Mapping[Case, CaseFacts]
) -> tuple[ClassFacts, ...]:
    """Every declared class, and those that the label maps have; pieces are counted in ``maps``."""
    known = max((value for fact in found for value in fact.structures), default=0)
    counted = sum(fact.counted for fact in found)
    rows = []
    for value in range(1, max(known + 1, len(names) if counted else 0)):
        of = [fact.structures[value] for fact in found if value in fact.structures]
        volume, components, thick = (
            float(np.median([getattr(structure, name) for structure in of])) if of else 0.0
            for name in ("volume", "components", "thickness")
        )
        name = names[value] if value < len(names) else f"class-{value}"
        share = sum(structure.voxels for structure in of) / counted
        sides = tuple(structure.side for structure in of)
        those = {
            case: fact.structures[value] for case, fact in maps.items() if value in fact.structures
        }
        patients = {case.group for case in those}
        pieces = constant_pieces([one.components for one in those.values()], len(patients))
        smallest = [[one.smallest, one.smallest_share] for one in those.values()]
        volumes, shares = zip(*smallest, strict=True) if smallest else ((), ())
        island = island_size(volumes, shares, len(patients), len(found[0].shape))
        rows.append(
            ClassFacts(name, len(of), share, volume, components, thick, sides, pieces, island)
        )
    return tuple(rows)


def _intensities(samples: Sequence[Array]) -> tuple[Intensities, ...]:
    """By channel; where cases differ in channels, of those that all have."""
    channels = min((len(values) for values in samples), default=0)
    rows = []
    for channel in range(channels):
        values = np.concatenate([sample[channel] for sample in samples]).astype(np.float64)
        rows.append(Intensities(*(float(v) for v in np.percentile(values, (0.5, 99.5)))))
    return tuple(rows)
