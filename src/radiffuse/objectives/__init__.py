"""What is learned: one loss per file, to be read beside its paper, and the tables of their names.

A new pre-training objective is a file with an ``Objective`` and a line in ``registry.OBJECTIVES``; a new segmentation
method is a file with a function ``build`` and a line in ``registry.METHODS``. What training starts from is opened by
``starts``, what the planner times is made by ``trial``.
"""

from .consistency import pooled
from .registry import (
    METHODS,
    OBJECTIVES,
    Build,
    Describe,
    Finish,
    Method,
    method_of,
    nothing,
    objective_of,
)
from .starts import FILMS, from_start, learned_from_noise, open_start, start_for
from .trial import trial_of

__all__ = [
    "FILMS",
    "METHODS",
    "OBJECTIVES",
    "Build",
    "Describe",
    "Finish",
    "Method",
    "from_start",
    "learned_from_noise",
    "method_of",
    "nothing",
    "objective_of",
    "open_start",
    "pooled",
    "start_for",
    "trial_of",
]
