"""The complete variational bound of images under a model, in bits per dimension."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.core.sampling import Denoiser


@dataclass(frozen=True)
class VariationalBound:
    """Negative log likelihood bound, bits per dimension (Ho et al. 2020, eq. 5)."""

    total: Tensor
    """(B,), prior and all terms together."""
    prior: Tensor
    """(B,), the part that does not depend on the network."""
    terms: Tensor
    """(B, T), the term of each timestep; column 0 is the decoder's."""


@torch.no_grad()
def variational_bound(
    diffusion: GaussianDiffusion,
    network: Denoiser,
    x_start: Tensor,
    generator: torch.Generator,
    *,
    clip: bool = True,
) -> VariationalBound:
    """The bound with one noise sample per timestep; calls the network T times.

    Args:
        diffusion: The process.
        network: Called as ``network(x_t, t)``.
        x_start: (B, C, *spatial), 8-bit gray values in [-1, 1].
        generator: Source of the noise.
        clip: Clip the predicted x_start to [-1, 1].
    """
    terms = []
    for timestep in range(diffusion.num_train_timesteps):
        t = torch.full((x_start.shape[0],), timestep, dtype=torch.int64, device=x_start.device)
        noise = torch.randn(
            x_start.shape, generator=generator, device=generator.device, dtype=x_start.dtype
        ).to(x_start.device)
        x_t = diffusion.add_noise(x_start, noise, t)
        output = network(x_t, t)
        terms.append(diffusion.variational_term(output, x_start, x_t, t, clip=clip))
    stacked = torch.stack(terms, dim=1)
    prior = diffusion.prior_term(x_start)
    return VariationalBound(total=prior + stacked.sum(dim=1), prior=prior, terms=stacked)
