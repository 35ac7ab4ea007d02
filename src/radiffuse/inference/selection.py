"""Which scans of a pool to label next; the rules are in ``evaluation.choosing``, what they look at is made here."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..config import Data
from ..config.values import from_dict
from ..core.diffusion import GaussianDiffusion
from ..data.batches import cut
from ..data.copies import copied, finder
from ..data.dataset import Case, Dataset
from ..data.fingerprint import evenly
from ..data.issues import Issues, say
from ..data.layouts import open_dataset
from ..data.names import patient_key
from ..data.plan import Plan
from ..data.scan import Array, Scan, canonical_shape, canonical_spacing, in_color
from ..data.transform import image_to_plan
from ..errors import InputError
from ..evaluation.choosing import typical, uncertain
from ..evaluation.quality import uncertainty_of
from ..nets.frozen import noised_features
from ..train.cases import open_more
from ..train.progress import ProgressLine
from ..train.run import Run
from ..train.start import Start
from .masks import read_scan_of
from .predictor import Predictor
from .windows import starts

NOISE = 0.05
"""Timestep of the features, as a fraction of all: those of little noise say most [related: Baranchuk et al. 2022]."""
WINDOWS = 8
"""Most windows of a volume or large film that its features are averaged over [ours]."""
SIDES = {2: 16, 3: 8}
"""Pixels and voxels a side of the small images that are compared without a network [ours]."""
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class SelectedScan:
    """A chosen scan, and why, in a few words."""

    case: Case
    why: str


def choose_typical(
    cases: Dataset,
    labelled: Sequence[Case],
    count: int,
    *,
    start: Start | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> list[SelectedScan]:
    """Typical and diverse scans, see ``choosing.typical``.

    Args:
        cases: The pool, without those that are labelled.
        labelled: Scans that have labels, unlike which the chosen ones are to be.
        count: Scans to choose.
        start: The pre-trained network whose features are compared; None: small versions of the images are.
        device: Where to compute; None: the CPU.
        seed: Of the clusters.
        skip_bad: Name bad scans and leave them out.

    Raises:
        InputError: A scan cannot be read, or too few are left.
    """
    if start is None:
        describe: Callable[[Scan], Array] = small_image
    else:
        describe = _Features(start, device or torch.device("cpu"))

    def read(case: Case) -> Array:
        wanted = len(cases.channels)
        scan = read_scan_of(case, wanted)
        held = len(scan.array)
        if held != wanted and not in_color(held, scan.spatial_dims, wanted):
            problem = f"has {held} channels, and the data set declares {wanted}"
            raise InputError(case.images[0], problem, "Leave the file out")
        return describe(scan)

    known = _look(labelled, read, "looking at labelled scans", skip_bad=True)
    found = _look(cases.cases, read, "looking at scans", skip_bad)
    verify_count(count, len(found))
    pairs = [*known, *found]
    if len({len(vector) for _, vector in pairs}) > 1:
        problem = "holds films and volumes"
        raise InputError(cases.root, problem, "Choose among one kind, such as with --reader.only")
    chosen = typical(
        np.stack([vector for _, vector in pairs]).astype(np.float64),
        [*(patient_key(case.group) for case, _ in known), *_patients(found)],
        count,
        labelled=range(len(known)),
        seed=seed,
    )
    return [
        SelectedScan(pairs[i][0], f"typical of {size} scan{'s' * (size != 1)}")
        for i, size in chosen
    ]


def choose_uncertain(
    cases: Dataset,
    labelled: Collection[str],
    count: int,
    *,
    predictor: Predictor,
    labels: int,
    seed: int = 0,
    skip_bad: bool = False,
) -> list[SelectedScan]:
    """Scans about which a segmenter is uncertain, see ``choosing.uncertain``.

    Args:
        cases: The pool, without those that are labelled.
        labelled: Patients that have labels.
        count: Scans to choose.
        predictor: The segmenter.
        labels: Labelled scans that it learned from.
        seed: Of the noise.
        skip_bad: Name bad scans and leave them out.

    Raises:
        InputError: A scan cannot be read or segmented, or too few are left.
    """

    def look(case: Case) -> tuple[Array, Array]:
        scan = read_scan_of(case, len(predictor.plan.channels))
        return uncertainty_of(predictor.on_plan(scan, case.name))

    found = _look(cases.cases, look, "segmenting", skip_bad)
    verify_count(count, len(found))
    entropy, volume = (np.stack([seen[k] for _, seen in found]) for k in (0, 1))
    chosen = uncertain(
        entropy,
        volume,
        _patients(found),
        count,
        labels=labels,
        seen={patient_key(patient) for patient in labelled},
        seed=seed,
    )
    names = predictor.plan.classes[1:]
    return [SelectedScan(found[i][0], f"{names[k]} uncertain: {u:.2f}") for i, k, u in chosen]


def without_labelled(pool: Dataset, labelled: Sequence[Case]) -> tuple[Dataset, list[Case]]:
    """The pool without scans that have a label, there or elsewhere, and those that have one.

    Args:
        pool: The scans.
        labelled: Labelled cases from elsewhere; a scan of the pool with the same content has their label.
    """
    is_known = finder(labelled)
    have = {case.name for case in pool if case.label is not None or is_known(case)}
    own = [case for case in pool if case.label is not None]
    return pool.filter(lambda case: case.name not in have), [*labelled, *own]


def labelled_of(run: Run | None) -> list[Dataset]:
    """The labelled cases of each folder that a segmentation run learned from.

    Raises:
        InputError: They cannot be read any more.
    """
    if run is None or not run.plan.classes:
        return []
    root = str(run.data.get("root", "of the run"))
    reader = from_dict(Data, run.config["settings"].get("reader", {}))
    more = run.config["settings"].get("with_run", ())
    sets = [open_dataset(root, reader), *(open_more(folder, reader) for folder in more)]
    return [one.labelled for one in sets]


def warn_of_names(pool: Dataset, known: Sequence[Dataset]) -> None:
    """Say how many scans are chosen last since a name alone makes them scans of labelled patients, and what to do.

    Args:
        pool: Scans without labels.
        known: Labelled cases from elsewhere; copies of these are not in the pool.
    """
    unsure = [one for one in known if not (pool.patients_named and one.patients_named)]
    patients = {patient_key(case.group) for one in unsure for case in one}
    same = sum(patient_key(case.group) in patients for case in pool)
    if not 0 < same < len(pool):  # of all of them none comes last
        return
    unnamed = dict.fromkeys(str(one.root) for one in (pool, *unsure) if not one.patients_named)
    issues = Issues()
    problem = (
        f"{same} of its {len(pool)} scans without labels are chosen last, as scans of labelled patients by their "
        f"file names alone: nothing names patients in {' and '.join(unnamed)}"
    )
    remedy = "If they are of other patients, say so in a patients.csv in their folder"
    issues.warning(pool.root, problem, remedy)
    say(issues)


def verify_count(count: int, left: int, labelled: int = 0) -> None:
    """Refuse to choose more scans than are left.

    Args:
        count: Scans to choose.
        left: Scans to choose from.
        labelled: Further scans of the pool, that have a label there or in the data of a run.

    Raises:
        InputError: Says how many there are.
    """
    if count > left:
        problem = f"the pool has {left} scans without labels to choose from"
        if labelled:
            problem += f"; {labelled} have one, in the pool or in the data of the run"
        remedy = f"Choose 1 to {left}" if left else "Give scans that have no labels yet"
        raise InputError(f"--count {count}", problem, remedy)


def small_image(scan: Scan) -> Array:
    """A scan at a few pixels, its values between percentiles: float32, one vector."""
    dims = scan.spatial_dims
    side = SIDES[dims]
    spacing = None
    if dims == 3:
        pairs = zip(canonical_shape(scan), canonical_spacing(scan), strict=True)
        spacing = tuple(n * mm / side for n, mm in pairs)
    channels = tuple(map(str, range(len(scan.array))))
    plan = Plan(dims, channels, (), (side,) * dims, spacing, resize="stretch")
    return image_to_plan(scan, plan)[0].ravel()


# ------------------------------------------------------------------------------------------------ internal


class _Features:
    """Mean and spread of a denoiser's features in the middle, where they say what the image shows."""

    def __init__(self, start: Start, device: torch.device) -> None:
        assert start.plan is not None
        self.plan, self.device = start.plan, device
        self.denoiser = start.denoiser.to(device)
        self.process = GaussianDiffusion(start.diffusion) if start.noised else None
        self.timestep = round(NOISE * start.diffusion.num_train_timesteps) if start.noised else 0

    def __call__(self, scan: Scan) -> Array:
        """float32 ``(2 C',)``.

        Raises:
            InputError: The scan does not have the axes and channels of the network.
        """
        if scan.spatial_dims != self.plan.spatial_dims:
            problem = f"has {scan.spatial_dims} axes, the network has {self.plan.spatial_dims}"
            raise InputError("scan", problem, "Leave it out, or start from another run")
        image = image_to_plan(scan, self.plan)[0]
        parts = []
        for window in _windows(image, self.plan.size):
            found = noised_features(
                self.denoiser,
                self.process,
                window[None].to(self.device),
                self.timestep,
                ("middle",),
            )["middle"][0].flatten(1)
            parts.append(torch.cat([found.mean(1), found.std(1, correction=0)]).cpu())
        vector: Array = torch.stack(parts).mean(0).numpy()
        return vector


