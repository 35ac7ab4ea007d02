"""Which settings of a group take effect beside the others of it, in whatever command it is; see ``effect``."""

from __future__ import annotations

from collections.abc import Mapping

from .classification import Classify
from .data import Augmentation, PlanSettings, Split
from .learning import Contrast, Diffusion, Losses, Sampling, Training
from .network import IMAGENET, Network
from .pooling import Pool
from .pretraining import Pretrain
from .rules import UNPASTED, UNPLACED, UNSEGMENTED, Rule, always
from .segmenting import MaskDiffusion, Probing
from .synthesis import AutoencoderSettings, DinoSettings

MOVES = "flip rotate scale zoom shear translate elastic"
RARE = "elastic blur coarser shading"
"""Changes of images that are drawn by ``chance``."""
OTHERWISE = {"flip", "probability", "chance", "inverted", "cutmix", *RARE.split()}
"""What is not drawn by ``probability``."""
UNLABELLED: tuple[Rule, ...] = (
    (always, "training.keep training.coarse", UNSEGMENTED),
    (always, "augmentation.cutmix", UNPASTED),
)
"""Of whatever is trained without label maps."""

ANYWHERE: Mapping[type, tuple[Rule, ...]] = {
    **dict.fromkeys((Pretrain, Classify, AutoencoderSettings), UNLABELLED),
    Training: (
        (lambda s: not s.warmup_steps, "start_learning_rate", "there is no warm-up"),
        (
            lambda s: s.decay == "constant",
            "final_learning_rate decay_steps",
            "the learning rate is constant",
        ),
    ),
    Diffusion: (
        (lambda s: s.timestep_sampling != "low", "timestep_power", "no low ones are favored"),
        (lambda s: s.schedule == "flow", "zero_terminal_snr", "a flow ends in pure noise"),
    ),
    Network: (
        (
            lambda s: s.preset == IMAGENET,
            " ".join(name for name in vars(Network()) if name != "preset"),
            f"the preset {IMAGENET} is one network",
        ),
    ),
    Losses: ((lambda s: not s.focal, "focal_gamma", "the focal loss has no weight"),),
    Sampling: ((lambda s: s.sampler != "ddim", "eta", "the sampler is not ddim"),),
    MaskDiffusion: (
        (
            lambda s: s.strategy == "none",
            "process sampling image_share",
            "the strategy none diffuses nothing",
        ),
        (lambda s: s.strategy != "recycle", "first_pass", "only recycle has a first pass"),
        (lambda s: s.strategy in ("none", "standard"), "feed_back", "the strategy has one pass"),
    ),
    Probing: (
        (lambda s: "nonlinear" not in s.heads, "width", "no head is nonlinear"),
        (lambda s: not s.coordinates, "regressor sweep_coordinates", UNPLACED),
    ),
    PlanSettings: (
        (lambda s: s.window, "percentiles", "the window decides"),
        (lambda s: s.size or s.grid or s.spacing, "ceiling", "the grid is given"),
    ),
    Augmentation: (
        (
            lambda s: not any(v for k, v in vars(s).items() if k not in OTHERWISE),
            "probability",
            "nothing that it is for is changed",
        ),
        (lambda s: all(getattr(s, n) == 0 for n in RARE.split()), "chance", f"{RARE} are off"),
        (lambda s: not s.gamma, "inverted", "gamma does not change"),
    ),
    Split: (
        (
            lambda s: s.fold is not None,
            "test validation order places validation_kept",
            "the fold decides",
        ),
        (lambda s: s.places is not None, "test validation order", "the places decide"),
    ),
    Contrast: (
        (always, " ".join(f"views.{n}" for n in MOVES.split()), "the places of voxels are learned"),
        (always, "views.cutmix", UNPASTED),
    ),
    Pool: (
        (
            always,
            " ".join(f"strong.{n}" for n in MOVES.split()),
            "images are moved as --augmentation says",
        ),
        (always, "strong.cutmix", "--pool.cutmix says it of the pool"),
    ),
    DinoSettings: (
        *UNLABELLED,
        (always, "training.average_decay", "the teacher is the average"),
        (lambda s: not s.local_crops, "local_scale", "there are no small crops"),
        (lambda s: not s.teacher_warmup, "start_teacher_temperature", "there is no warm-up"),
    ),
}
"""Rules of a group, wherever it is."""
