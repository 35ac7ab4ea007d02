"""Every setting of every command: its unit, its legal values and where its default comes from.

These dataclasses *are* the command line, the YAML files and the keyword arguments of the Python functions
(``cli.settings`` reads them). Nothing heavy is imported here: no torch, no numpy.

The source of a default stands in brackets: [paper] the published article, [code] its authors' code, [related] the
closest source that can be read, [ours] our choice.
"""

from .classification import Augment, Classify
from .data import (
    FINETUNE_AUGMENTATION,
    FIT_AUGMENTATION,
    VIEWS_AUGMENTATION,
    Augmentation,
    Data,
    PlanSettings,
    Split,
)
from .learning import Contrast, Diffusion, Losses, Machine, Sampling, Training
from .network import (
    PRESETS,
    Network,
    UNetConfig,
    fitting_size,
    network_for,
    network_settings,
    resolve_network,
)
from .pooling import Pool
from .pretraining import PRETRAIN, ObjectiveName, Pretrain, Regressor
from .segmenting import (
    FIT,
    Decoding,
    Evaluate,
    Finetuning,
    Fit,
    Joint,
    MaskDiffusion,
    MethodName,
    Predict,
    Probing,
)
from .studying import NNUNet, Study
from .synthesis import (
    LATENT_PRESETS,
    AutoencoderSettings,
    DinoSettings,
    Drawing,
    Generate,
    Judge,
    LatentNetwork,
    SynthesisStrategy,
    Synthesize,
    ZeroShot,
)
from .tools import Anatomy, Cache, Check, Convert, Doctor, Export, Info, Select, View
from .training_plan import TrainingPlan
from .types import IGNORE, POSITIONAL, Floats, Ints, Strategy, Within

__all__ = [
    "FINETUNE_AUGMENTATION",
    "FIT",
    "FIT_AUGMENTATION",
    "IGNORE",
    "LATENT_PRESETS",
    "POSITIONAL",
    "PRESETS",
    "PRETRAIN",
    "VIEWS_AUGMENTATION",
    "Anatomy",
    "Augment",
    "Augmentation",
    "AutoencoderSettings",
    "Cache",
    "Check",
    "Classify",
    "Contrast",
    "Convert",
    "Data",
    "Decoding",
    "Diffusion",
    "DinoSettings",
    "Doctor",
    "Drawing",
    "Evaluate",
    "Export",
    "Finetuning",
    "Fit",
    "Floats",
    "Generate",
    "Info",
    "Ints",
    "Joint",
    "Judge",
    "LatentNetwork",
    "Losses",
    "Machine",
    "MaskDiffusion",
    "MethodName",
    "NNUNet",
    "Network",
    "ObjectiveName",
    "PlanSettings",
    "Pool",
    "Predict",
    "Pretrain",
    "Probing",
    "Regressor",
    "Sampling",
    "Select",
    "Split",
    "Strategy",
    "Study",
    "SynthesisStrategy",
    "Synthesize",
    "Training",
    "TrainingPlan",
    "UNetConfig",
    "View",
    "Within",
    "ZeroShot",
    "fitting_size",
    "network_for",
    "network_settings",
    "resolve_network",
]
