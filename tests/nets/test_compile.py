"""A compiled network in bfloat16 learns what the eager one learns."""

from __future__ import annotations

import shutil

import pytest
import torch

from radiffuse.config import Network, resolve_network
from radiffuse.nets.unet import UNet


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_bfloat16_has_the_gradients_of_the_eager_network() -> None:
    tiny = Network(width=16, multipliers=(1,), blocks=1, attention_factors=(), head_channels=8)
    network = UNet(resolve_network(tiny, spatial_dims=2, in_channels=1, out_channels=1))
    network.initialize(torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():  # no layer stays at zero
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, t = torch.randn((4, 1, 32, 32), generator=generator), torch.tensor([1, 20, 300, 900])
    x = x.to(memory_format=torch.channels_last)

    def gradients(forward: torch.nn.Module) -> dict[str, torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = forward(x, t)
        (output.float() - x).square().mean().backward()
        return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    eager, compiled = gradients(network), gradients(torch.compile(network))  # type: ignore[arg-type]
    largest = max(float(gradient.norm()) for gradient in eager.values())
    for name, gradient in eager.items():
        assert compiled[name].isfinite().all(), name
        # A bias before a normalization has no gradient but rounding.
        if float(gradient.norm()) > 1e-4 * largest:
            error = float((compiled[name] - gradient).norm() / gradient.norm())
            assert error < 0.1, f"{name}: {error}"
