"""Gaussian terms of the variational bound, element by element, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

HALF_BIN = 1 / 255
"""Half the distance between neighboring 8-bit gray values once they are mapped to [-1, 1]."""


def normal_kl(
    mean_1: Tensor, log_variance_1: Tensor, mean_2: Tensor, log_variance_2: Tensor
) -> Tensor:
    """KL divergence of N(mean_1, variance_1) from N(mean_2, variance_2), in nats, 0 or more; all four broadcast."""
    difference = log_variance_1 - log_variance_2
    distance = (mean_1 - mean_2) ** 2 * torch.exp(-log_variance_2)
    # expm1: exp(difference) - 1 - difference cancels badly where the variances are nearly equal.
    return 0.5 * (torch.expm1(difference) - difference + distance)


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log probability, in nats, of 8-bit gray values under a Gaussian, 0 or less; all three broadcast.

    The Gaussian is integrated over the bin of each value; the outermost bins are unbounded (Ho et al. 2020, eq. 13).
    Log CDFs are taken on the side of the tail, so that improbable values have a finite result and gradient.

    Args:
        x: 8-bit gray values mapped to [-1, 1]; other values are centers of bins of the same width.
        mean: Mean.
        log_std: Natural logarithm of the standard deviation.
    """
    scale = torch.exp(-log_std)
    upper, lower = (x - mean + HALF_BIN) * scale, (x - mean - HALF_BIN) * scale
    above = upper + lower > 0
    near, far = torch.where(above, -lower, upper), torch.where(above, -upper, lower)
    log_near, log_far = torch.special.log_ndtr(near), torch.special.log_ndtr(far)
    ratio = (log_far - log_near).clamp(max=-torch.finfo(x.dtype).eps)
    inside = log_near + torch.log(-torch.expm1(ratio))
    inside = torch.where(x < HALF_BIN - 1, torch.special.log_ndtr(upper), inside)
    return torch.where(x > 1 - HALF_BIN, torch.special.log_ndtr(-lower), inside)


def interpolate_log_variance(raw: Tensor, small: Tensor | float, large: Tensor | float) -> Tensor:
    """A learned log variance between its bounds (Nichol and Dhariwal 2021, eq. 15).

    Args:
        raw: The network's second half; -1 means ``small``, 1 means ``large``. Not clamped.
        small: Log of the posterior variance.
        large: Log of beta.
    """
    weight = (raw + 1) / 2
    return weight * large + (1 - weight) * small
