"""A segmenter is its denoiser under another head."""

from __future__ import annotations

import pytest
import torch

from radiffuse.config import UNetConfig
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet


def config(dims: int = 2, outputs: int = 2) -> UNetConfig:
    return UNetConfig(
        spatial_dims=dims,
        out_channels=outputs,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention_factors=(2,),
        head_channels=8,
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained_denoiser(dims: int = 2) -> UNet:
    network = UNet(config(dims))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1, generator=generator(3))
    return network


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_the_denoisers_and_only_the_head_is_new(dims: int) -> None:
    denoiser = trained_denoiser(dims)
    segmenter = SegmentingUNet.from_denoiser(denoiser, classes=5, timestep=7, generator=generator())
    images = torch.randn((2, 1, *[8] * dims), generator=generator(1))
    logits = segmenter(images)
    assert logits.shape == (2, 5, *[8] * dims)
    assert logits.abs().max() > 0, "a zero head would give the trunk no gradient"
    t = torch.full((2,), 7)
    for tap in ("middle", "level.1", "level.0"):
        ours = segmenter.unet.features(images, t, (tap,))[tap]
        assert torch.equal(ours, denoiser.features(images, t, (tap,))[tap])
    logits.square().mean().backward()
    assert all(p.grad is not None for p in segmenter.parameters())
    assert segmenter.unet.down[0].block.conv1.weight.grad.any()


def test_the_denoiser_stays_as_it_was() -> None:
    denoiser = trained_denoiser()
    before = {k: v.clone() for k, v in denoiser.state_dict().items()}
    segmenter = SegmentingUNet.from_denoiser(denoiser, classes=3, generator=generator())
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.add_(1)
    assert all(torch.equal(v, before[k]) for k, v in denoiser.state_dict().items())


def test_the_timestep_matters_and_the_seed_decides_the_rest() -> None:
    denoiser = trained_denoiser()
    images = torch.randn((1, 1, 8, 8), generator=generator(1))
    first, same, later = (
        SegmentingUNet.from_denoiser(denoiser, classes=3, timestep=t, generator=generator(s))
        for t, s in ((0, 0), (0, 0), (500, 0))
    )
    assert torch.equal(first(images), same(images))
    assert not torch.allclose(first(images), later(images))

    scratch = [
        SegmentingUNet.from_scratch(config(outputs=3), generator=generator(s)).state_dict()
        for s in (4, 4, 5)
    ]
    assert all(torch.equal(v, scratch[1][k]) for k, v in scratch[0].items())
    assert not torch.equal(scratch[0]["unet.stem.weight"], scratch[2]["unet.stem.weight"])
