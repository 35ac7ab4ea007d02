"""How a path becomes cases, arrays, splits and augmented batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from .types import Floats, Fraction, NonNegativeFloat, NonNegativeInt, Place, Step, Within


@dataclass(frozen=True, kw_only=True)
class Data:
    """How a path becomes cases."""

    layout: Literal[
        "auto",
        "images",
        "pairs",
        "suffixes",
        "classes",
        "nnunet",
        "msd",
        "datalist",
        "dicom",
        "table",
        "coco",
        "totalsegmentator",
        "chest",
    ] = "auto"
    """How the folder is organized; auto looks. See docs/reference/layouts.md."""
    group: str | None = None
    """Regular expression, searched in each image's path below the data folder; its first group names the patient.
    None: the column ``patient`` of a table (``patients.csv`` or the data table), else the patient numbers of well
    known file names, else each case is its own patient."""
    only: str | None = None
    """Regular expression, searched in each image's path below the data folder; other cases are left out."""
    sites: str | None = None
    """Text file or table in the data folder, two columns without header: name of a case, and its site (institution,
    scanner). Splits then take their shares from each site."""
    label_values: tuple[Annotated[int, Within(0, 255)], ...] | None = None
    """Values that the label maps use for the classes, background first, such as 0,255 or 0,1,2,4; None: 0, 1, 2, ..."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes, background first, one for each of ``label_values``; values of the same name are one class,
    so 0,1,255 and background,muscle,muscle make two. One word, btcv, flare22, amos22 or totalsegmentator, stands for
    the names of that set. None: the names that the data set declares."""
    views: tuple[str, ...] | None = None
    """Public chest sets: only films of these views, such as pa,ap; None: all."""
    finding: str | None = None
    """Public chest sets: the finding that makes the class of a film, such as effusion: ``effusion`` where it is
    present, ``no effusion`` where it is absent; films where it is uncertain or unknown have no class."""
    skip_bad: bool = False
    """Leave unusable files out, with a line in the report, instead of stopping."""
    cache: str | None = None
    """Folder for prepared arrays; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Overrides of what the fingerprint decides; None leaves it to the fingerprint."""

    size: tuple[Annotated[int, Within(8)], ...] | None = None
    """2D: size of the whole image, in pixels (rows, columns), one number for a square. 3D: size of a patch."""
    spacing: Floats | None = None
    """3D: target spacing in mm, in the order of the axes after orientation (right, anterior, superior)."""
    resize: Literal["stretch", "fit"] | None = None
    """2D: stretch to ``size``, or fit inside it and pad."""
    crop: Literal["nonzero", "body"] | None = None
    """nonzero: cut each image to the box of its pixels that are not 0 in all channels, as of skull-stripped brains;
    body: cut each CT to the box of the body. Masks come back whole, with background outside of the box."""
    window: Floats | None = None
    """Intensity window (low, high), in HU for CT, which is mapped to [-1, 1]."""
    percentiles: tuple[Annotated[float, Within(0, 100)], ...] | None = None
    """Intensity percentiles (low, high) of each image, which are mapped to [-1, 1]."""
    postprocess: tuple[Step, ...] | None = None
    """Steps that predicted masks go through, each class for itself. largest: its largest piece stays; topmost:0.75:
    that one, or of the two largest, if the second has more than 0.75 of its size, the one that begins nearer to the
    top; fill: holes are filled; erode:5, dilate:5, open:5: with a square of 5 pixels; dilate:9:2: of 9,
    corners cut by 2. none: nothing. None: nothing, or with ``--from`` what the run does."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images. Each draw is a function of (seed, step, position in the batch)."""

    flip: tuple[Annotated[int, Within(0, 2)], ...] = ()
    """Spatial axes (0 rows, 1 columns; 3D: 0 right, 1 anterior, 2 superior) that are flipped half the time."""
    probability: Fraction = 1.0
    """How often the affine and the intensity change are applied, 0 to 1 each."""
    rotate: NonNegativeFloat = 0.0
    """Largest rotation, in degrees, either way."""
    scale: Annotated[float, Within(0, 0.9)] = 0.0
    """Largest change of scale, as a fraction, either way."""
    shear: NonNegativeFloat = 0.0
    """Largest shear, as a fraction, either way."""
    translate: Fraction = 0.0
    """Largest shift, as a fraction of the extent, either way."""
    brightness: NonNegativeFloat = 0.0
    """Largest shift of intensity, in units of the [-1, 1] range, either way."""
    contrast: NonNegativeFloat = 0.0
    """Largest change of contrast, as a fraction, either way."""
    gamma: NonNegativeFloat = 0.0
    """Largest change of gamma, as a power of two, either way."""
    noise: NonNegativeFloat = 0.0
    """Largest standard deviation of added Gaussian noise, in units of the [-1, 1] range."""


FINETUNE_AUGMENTATION = Augmentation(
    flip=(),
    rotate=10.0,
    scale=0.1,
    shear=0.05,
    translate=0.05,
    brightness=0.2,
    contrast=0.2,
    gamma=0.3,
    noise=0.05,
)
"""[related] flips, affine, crops; [ours] magnitudes, and no flip: left and right differ in a body."""

VIEWS_AUGMENTATION = Augmentation(brightness=0.2, contrast=0.2, gamma=0.3, noise=0.1)
"""[ours] changes of intensity that make two views of a scan; the grid stays."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How labelled cases are parted, by patient. Splits that the data set brings along win."""

    file: str | None = None
    """Splits file to use, written if it is missing, or nnU-Net's splits_final.json, which is read alone; None: one file
    per data set in the cache folder."""
    fold: NonNegativeInt | None = None
    """Which fold is validation, where splits_final.json or a data list of MONAI has folds; the others train. None: 0 of
    nnU-Net's; of a data list all train."""
    test: NonNegativeFloat = 0.5
    """Share of the patients kept for the test, below 1, or their number. Nothing is ever chosen or tuned on them."""
    validation: NonNegativeFloat = 0.1
    """Share of the patients kept for validation, below 1, or their number."""
    order: Literal["random", "name"] = "random"
    """name: the last patients by name are the test, those before them validation; random: drawn by seed."""
    places: tuple[Place, ...] | None = None
    """Parts of each site by place, in the order in which the file of sites lists the cases, instead of by ``test`` and
    ``validation``: each part up to a number of cases, or to a percentage rounded down, less a number, and the last up
    to the end, such as validation:2,train:75%-2,test. None: by ``order``."""
    validation_kept: NonNegativeInt | None = None
    """For data sets that declare a validation part and whose own test has no labels: so many of its cases, the first
    by name, stay validation and the others become the test. None: all stay."""
    seed: NonNegativeInt = 0
    """Seed of the split and of the draws."""
