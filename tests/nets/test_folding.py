"""Networks that fold pixels into channels and leave thin axes as they are, against plain networks and torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_unet import randomized

from radiffuse.config import Network, UNetConfig, resolve_network
from radiffuse.config.values import from_dict
from radiffuse.errors import InputError
from radiffuse.nets.blocks import fold, unfold
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.embedder import VoxelEmbedder
from radiffuse.nets.guided import GuidedUNet
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.memory_format import channels_last
from radiffuse.nets.probe import HeadConfig, ProbedNetwork, pyramid
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet
from radiffuse.objectives.ddep import take_encoder
from radiffuse.release.nnunet_network import NNUNetUNet, reversed_axes, strides_of
from radiffuse.train.start import verify_size

FOLDED = UNetConfig(
    width=32, multipliers=(1, 2), blocks=1, attention_factors=(4,), head_channels=16, unshuffle=2
)
THIN = UNetConfig(
    spatial_dims=3, width=8, multipliers=(1, 2, 2), blocks=1, attention_factors=(8,),
    head_channels=8, strides=((1, 2, 2), (2, 2, 1)), unshuffle=(1, 2, 1),
)  # fmt: skip
SIZE = {2: (16, 8), 3: (4, 8, 4)}


def images(config: UNetConfig, count: int = 2) -> torch.Tensor:
    shape = (count, config.in_channels, *SIZE[config.spatial_dims])
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("step", [(2, 2), (4, 4), (1, 2), (1, 2, 4)], ids=str)
def test_folding_is_pixel_unshuffle_and_is_undone(step: Sequence[int]) -> None:
    x = torch.randn(2, 3, *[8] * len(step))
    folded = fold(x, step)
    if step[0] == step[-1]:
        assert torch.equal(folded, F.pixel_unshuffle(x, step[0]))
    order = channels_last(len(step))
    for each in (folded, folded.contiguous(memory_format=order)):
        back = unfold(each, step)
        assert torch.equal(back, x)
        assert back.is_contiguous(memory_format=order) == (each is not folded)


def test_a_folded_network_is_the_plain_one_between_folding_and_unfolding() -> None:
    """The oracle is the plain network, which is guided-diffusion's, with torch's own functions around it."""
    network = randomized(FOLDED)
    x, t = images(FOLDED), torch.tensor([3, 700])
    plain = UNet(replace(FOLDED, unshuffle=1, in_channels=4, attention_factors=(2,)))
    trunk = {k: v for k, v in network.state_dict().items() if not k.startswith(("refine", "head"))}
    plain.load_state_dict(trunk, strict=False)
    w = network.state_dict()
    with torch.no_grad():
        h = plain.features(F.pixel_unshuffle(x, 2), t, ["level.0"])["level.0"]
        h = F.silu(F.group_norm(h, 32, w["norm.weight"], w["norm.bias"], 1e-5))
        h = F.pixel_shuffle(F.conv2d(h, w["refine.unfold.weight"], w["refine.unfold.bias"]), 2)
        h = F.silu(h + F.conv2d(x, w["refine.image.weight"], w["refine.image.bias"], padding=1))
        found = network.features(x, t, ["fine", "output"])
        torch.testing.assert_close(found["fine"], h, atol=1e-4, rtol=1e-4)
        expected = F.conv2d(h, w["head.weight"], w["head.bias"], padding=1)
        torch.testing.assert_close(found["output"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("residual", [True, False])
def test_reversed_axes_are_the_same_network(residual: bool) -> None:
    """As for nnU-Net: weights, strides and folded pixels of a network turned around, on an image turned around."""
    config = replace(THIN, residual_updown=residual)
    network = randomized(config)
    state = {f"unet.{k}": v for k, v in network.state_dict().items()}
    turned, there = reversed_axes(state, config)
    assert there.strides == ((2, 2, 1), (1, 2, 2))
    other = UNet(there)
    other.load_state_dict({k.removeprefix("unet."): v for k, v in turned.items()})
    x, t = images(config), torch.tensor([3, 700])
    with torch.no_grad():
        back = other(x.permute(0, 1, 4, 3, 2), t).permute(0, 1, 4, 3, 2)
        torch.testing.assert_close(back, network(x, t), atol=1e-4, rtol=1e-4)


def test_taps_factors_and_sizes() -> None:
    assert THIN.factors == ((1, 2, 1), (1, 4, 2), (2, 8, 2))
    assert THIN.attends == (False, False, True)
    network = randomized(THIN)
    assert network.size_multiple == (2, 8, 2)
    found = network.features(images(THIN), torch.zeros(2), ["middle", "level.1", "level.0", "fine"])
    assert {k: tuple(v.shape[1:]) for k, v in found.items()} == {
        "middle": (16, 2, 1, 2), "level.1": (16, 4, 2, 2), "level.0": (8, 4, 4, 4),
        "fine": (8, 4, 8, 4),
    }  # fmt: skip
    with pytest.raises(ValueError, match="multiple of 2 x 8 x 2"):
        network(torch.zeros(1, 1, 4, 12, 4), torch.zeros(1))


def test_a_network_has_one_configuration() -> None:
    assert replace(FOLDED, unshuffle=(2, 2)) == FOLDED
    assert replace(THIN, strides=((2, 2, 2),) * 2) == replace(THIN, strides=())
    for config in (FOLDED, THIN):
        assert from_dict(UNetConfig, json.loads(json.dumps(asdict(config))), strict=True) == config
    wanted = Network(unshuffle=(1, 2, 1), strides=("1x2x2", "2x2x1", "2x2x2"))
    config = resolve_network(wanted, spatial_dims=3, in_channels=1, out_channels=1)
    assert (config.unshuffle, config.strides[1]) == ((1, 2, 1), (2, 2, 1))
    for changes, message in (
        ({"unshuffle": 0}, "unshuffle is 0"),
        ({"unshuffle": (1, 2, 2)}, r"unshuffle is \(1, 2, 2\): give 1 or more, or 2 such"),
        ({"strides": ((1, 2), (2, 2))}, "give 1 or 2 for each of 2 axes, 1 times"),
        ({"strides": ((1, 3),)}, "give 1 or 2"),
        ({"strides": ((1, 2, 2),)}, "give 1 or 2"),
        ({"attention_factors": (1,)}, r"has the factors \[2, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            UNet(replace(FOLDED, **changes))


@pytest.mark.parametrize("config", [FOLDED, THIN], ids=["films", "volumes"])
def test_masks_join_a_pretrained_network_unseen(config: UNetConfig) -> None:
    """New channels have no weight at first, also where pixels are folded and coordinates come last."""
    dims, t, x = config.spatial_dims, torch.tensor([3, 700]), images(config)
    regressor = CoordinateRegressor(config, (1.0,) * dims)
    guided = GuidedUNet(replace(config, in_channels=1 + dims), regressor)
    for denoiser in (randomized(config), guided):
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.normal_(0, 0.08)
        generator = torch.Generator().manual_seed(0)
        masks = MaskDenoiser.from_denoiser(denoiser, classes=3, generator=generator)
        x_t = torch.rand(2, 3, *x.shape[2:]) * 2 - 1
        guide = (x,) if denoiser is guided else ()
        with torch.no_grad():
            joined = torch.cat([x, (x_t + 1) / 2], 1)
            found = masks.unet.features(joined, t, ["level.0", "fine"], *guide)
            expected = denoiser.features(x, t, ["level.0", "fine"], *guide)
        for tap, feature in expected.items():
            torch.testing.assert_close(found[tap], feature)
        masks(x, x_t, t).square().mean().backward()
        assert all(p.grad is not None for n, p in masks.named_parameters() if "regressor" not in n)


@pytest.mark.parametrize("config", [FOLDED, THIN], ids=["films", "volumes"])
def test_every_reader_of_features_has_full_resolution(config: UNetConfig, tmp_path: Path) -> None:
    network, x = randomized(config), images(config)
    heads = [HeadConfig("nonlinear", "nonlinear", (0,), pyramid(network))]
    assert pyramid(network)[-1] == "fine"
    probe = ProbedNetwork(network, None, 2, heads, width=8)
    assert probe(x)[0].shape == (2, 2, *x.shape[2:])
    save_network(probe, tmp_path)
    loaded = load_network(tmp_path)
    assert torch.equal(loaded(x)[0], probe.eval()(x)[0])

    embedder = VoxelEmbedder(UNet(config), 8)
    embedder.initialize(torch.Generator().manual_seed(0))
    embedder(x, torch.arange(12).reshape(2, 6)).square().sum().backward()
    idle = {n for n, p in embedder.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == set()

    regressor = CoordinateRegressor(config, (1.0,) * config.spatial_dims)
    assert max(config.factors[regressor.level]) == 4
    where = regressor(x)
    assert where.shape == (2, config.spatial_dims, *x.shape[2:])
    where.sum().backward()
    assert all(p.grad is not None for p in regressor.parameters())

    segmenter = SegmentingUNet.from_denoiser(network, classes=3, generator=torch.Generator())
    kept = segmenter.unet.state_dict()
    assert torch.equal(kept["refine.image.weight"], network.state_dict()["refine.image.weight"])
    assert segmenter(x).shape == (2, 3, *x.shape[2:])


def test_a_frozen_encoder_ends_where_the_decoder_begins() -> None:
    network = UNet(FOLDED)
    take_encoder(network, randomized(FOLDED))
    learning = {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad}
    assert learning == {"up", "norm", "refine", "head"}


@pytest.mark.parametrize("config", [FOLDED, replace(THIN, attention_factors=())], ids=str)
def test_every_scale_of_nnunet_learns(config: UNetConfig) -> None:
    """The scales are 1 / cumprod of the strides, all but the last, as nnU-Net's trainer takes them."""
    values, strides = json.loads(json.dumps(asdict(config))), torch.tensor(strides_of(config))
    network = NNUNetUNet(1, 3, unet=values, strides=strides.tolist())
    logits, size = network(images(config)), torch.tensor(SIZE[config.spatial_dims])
    expected = [(size // s).tolist() for s in torch.cumprod(strides, 0)[:-1]]
    assert [list(x.shape[2:]) for x in logits] == expected
    sum(x.square().mean() for x in logits).backward()
    assert all(p.grad is not None for n, p in network.named_parameters())


def test_memory_format_and_checkpointing_change_nothing() -> None:
    for config in (FOLDED, THIN):
        network, x, t = randomized(config), images(config), torch.tensor([3, 700])
        plain = network(x, t)
        plain.square().mean().backward()
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        order = channels_last(config.spatial_dims)
        other = UNet(config, checkpoint_activations=True)
        other.load_state_dict(network.state_dict())
        again = other.to(memory_format=order)(x.contiguous(memory_format=order), t)
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5)
        again.square().mean().backward()
        for p, gradient in zip(other.parameters(), gradients, strict=True):
            torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-4)


def test_a_size_that_the_network_cannot_reduce_is_named() -> None:
    verify_size(SIZE[3], THIN)
    with pytest.raises(InputError, match="size 4x12x4: the network needs a multiple of 2x8x2"):
        verify_size((4, 12, 4), THIN)
