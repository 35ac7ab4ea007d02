"""How a path becomes cases, arrays, splits and augmented batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .types import (
    Floats,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    Place,
    PositiveFloat,
    Seed,
    Step,
    Within,
    numbers,
)


@dataclass(frozen=True, kw_only=True)
class Data:
    """How a path becomes cases."""

    layout: Literal[
        "auto",
        "corrections",
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
    """How the folder is organized; auto: recognize it. See docs/reference/layouts.md."""
    group: str | None = None
    """Regular expression, searched in each image's path below the data folder; its first group is the patient. None:
    the column ``patient`` of a table (``patients.csv`` or the data table), else the patient number in well-known names,
    else each case counts as a separate patient."""
    only: str | None = None
    """Regular expression, searched in each image's path below the data folder; cases without a match are left out."""
    sites: str | None = None
    """Text file or table in the data folder with two columns and no header: the name of a case and its site
    (institution, scanner). Each site is then split in the same proportions."""
    label_values: tuple[Annotated[int, Within(0, 255)], ...] | None = None
    """Values that the label maps use for the classes, background first, such as 0,255 or 0,1,2,4; None: 0, 1, 2, ..."""
    label_threshold: Annotated[float, Within(1e-6)] | None = None
    """Label maps with soft edges (interpolated, compressed as JPEG, or probabilities): values from this one on are the
    foreground, lower ones the background, such as 128 for masks of 0 to 255. None: values are classes."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes, background first, one for each of ``label_values``. Values with the same name are one
    class: 0,1,255 with background,muscle,muscle are two classes. The single word btcv, flare22, amos22 or
    totalsegmentator stands for the names of that data set. None: the names that the data set declares."""
    views: tuple[str, ...] | None = None
    """Public chest sets: only films of these views, such as pa,ap; None: all."""
    finding: str | None = None
    """Public chest sets: the finding to classify by. With effusion, a film is of the class ``effusion`` where it is
    present and ``no effusion`` where it is absent; a film where it is uncertain or unknown has no class."""
    skip_bad: bool = False
    """Skip unusable files and list them in the report, instead of stopping."""
    cache: str | None = None
    """Folder for prepared arrays; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Changes to the plan, which follows from the data; None keeps what the plan says."""

    size: tuple[Annotated[int, Within(8)], ...] | None = None
    """Size of the patch that the network sees, in pixels (rows, columns) or voxels; one number for equal sides."""
    grid: tuple[Annotated[int, Within(8)], ...] | None = None
    """2D: pixels (rows, columns) that films are brought to, one number for a square. Where that is more than ``size``,
    the network sees a film patch by patch. None: ``size``, so that it sees films whole."""
    ceiling: tuple[Fraction, ...] | None = None
    """Dice and surface Dice that a perfect network should reach for every class on the grid that is chosen; None:
    .99,.95, as far as time and memory allow."""
    spacing: tuple[PositiveFloat, ...] | None = field(default=None, metadata=numbers(3))
    """3D: target spacing in mm, in the order of the axes after orientation (right, anterior, superior); one number for
    equal spacing."""
    resize: Literal["stretch", "fit"] | None = None
    """2D: stretch films to the grid, or fit them inside it and pad. Augmentation rotates films as they are on the grid:
    what was stretched is sheared too."""
    crop: Literal["nonzero", "body"] | None = None
    """nonzero: crop each image to the bounding box of its nonzero pixels, as for skull-stripped brains; body: crop each
    CT to the bounding box of the body. Predicted masks have the full size, with background outside the box."""
    window: Floats | None = field(default=None, metadata=numbers(2))
    """Intensity window (low, high), in HU for CT; it is mapped to [-1, 1]."""
    percentiles: tuple[Annotated[float, Within(0, 100)], ...] | None = field(
        default=None, metadata=numbers(2)
    )
    """Intensity percentiles (low, high) of each image; they are mapped to [-1, 1]."""
    postprocess: tuple[Step, ...] | None = None
    """Post-processing of predicted masks, step by step and class by class. largest: keep the largest component;
    topmost:0.75: the same, but if the second largest has more than 0.75 of its size, keep whichever of the two begins
    nearer to the top; fill: fill holes; erode:5, dilate:5, open:5: with a square of 5 pixels; dilate:9:2: with a square
    of 9 whose corners are cut by 2; keep:2: keep the two largest components; drop:50: drop those below 50 mm³ (2D: mm²;
    pixels where the spacing is unknown); islands:0.01: drop those below .01 of the image. 2=largest is for the class of
    value 2 alone. none: no step. None: the steps of the run of ``--from`` if it has any; otherwise, where a class has
    the same number of pieces in the label maps of all of at least 3 patients, the largest pieces of that number are
    kept; with fewer patients, pieces below a quarter of the smallest labelled one are dropped, if that has .02 of a
    film or .002 of a volume; ``fit --method auto`` tries it on folds."""

    def __post_init__(self) -> None:
        """One spacing is that of each axis."""
        if self.spacing is not None and len(self.spacing) == 1:
            object.__setattr__(self, "spacing", self.spacing * 3)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random augmentation of training images, a function of (seed, step, position in the batch)."""

    flip: tuple[Annotated[int, Within(0, 2)], ...] | None = ()
    """Spatial axes to flip, each half the time (0 rows, 1 columns; 3D: 0 right, 1 anterior, 2 superior); []: no axis.
    None: left and right, in fit where the plan says that no class has a side; labels beyond the border are then ignored
    along other axes."""
    probability: Fraction = 1.0
    """Probability, 0 to 1, of the affine change, and likewise of the intensity change."""
    chance: Fraction = 0.25
    """Probability, 0 to 1, of ``elastic``, ``blur``, ``coarser`` and ``shading``, each by itself [related: nnU-Net, .2
    to .25]."""
    rotate: NonNegativeFloat = 0.0
    """Largest rotation in either direction, in degrees."""
    scale: Annotated[float, Within(0, 0.9)] = 0.0
    """Largest change of scale in either direction, as a fraction, of each axis by itself."""
    zoom: Annotated[float, Within(0, 3)] = 0.0
    """Largest change of scale of all axes together, in either direction, as a power of two; uniform in it."""
    shear: NonNegativeFloat = 0.0
    """Largest shear in either direction, as a fraction."""
    translate: Fraction = 0.0
    """Largest shift in either direction, as a fraction of the extent."""
    elastic: Annotated[float, Within(0, 0.12)] = 0.0
    """Largest displacement by a smooth random deformation, as a fraction of the extent; more than .12 could fold."""
    brightness: NonNegativeFloat = 0.0
    """Largest shift of intensity in either direction, in units of the [-1, 1] range."""
    contrast: NonNegativeFloat = 0.0
    """Largest change of contrast in either direction, as a fraction."""
    gamma: NonNegativeFloat = 0.0
    """Largest change of gamma in either direction, as a power of two."""
    inverted: Fraction = 0.0
    """Probability, 0 to 1, that gamma acts on the inverted intensities, and so on the bright end of the range."""
    blur: Annotated[float, Within(0, 16)] = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels."""
    coarser: Annotated[float, Within(0, 4)] = 0.0
    """Largest loss of resolution, as a power of two: pixels are averaged, then interpolated."""
    shading: NonNegativeFloat | None = 0.0
    """Largest local shift of intensity by a smooth random field, in units of the [-1, 1] range; it imitates uneven
    exposure or the bias field of a coil. None: 0.8 where each image has a range of its own, 0 where all share a fixed
    window."""
    noise: NonNegativeFloat = 0.0
    """Largest standard deviation of added Gaussian noise, in units of the [-1, 1] range."""
    cutmix: Fraction = 0.0
    """Fraction of the images that have a box of another image of the batch, with its label, pasted in (CutMix, Yun et
    al. 2019, arXiv 1905.04899); fit alone. A box takes .1 to .5 of an image."""


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

