"""The learning rate as a pure function of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from ..config import Training


def learning_rate(step: int, training: Training) -> float:
    """Learning rate of one optimizer step: linear warm-up, then constant, cosine or one drop.

    The cosine is that of Loshchilov and Hutter 2017, eq. 5, without restarts.

    Args:
        step: The step, counted from 0.
        training: Settings; see ``warmup_steps``, ``start_learning_rate``, ``learning_rate``,
            ``decay``, ``decay_steps`` and ``final_learning_rate``.

    Returns:
        From ``start_learning_rate`` at step 0 to ``learning_rate`` at step ``warmup_steps``; then down
        to ``final_learning_rate`` at step ``decay_steps`` and after it, under ``cosine`` smoothly,
        under ``step`` at once.
    """
    start, peak = training.start_learning_rate, training.learning_rate
    warmup = training.warmup_steps
    if step < warmup:
        return start + (peak - start) * step / warmup
    if training.decay == "constant" or step == warmup:
        return peak
    end = training.length - 1 if training.decay_steps is None else training.decay_steps
    if step >= end:
        return training.final_learning_rate
    if training.decay == "step":
        return peak
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (end - warmup)))
    return training.final_learning_rate + (peak - training.final_learning_rate) * cosine
