"""Masks as x_start of a diffusion: one-hot with background, 2 m - 1 (Fu et al. 2023, released code)."""

from __future__ import annotations

from torch import Tensor

from .losses import one_hot


def mask_to_x_start(labels: Tensor, classes: int) -> Tensor:
    """``(B, *spatial)`` int64 labels as x_start ``(B, K, *spatial)``, 1 at the true class and -1 elsewhere."""
    return 2 * one_hot(labels, classes) - 1


def logits_to_x_start(logits: Tensor) -> Tensor:
    """Logits of the clean mask ``(B, K, *spatial)`` as an estimate of x_start, in [-1, 1]."""
    return 2 * logits.softmax(1) - 1
