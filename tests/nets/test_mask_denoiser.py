"""The denoiser of masks: what enters it, and how a pre-trained network starts it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from radiffuse.config import Network, UNetConfig, resolve_network
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.unet import UNet

CLASSES = 3


def config(dims: int, channels: int = 2) -> UNetConfig:
    network = Network(
        width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8
    )
    return resolve_network(network, spatial_dims=dims, in_channels=channels, out_channels=CLASSES)


def inputs(dims: int, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (8,) * dims
    images = torch.rand((2, channels, *shape), generator=generator) * 2 - 1
    x_t = torch.randn((2, CLASSES, *shape), generator=generator)
    return images, x_t, torch.tensor([3, 700])


def denoiser(dims: int) -> UNet:
    unet = UNet(config(dims))
    generator = torch.Generator().manual_seed(5)
    unet.initialize(generator)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return unet.eval()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("self_condition", [False, True])
def test_a_pretrained_start_has_the_features_of_the_pretrained_network(
    dims: int, self_condition: bool
) -> None:
    source = denoiser(dims)
    network = MaskDenoiser.from_denoiser(
        source, classes=CLASSES, self_condition=self_condition,
        generator=torch.Generator().manual_seed(1),
    ).eval()  # fmt: skip
    images, x_t, t = inputs(dims)
    taps = ("middle", "level.0", "level.1")
    extra = torch.rand((2, CLASSES * (1 + self_condition), *images.shape[2:]))
    with torch.no_grad():
        ours = network.unet.features(torch.cat([images, extra], 1), t, taps)
        theirs = source.features(images, t, taps)
        for tap in taps:
            torch.testing.assert_close(ours[tap], theirs[tap])
        assert torch.equal(network(images, x_t, t), network(images, -x_t, t))


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_the_image_gets_its_share_of_the_first_weights(unshuffle: int) -> None:
    """2 of 5 channels are the image's: with a share of .9 its weights grow by 1.5, and the others shrink."""

    def stem(share: float | None) -> Tensor:
        seed = torch.Generator().manual_seed(1)
        shaped = dataclasses.replace(config(2), unshuffle=unshuffle)
        drawn = MaskDenoiser.from_scratch(shaped, image_share=share, generator=seed)
        return drawn.unet.stem.weight.detach()

    plain, shared = stem(None), stem(0.9)
    each = unshuffle**2
    torch.testing.assert_close(shared[:, : 2 * each], plain[:, : 2 * each] * 1.5)
    torch.testing.assert_close(shared[:, 2 * each :], plain[:, 2 * each :] * (1 / 6) ** 0.5)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mask_is_clipped_inside_and_is_learned_from(dims: int) -> None:
    network = MaskDenoiser.from_denoiser(
        denoiser(dims), classes=CLASSES, generator=torch.Generator().manual_seed(1)
    )
    images, x_t, t = inputs(dims)
    network(images, x_t, t).square().mean().backward()
    gradient = network.unet.stem.weight.grad
    assert gradient is not None
    assert (gradient[:, 2:] != 0).any()
    with torch.no_grad():
        network.unet.stem.weight[:, 2:] = 0.3
        assert torch.equal(network(images, x_t, t), network(images, x_t.clamp(-1, 1), t))
        assert not torch.equal(network(images, x_t, t), network(images, -x_t, t))


def test_no_guess_enters_as_zeros() -> None:
    network = MaskDenoiser.from_scratch(
        config(2), self_condition=True, generator=torch.Generator().manual_seed(1)
    )
    images, x_t, t = inputs(2)
    seen: list[Tensor] = []
    network.unet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        absent = network(images, x_t, t)
        assert torch.equal(absent, network(images, x_t, t, torch.full_like(x_t, -1)))
    assert seen[0].shape[1] == 2 + 2 * CLASSES
    assert (seen[0][:, 2 + CLASSES :] == 0).all()
    assert float(seen[0][:, 2 : 2 + CLASSES].min()) >= 0
    assert float(seen[0][:, 2 : 2 + CLASSES].max()) <= 1


@pytest.mark.parametrize("self_condition", [False, True])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, self_condition: bool) -> None:
    network = MaskDenoiser.from_scratch(
        config(2), self_condition=self_condition, generator=torch.Generator().manual_seed(1)
    ).eval()
    save_network(network, tmp_path)
    again = load_network(tmp_path)
    assert isinstance(again, MaskDenoiser)
    assert again.self_condition == self_condition
    with torch.no_grad():
        assert torch.equal(again(*inputs(2)), network(*inputs(2)))
