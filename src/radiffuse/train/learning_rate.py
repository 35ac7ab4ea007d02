"""Learning rate and weight decay as pure functions of the step: a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from ..config import Training

RESTART = 0.5
"""Of the peak, what the cosine starts from anew at full resolution [ours]."""


def learning_rate(step: int, training: Training) -> float:
    """Learning rate of one optimizer step: linear warm-up, then constant, cosine or one drop.

    The cosine is that of Loshchilov and Hutter 2017, eq. 5, without restarts, but for one where the steps at half the
    resolution end: each part goes all the way down.

    Args:
        step: The step, counted from 0.
        training: Settings; see ``warmup_steps``, ``start_learning_rate``, ``learning_rate``,
            ``decay``, ``decay_steps``, ``final_learning_rate`` and ``coarse``.

    Returns:
        From ``start_learning_rate`` at step 0 to ``learning_rate`` at step ``warmup_steps``; then down
        to ``final_learning_rate`` at step ``decay_steps`` and after it, under ``cosine`` smoothly,
        under ``step`` at once. With ``coarse`` the cosine is there when the steps at half the resolution end,
        and starts anew at half of ``learning_rate``.
    """
    start, peak = training.start_learning_rate, training.learning_rate
    warmup = training.warmup_steps
    if step < warmup:
        return start + (peak - start) * step / warmup
    if training.decay == "constant" or step == warmup:
        return peak
    begin = warmup
    end = training.length - 1 if training.decay_steps is None else training.decay_steps
    if training.decay == "cosine" and warmup < (coarse := training.coarse_steps) <= end:
        if step < coarse:
            end = coarse
        else:
            begin, peak = coarse, RESTART * peak
    if step >= end:
        return training.final_learning_rate
    if training.decay == "step":
        return peak
    return _half_cosine(peak, training.final_learning_rate, (step - begin) / (end - begin))


def cut_short(training: Training, group: str = "") -> str:
    """A sentence on a training that ends before its learning rate has risen, or ''.

    ``group`` is where the settings are those of a stage, such as ``dino.``, and begins the flags that are named.
    """
    steps, warmup, peak = training.steps, training.warmup_steps, training.learning_rate
    if steps is None or steps > warmup or training.start_learning_rate == peak:
        return ""
    return (
        f"--{group}training.steps {steps} is no more than --{group}training.warmup-steps {warmup}, so the learning "
        f"rate gets to {learning_rate(steps - 1, training):.2g} and never to {peak:.2g}: take more steps, or a "
        "shorter warm-up"
    )


def weight_decay(step: int, training: Training) -> float:
    """Weight decay of one optimizer step: constant, or along half a cosine (Caron et al. 2021).

    Args:
        step: The step, counted from 0.
        training: Settings; see ``weight_decay`` and ``final_weight_decay``.

    Returns:
        From ``weight_decay`` at step 0 to ``final_weight_decay``, where it is given, at the last step.
    """
    start, final = training.weight_decay, training.final_weight_decay
    if final is None:
        return start
    return _half_cosine(start, final, min(1.0, step / max(1, training.length - 1)))


def _half_cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` as ``share`` goes from 0 to 1."""
    return end + (start - end) * (0.5 * (1 + math.cos(math.pi * share)))
