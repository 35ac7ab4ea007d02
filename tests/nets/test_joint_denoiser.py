"""The denoiser of image and mask: its start from a denoiser of images, and the denoiser of images that it contains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from radiffuse.config import Network, UNetConfig, resolve_network
from radiffuse.nets.joint_denoiser import CLEAN, JointDenoiser
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.unet import UNet
from tiny_runs import shake

CLASSES, TIMESTEPS = 3, 50


def config(dims: int, fold: int | None = None) -> UNetConfig:
    network = Network(
        width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8
    )
    unet = resolve_network(network, spatial_dims=dims, in_channels=2, out_channels=2)
    return unet if fold is None else dataclasses.replace(unet, unshuffle=(fold,) * dims)


def parts(dims: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((2, 2, *(8,) * dims), generator=generator)
    masks = torch.randn((2, CLASSES, *(8,) * dims), generator=generator)
    return images, masks


def started(denoiser: UNet) -> JointDenoiser:
    generator = torch.Generator().manual_seed(1)
    network = JointDenoiser.from_denoiser(
        denoiser, classes=CLASSES, timesteps=TIMESTEPS, generator=generator
    )
    return network.eval()


def denoiser(unet: UNetConfig) -> UNet:
    network = UNet(unet)
    network.initialize(torch.Generator().manual_seed(5))
    shake(network, 6)
    return network


@pytest.mark.parametrize(("dims", "fold"), [(2, None), (3, None), (2, 2)])
def test_a_start_predicts_the_image_as_the_denoiser_does_whatever_the_mask(
    dims: int, fold: int | None
) -> None:
    source = denoiser(config(dims, fold))
    network, (images, masks) = started(source), parts(dims)
    source.eval()
    with torch.no_grad():
        for image_t in (0, 7, TIMESTEPS - 1):
            theirs = source(images, torch.full((2,), image_t))
            for mask_t, mask in ((CLEAN, masks), (3, -masks), (TIMESTEPS - 1, 9 * masks)):
                ours = network(images, mask, torch.tensor([[image_t, mask_t]] * 2))
                torch.testing.assert_close(network.parts(ours)[0], theirs, rtol=1e-5, atol=1e-5)
                assert float(network.parts(ours)[1].abs().max()) > 1e-3  # a head that learns


def test_of_a_learned_variance_the_prediction_is_kept() -> None:
    source = denoiser(dataclasses.replace(config(2), out_channels=4))
    network, (images, masks) = started(source), parts(2)
    source.eval()
    with torch.no_grad():
        theirs = source(images, torch.tensor([3, 3]))[:, :2]
        ours = network.parts(network(images, masks, torch.tensor([[3, 9]] * 2)))[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dims", "fold"), [(2, None), (3, None), (2, 2)])
def test_its_image_part_is_the_network_without_a_mask(dims: int, fold: int | None) -> None:
    """All weights are random, also those that are told of the mask and of its timestep."""
    network, (images, masks) = started(denoiser(config(dims, fold))), parts(dims)
    shake(network, 8)
    alone = network.image_part()
    assert type(alone) is UNet
    alone.eval()
    t = torch.tensor([[4, TIMESTEPS - 1]] * 2)
    with torch.no_grad():
        ours = network.parts(network(images, torch.zeros_like(masks), t))[0]
        torch.testing.assert_close(alone(images, t[:, 0]), ours, rtol=1e-5, atol=1e-5)
        other = network.parts(network(images, torch.zeros_like(masks), t - 9))[0]
        assert not torch.allclose(ours, other, atol=1e-3)


def test_the_image_part_of_a_start_is_the_denoiser_again() -> None:
    source = denoiser(config(2))
    again = started(source).image_part().state_dict()
    assert again.keys() == source.state_dict().keys()
    assert all(torch.equal(again[name].float(), w) for name, w in source.state_dict().items())


def test_each_timestep_is_told_apart() -> None:
    network, (images, masks) = started(denoiser(config(2))), parts(2)
    shake(network, 8)
    with torch.no_grad():
        found = [
            network(images, masks, torch.tensor([t] * 2))
            for t in ([CLEAN, 5], [5, CLEAN], [5, 5], [0, 5])
        ]
    for i, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-4) for other in found[:i])


@pytest.mark.parametrize("dims", [2, 3])
def test_segmenting_gives_the_image_and_returns_logits(dims: int) -> None:
    network, (images, masks) = started(denoiser(config(dims))), parts(dims)
    t = torch.tensor([5, 9])
    with torch.no_grad():
        ours = network.segment(images, masks, t)
        both = network(images, masks, torch.tensor([[CLEAN, 5], [CLEAN, 9]]))
    assert torch.equal(ours, both[:, 2:])


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    network = JointDenoiser.from_scratch(
        dataclasses.replace(config(2), out_channels=CLASSES),
        timesteps=TIMESTEPS,
        generator=torch.Generator().manual_seed(1),
    ).eval()
    save_network(network, tmp_path)
    again = load_network(tmp_path)
    assert isinstance(again, JointDenoiser)
    assert (again.classes, again.timesteps, again.channels) == (CLASSES, TIMESTEPS, 2)
    given = (*(part.float() for part in parts(2)), torch.tensor([[3, 7], [CLEAN, 2]]))
    with torch.no_grad():
        assert torch.equal(again(*given), network(*given))