def _patients(found: Sequence[tuple[Case, object]]) -> list[str]:
    """Keys of the patients; copies of a scan are of one, whatever their names, so that they come last."""
    first = copied(case for case, _ in found)
    return [patient_key(first.get(case.name, case).group) for case, _ in found]


def _windows(image: Array, size: Sequence[int]) -> list[Tensor]:
    """At most ``WINDOWS`` windows ``(C, *size)`` of an image, evenly spaced; a smaller image is centered in one."""
    sides = zip(image.shape[1:], size, strict=True)
    corners = list(
        itertools.product(*(starts(n, p, 0.0) if n > p else [-((p - n) // 2)] for n, p in sides))
    )
    places = (corners[i] for i in evenly(len(corners), WINDOWS))
    return [torch.from_numpy(cut(image, (*place, *size), -1.0)) for place in places]


def _look(
    cases: Sequence[Case], look: Callable[[Case], Seen], what: str, skip_bad: bool
) -> list[tuple[Case, Seen]]:
    """What is seen in each case that can be read."""
    line, found = ProgressLine(what), []
    for number, case in enumerate(cases, start=1):
        try:
            found.append((case, look(case)))
        except InputError as error:
            if error.where == "scan":
                error = InputError(case.images[0], error.problem, error.remedy)
            if not skip_bad:
                raise error from None
            print(f"radiffuse: {error}", file=sys.stderr)
        line.update(number, len(cases), case.name)
    return found