FIT_AUGMENTATION = Augmentation(
    flip=None,
    rotate=15.0,
    zoom=0.5,
    translate=0.1,
    elastic=0.04,
    brightness=0.2,
    contrast=0.25,
    gamma=0.5,
    inverted=0.5,
    blur=1.5,
    coarser=1.0,
    noise=0.05,
)
"""[related: nnU-Net] the changes, and scales of .7 to 1.4; [ours] magnitudes, and mirroring by the plan alone."""

VIEWS_AUGMENTATION = Augmentation(brightness=0.2, contrast=0.2, gamma=0.3, noise=0.1)
"""[ours] intensity changes that make two views of a scan; the grid stays the same."""

STRONG_AUGMENTATION = Augmentation(
    chance=0.5,
    brightness=0.3,
    contrast=0.4,
    gamma=0.7,
    inverted=0.5,
    blur=2.0,
    coarser=1.5,
    shading=None,
    noise=0.1,
)
"""[ours] changes of intensity of what is learned from the pool; shading is that of TorchIO and MONAI [related]."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How labelled cases are split, by patient.

    A setting that states another split than the data set itself, or than a splits file that is there, is refused.
    """

    file: str | None = None
    """Splits file, written if it does not exist and only read if it does; or nnU-Net's splits_final.json, which is only
    read. None: one file per data set in the cache folder."""
    fold: NonNegativeInt | None = None
    """Which fold is for validation, where splits_final.json or a data list of MONAI has folds; the others are for
    training. None: fold 0 of nnU-Net; of a data list, as if it had no folds."""
    test: NonNegativeFloat = 0.5
    """Test patients: their fraction (below 1) or their number. Nothing is ever chosen or tuned on them."""
    validation: NonNegativeFloat = 0.1
    """Validation patients: their fraction (below 1) or their number."""
    order: Literal["random", "name"] = "random"
    """random: drawn by seed; name: the last patients by name are the test, those before them the validation."""
    places: tuple[Place, ...] | None = None
    """Split each site by position in the file of ``sites``, not by ``test`` and ``validation``. Each part ends at a
    number of cases, or at a percentage (rounded down) minus a number; the last part takes the rest. Example:
    validation:2,train:75%-2,test. None: by ``order``."""
    validation_kept: NonNegativeInt | None = None
    """For data sets that declare a validation part and whose test part has no labels: keep this many validation cases,
    the first by name, and make the others the test. None: keep all."""
    seed: Seed = 0
    """Seed of the split and of the draws of labelled cases."""
