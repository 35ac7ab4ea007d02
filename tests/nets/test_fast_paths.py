"""The fast paths of the CPU learn what torch's own operations learn."""

from __future__ import annotations

import pytest
import torch

from radiffuse.config import UNetConfig
from radiffuse.nets import blocks, channels_last_norm
from radiffuse.nets.unet import UNet

STEPS = 50


@pytest.mark.slow
@pytest.mark.parametrize(("dims", "size", "batch"), [(2, 32, 4), (3, 16, 1)])
def test_fifty_losses_are_the_same_to_rounding(
    dims: int, size: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels_last_norm, "MANY", {})
    monkeypatch.setattr(blocks, "RECOMPUTED", 0)
    config = UNetConfig(
        spatial_dims=dims, width=16, multipliers=(1, 2), blocks=1, attention_factors=(2,),
        head_channels=16, residual_updown=dims == 2, scale_shift_norm=dims == 2,
    )  # fmt: skip

    def losses(fast: bool) -> list[float]:
        network = UNet(config)
        network.initialize(torch.Generator().manual_seed(0))
        if fast:
            order = torch.channels_last if dims == 2 else torch.channels_last_3d
            network = network.to(memory_format=order)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=fast)
        generator = torch.Generator().manual_seed(1)
        found = []
        for step in range(STEPS):
            x = torch.randn((batch, 1, *(size,) * dims), generator=generator)
            t = torch.full((batch,), 20 * step)
            loss = (network(x, t) - x).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        return found

    fast = losses(True)
    with torch.backends.mkldnn.flags(enabled=False):  # torch's own convolutions and normalization
        plain = losses(False)
    assert fast == pytest.approx(plain, rel=2e-3)
    assert fast[:10] == pytest.approx(plain[:10], rel=1e-4)
    assert fast[-1] < 0.8 * fast[0]
