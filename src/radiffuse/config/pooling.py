"""Settings of learning from unlabelled images beside the labelled ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from .data import STRONG_AUGMENTATION, Augmentation
from .types import Fraction, Within


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How a network learns from the pool: the averaged weights label an image, and the network learns its view of it.

    The teacher sees the image as it is; the network sees it moved as labelled images are, with strong changes of
    intensity, parts of a labelled image pasted in, and features missing [related: UniMatch V2, arXiv 2410.10777].
    """

    weight: Annotated[float, Within(0.001)] = 0.5
    """Weight of the pool's loss beside that of the labelled images."""
    start: Fraction = 0.3
    """When the pool joins, as a fraction of the steps: a teacher that has not learned yet has nothing to teach."""
    ramp: Fraction = 0.3
    """For how long its weight grows from zero, as a fraction of the steps."""
    threshold: Fraction | None = None
    """Probability of the teacher's class below which a voxel does not count. None: voxels count less, the further they
    lie below the mean of their class in the image [related: SoftMatch, arXiv 2301.10921], images the less, the lower
    the Dice that the teacher expects of its own mask, and whole films not at all if their foreground is less than half,
    or more than twice, that of any labelled film [ours]."""
    teacher: str | None = None
    """A finished run of ``fit``, of any method that takes a single pass, that labels the pool; a second run that learns
    from the first is self-training. None: the averaged weights of this run."""
    corrector: str | None = None
    """A finished run of mask diffusion, best trained by recycling, that repairs the teacher's masks: it draws some from
    each, noised, and voxels count less where these disagree [ours]. None: nothing."""
    cutmix: Fraction = 0.5
    """Fraction of the images that have a box of a labelled image, with its label, pasted in [related: Bai et al. 2023,
    arXiv 2305.00673]."""
    dropout: Annotated[float, Within(0, 0.9)] = 0.5
    """Fraction of the channels at the lowest resolution that are left out, in half of the images."""
    strong: Augmentation = STRONG_AUGMENTATION
    """Changes of intensity of what the network sees; it is moved as ``--augmentation`` says."""
