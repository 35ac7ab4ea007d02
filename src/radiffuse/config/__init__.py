"""Every setting of every command: its unit, its legal values and where its default comes from.

The dataclasses below *are* the command line, the YAML files and the keyword arguments of the Python functions
(``settings.py`` reads them). Nothing heavy is imported here: no torch, no numpy.

Sources are named in brackets: [paper] the published article, [code] its authors' code, [related] the nearest
readable source, [ours] our choice.
"""

from .classification import Augment, Classify
from .data import (
    FINETUNE_AUGMENTATION,
    VIEWS_AUGMENTATION,
    Augmentation,
    Data,
    PlanSettings,
    Split,
)
from .files import (
    Anatomy,
    Check,
    Convert,
    Export,
    Info,
    Report,
)
from .learning import (
    Contrast,
    Diffusion,
    Losses,
    Machine,
    Sampling,
    Training,
)
from .network import PRESETS, Network, UNetConfig, resolve_network
from .pretraining import Coordinates, Pretrain, Sample
from .quality import Fidelity, Memorization
from .segmenting import (
    DiffSeg,
    Evaluate,
    Finetune,
    Predict,
    Probe,
)
from .studying import Study
from .synthesis import (
    LATENT_PRESETS,
    AutoencoderSettings,
    DinoSettings,
    Drawing,
    Generate,
    LatentNetwork,
    SynthesisStrategy,
    Synthesize,
    ZeroShot,
)
from .tools import Compare, Completion, Doctor
from .types import (
    IGNORE,
    POSITIONAL,
    Floats,
    Ints,
    Strategy,
)
from .viewing import View

__all__ = [
    "FINETUNE_AUGMENTATION",
    "IGNORE",
    "LATENT_PRESETS",
    "POSITIONAL",
    "PRESETS",
    "VIEWS_AUGMENTATION",
    "Anatomy",
    "Augment",
    "Augmentation",
    "AutoencoderSettings",
    "Check",
    "Classify",
    "Compare",
    "Completion",
    "Contrast",
    "Convert",
    "Coordinates",
    "Data",
    "DiffSeg",
    "Diffusion",
    "DinoSettings",
    "Doctor",
    "Drawing",
    "Evaluate",
    "Export",
    "Fidelity",
    "Finetune",
    "Floats",
    "Generate",
    "Info",
    "Ints",
    "LatentNetwork",
    "Losses",
    "Machine",
    "Memorization",
    "Network",
    "PlanSettings",
    "Predict",
    "Pretrain",
    "Probe",
    "Report",
    "Sample",
    "Sampling",
    "Split",
    "Strategy",
    "Study",
    "SynthesisStrategy",
    "Synthesize",
    "Training",
    "UNetConfig",
    "View",
    "ZeroShot",
    "resolve_network",
]
