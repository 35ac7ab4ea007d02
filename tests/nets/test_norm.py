"""The fused channels-last normalization against the plain operations it replaces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from radiffuse.nets.norm import Norm, prefers_channel_sums

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("modulated", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-3)], ids=["fp32", "bf16"]
)
def test_equals_the_plain_operations(
    dims: int, modulated: bool, dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    norm = Norm(48, 32)
    with torch.no_grad():
        norm.weight.copy_(draw(48))
        norm.bias.copy_(draw(48))
    x = (draw(3, 48, *[6] * dims) * 2 + 1).to(dtype).to(memory_format=LAYOUTS[dims])
    x.requires_grad_()
    modulation = [draw(3, 48).requires_grad_() for _ in range(2)] if modulated else []
    inputs = [x, norm.weight, norm.bias, *modulation]
    upstream = draw(*x.shape)

    assert prefers_channel_sums(x)
    fused = norm(x, *modulation)
    assert fused.dtype == dtype
    assert fused.is_contiguous(memory_format=LAYOUTS[dims])
    found = [fused, *torch.autograd.grad(fused, inputs, upstream.to(dtype))]

    h = F.group_norm(x.float().contiguous(), 24, norm.weight, norm.bias)
    if modulated:
        scale, shift = (m.reshape(3, 48, *[1] * dims) for m in modulation)
        h = h * (1 + scale) + shift
    plain = F.silu(h)
    wanted = [plain, *torch.autograd.grad(plain, inputs, upstream.to(dtype).float())]
    for a, b in zip(found, wanted, strict=True):
        a, b = a.detach().float(), b.detach().float()
        assert float((a - b).norm() / b.norm()) < tolerance


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 24), (31, 31), (37, 1), (3, 3)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert Norm(channels, 32).num_groups == groups
