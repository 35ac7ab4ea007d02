"""Legal ranges of the numbers in ``radiffuse.config``, so that a slip ends in one line and not deep in a run."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..errors import InputError

Range = tuple[float, float]
AT_LEAST_0: Range = (0, math.inf)
AT_LEAST_1: Range = (1, math.inf)
SHARE: Range = (0, 1)

DRAWING: dict[str, Range] = {
    "strength": AT_LEAST_0,
    "guidance": AT_LEAST_0,
    "steps": AT_LEAST_1,
    "batch": AT_LEAST_1,
}

RANGES: dict[str, dict[str, Range]] = {
    "Network": {
        "width": AT_LEAST_1,
        "multipliers": AT_LEAST_1,
        "blocks": AT_LEAST_1,
        "attention_factors": AT_LEAST_1,
        "head_channels": AT_LEAST_1,
        "dropout": SHARE,
    },
    "Diffusion": {"num_train_timesteps": AT_LEAST_1, "min_snr_gamma": AT_LEAST_0},
    "Training": {
        "steps": AT_LEAST_1,
        "batch_size": AT_LEAST_1,
        "micro_batch": AT_LEAST_1,
        "learning_rate": AT_LEAST_0,
        "warmup_steps": AT_LEAST_0,
        "start_learning_rate": AT_LEAST_0,
        "final_learning_rate": AT_LEAST_0,
        "decay_steps": AT_LEAST_0,
        "weight_decay": AT_LEAST_0,
        "gradient_clip": AT_LEAST_0,
        "average_decay": SHARE,
        "validate_every": AT_LEAST_0,
        "checkpoint_every": AT_LEAST_1,
        "log_every": AT_LEAST_1,
        "seed": AT_LEAST_0,
    },
    "Machine": {
        "devices": AT_LEAST_1,
        "num_nodes": AT_LEAST_1,
        "workers": AT_LEAST_1,
        "threads": AT_LEAST_1,
    },
    "PlanSettings": {"size": (8, math.inf), "percentiles": (0, 100)},
    "Augmentation": {
        "flip": (0, 2),
        "probability": SHARE,
        "rotate": AT_LEAST_0,
        "scale": (0, 0.9),
        "shear": AT_LEAST_0,
        "translate": SHARE,
        "brightness": AT_LEAST_0,
        "contrast": AT_LEAST_0,
        "gamma": AT_LEAST_0,
        "noise": AT_LEAST_0,
    },
    "Data": {"label_values": (0, 255)},
    "Split": {
        "fold": AT_LEAST_0,
        "test": AT_LEAST_0,
        "validation": AT_LEAST_0,
        "validation_kept": AT_LEAST_0,
        "seed": AT_LEAST_0,
    },
    "View": {"port": (0, 65535), "upload_limit": AT_LEAST_1},
    "Pretrain": {"limit": AT_LEAST_1, "sigma": AT_LEAST_0},
    "Contrast": {
        "crop": (0.1, 1),
        "voxels": (2, math.inf),
        "temperature": (1e-3, math.inf),
        "width": AT_LEAST_1,
    },
    "Coordinates": {
        "crop": (0.1, 1),
        "voxels": AT_LEAST_1,
        "agreement": AT_LEAST_0,
        "limit": AT_LEAST_1,
    },
    "Finetune": {"labels": AT_LEAST_1, "draw": AT_LEAST_0, "timestep": AT_LEAST_0},
    "Probe": {
        "timesteps": AT_LEAST_0,
        "sweep": AT_LEAST_0,
        "noise_draws": AT_LEAST_1,
        "width": AT_LEAST_1,
        "labels": AT_LEAST_1,
        "draw": AT_LEAST_0,
    },
    "Losses": {
        "cross_entropy": AT_LEAST_0,
        "dice": AT_LEAST_0,
        "focal": AT_LEAST_0,
        "focal_gamma": AT_LEAST_0,
    },
    "Sampling": {"steps": AT_LEAST_1, "eta": SHARE},
    "DiffSeg": {"labels": AT_LEAST_1, "draw": AT_LEAST_0},
    "Predict": {
        "overlap": (0, 0.9),
        "steps": AT_LEAST_1,
        "samples": AT_LEAST_1,
        "seed": AT_LEAST_0,
    },
    "Evaluate": {"tolerance": AT_LEAST_0},
    "Study": {
        "labels": AT_LEAST_1,
        "draws": AT_LEAST_1,
        "timesteps": AT_LEAST_0,
        "pools": AT_LEAST_1,
        "generated": AT_LEAST_1,
        "tolerance": AT_LEAST_0,
    },
    "DinoSettings": {
        "width": (64, math.inf),
        "depth": AT_LEAST_1,
        "patch": AT_LEAST_1,
        "local_crops": AT_LEAST_0,
        "global_scale": (0.01, 1),
        "local_scale": (0.01, 1),
        "prototypes": (2, math.inf),
        "momentum": SHARE,
        "temperature": (1e-3, math.inf),
        "teacher_temperature": (1e-3, math.inf),
        "center_momentum": SHARE,
        "spread": AT_LEAST_0,
    },
    "AutoencoderSettings": {
        "channels": AT_LEAST_1,
        "blocks": AT_LEAST_1,
        "latent_channels": AT_LEAST_1,
        "kl": AT_LEAST_0,
        "gradient": AT_LEAST_0,
    },
    "LatentNetwork": {
        "channels": AT_LEAST_1,
        "blocks": AT_LEAST_1,
        "heads": AT_LEAST_1,
        "context": AT_LEAST_1,
    },
    "Synthesize": {"null": SHARE, "limit": AT_LEAST_1},
    "ZeroShot": {"seed": AT_LEAST_0},
    "Drawing": DRAWING,
    "Generate": {"count": AT_LEAST_1, "seed": AT_LEAST_0, **DRAWING},
    "Fidelity": {"draws": AT_LEAST_1, "seed": AT_LEAST_0},
    "Memorization": {"percentile": (50, 100), "pairs": AT_LEAST_1},
    "Classify": {"labels": AT_LEAST_1, "draw": AT_LEAST_0, "ratio": AT_LEAST_0},
    "Augment": {
        "ratios": AT_LEAST_0,
        "pools": AT_LEAST_1,
        "draws": AT_LEAST_1,
        "samples": AT_LEAST_1,
    },
    "Anatomy": {"count": AT_LEAST_1, "size": AT_LEAST_1, "seed": AT_LEAST_0, "start": AT_LEAST_0},
    "Sample": {"count": AT_LEAST_1, "steps": AT_LEAST_1, "seed": AT_LEAST_0},
}
"""By dataclass and field: lowest and highest legal value; of a tuple, each of its numbers."""


def verify_ranges(settings: Any, prefix: str = "") -> None:
    """Refuse a number outside its legal range, in the settings and the groups inside them.

    Raises:
        InputError: Names the setting, its value and what is legal.
    """
    ranges = RANGES.get(type(settings).__name__, {})
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            verify_ranges(value, f"{prefix}{field.name}.")
        elif field.name in ranges and value is not None:
            low, high = ranges[field.name]
            numbers = value if isinstance(value, tuple) else (value,)
            # "not within" also catches NaN, which no comparison holds for.
            wrong = [n for n in numbers if not low <= n <= high or math.isinf(n)]
            if wrong:
                legal = f"at least {low}" if math.isinf(high) else f"{low} to {high}"
                raise InputError(
                    f"--{prefix}{field.name} {wrong[0]}", "is out of range", f"Legal is {legal}"
                )
