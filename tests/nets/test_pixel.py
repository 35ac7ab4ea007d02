"""Pixel classifiers: which features, the same ones whichever way they are read, and an honest vote."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from radiffuse.config import PRESETS, Diffusion, UNetConfig
from radiffuse.nets import pixel
from radiffuse.nets.frozen import at_voxels
from radiffuse.nets.pixel import PixelClassifier
from radiffuse.nets.unet import UNet


def classifier(dims: int = 2, voters: int = 3, timesteps: int = 1000) -> PixelClassifier:
    config = UNetConfig(
        spatial_dims=dims,
        width=8,
        multipliers=(1, 2),
        blocks=2,
        attention_factors=(),
        head_channels=8,
    )
    denoiser = UNet(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    diffusion = Diffusion(num_train_timesteps=timesteps)
    return PixelClassifier(denoiser, diffusion, 4, voters=voters)


def images(dims: int = 2) -> torch.Tensor:
    shape = (2, 1, *(8, 6, 4)[:dims])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_the_papers_blocks_and_timesteps() -> None:
    with torch.device("meta"):
        paper = UNet(UNetConfig(**PRESETS["paper"]))
    network = PixelClassifier(paper, Diffusion(num_train_timesteps=1000), 2, voters=1)
    assert network.blocks == ("up.5", "up.6", "up.7", "up.8", "up.12")
    assert network.timesteps == (50, 150, 250)
    assert classifier(timesteps=4000).timesteps == (200, 600, 1000)


@pytest.mark.parametrize("dims", [2, 3])
def test_chosen_pixels_have_the_upsampled_features(dims: int) -> None:
    network, batch = classifier(dims), images(dims)
    features = network.features(batch)
    shape = batch.shape[2:]
    pixels = torch.stack([torch.arange(math.prod(shape)).flip(0), torch.arange(math.prod(shape))])
    mode = "bilinear" if dims == 2 else "trilinear"
    for feature in features:
        whole = functional.interpolate(feature, size=shape, mode=mode).flatten(2)
        wanted = whole.gather(2, pixels[:, None].expand(-1, whole.shape[1], -1)).transpose(1, 2)
        torch.testing.assert_close(at_voxels(feature, pixels, shape), wanted)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_whole_image_is_the_mean_of_the_votes(
    dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = classifier(dims).eval(), images(dims)
    count = math.prod(batch.shape[2:])
    pixels = torch.arange(count).expand(2, -1)
    with torch.no_grad():
        votes = network(batch, pixels).softmax(-1)
        assert votes.shape == (3, 2, count, 4)
        monkeypatch.setattr(pixel, "CHUNK", 7)  # several chunks, the last one not full
        mean = network(batch).exp().flatten(2).transpose(1, 2)
        spread = network.uncertainty(batch).flatten(1)
    torch.testing.assert_close(mean, votes.mean(0))

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return -(p * p.log()).sum(-1)

    divergence = entropy(votes.mean(0)) - entropy(votes).mean(0)
    torch.testing.assert_close(spread, divergence, rtol=1e-3, atol=1e-5)
    assert spread.max() > 1e-3
    assert spread.max() <= math.log(3) + 1e-5


def test_a_lone_voter_is_of_one_mind() -> None:
    with torch.no_grad():
        assert classifier(voters=1).eval().uncertainty(images()).max() < 1e-5


def test_only_the_voters_learn() -> None:
    network = classifier().train()
    assert not network.denoiser.training
    assert network.voters.training
    network(images(), torch.arange(10).expand(2, -1)).square().mean().backward()
    assert all(p.grad is None for p in network.denoiser.parameters())
    assert all(p.grad is not None for p in network.voters.parameters())


def test_the_noise_is_the_same_for_every_image_and_call() -> None:
    network, batch = classifier(), images()
    twice = torch.cat([batch[:1], batch[:1]])
    for feature, again in zip(network.features(twice), network.features(batch[:1]), strict=True):
        torch.testing.assert_close(feature[0], feature[1])
        torch.testing.assert_close(feature[:1], again)
