"""Heads on frozen features: what they see, what learns, and that they do not touch each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from radiffuse.config import Diffusion, Network, UNetConfig, resolve_network
from radiffuse.core.diffusion import GaussianDiffusion
from radiffuse.nets.frozen import feature_channels, noised_features
from radiffuse.nets.probe import HeadConfig, ProbedNetwork, pyramid
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.unet import UNet

CLASSES = 3
DIFFUSION = Diffusion(num_train_timesteps=300)


def config(dims: int) -> UNetConfig:
    network = Network(
        width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8, dropout=0.5
    )
    return resolve_network(network, spatial_dims=dims, in_channels=1, out_channels=1)


def denoiser(dims: int = 2) -> UNet:
    unet = UNet(config(dims))
    generator = torch.Generator().manual_seed(5)
    unet.initialize(generator)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return unet


def images(dims: int = 2, count: int = 2) -> Tensor:
    return torch.rand((count, 1, *(8,) * dims), generator=torch.Generator().manual_seed(0)) * 2 - 1


def head(
    name: str = "linear",
    kind: str = "linear",
    timesteps: tuple[int, ...] = (10,),
    taps: tuple[str, ...] = ("middle", "level.1", "level.0"),
) -> HeadConfig:
    return HeadConfig(name, kind, timesteps, taps)


BOTH = (head("nonlinear", "nonlinear", (10, 50)), head())


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_those_of_the_noised_image(dims: int) -> None:
    network, batch = denoiser(dims), images(dims)
    process = GaussianDiffusion(DIFFUSION)
    found = noised_features(network.train(), process, batch, 30, ("middle", "level.0"), seed=7)
    assert network.training
    noise = torch.randn(batch.shape[1:], generator=torch.Generator().manual_seed(7))
    t = torch.tensor([30, 30])
    x_t = process.add_noise(batch, noise.expand_as(batch), t)
    with torch.no_grad():
        wanted = network.eval().features(x_t, t, ("level.0", "middle"))
    assert list(found) == ["middle", "level.0"]
    for name, feature in found.items():
        torch.testing.assert_close(feature, wanted[name])
        assert feature.shape[1] == feature_channels(network, name)
        assert not feature.requires_grad


def test_several_draws_of_noise_are_averaged() -> None:
    network, batch = denoiser(), images()
    process = GaussianDiffusion(DIFFUSION)
    one, many = (
        noised_features(network, process, batch, 200, ("level.0",), seed=1, draws=n)["level.0"]
        for n in (1, 16)
    )
    again = noised_features(network, process, batch, 200, ("level.0",), seed=2, draws=16)
    first = noised_features(network, process, batch, 200, ("level.0",), seed=2)["level.0"]
    assert (many - again["level.0"]).abs().mean() < 0.5 * (one - first).abs().mean()
    clean = noised_features(network, None, batch, 0, ("level.0",), draws=16)["level.0"]
    with torch.no_grad():
        wanted = network.eval().features(batch, torch.zeros(2, dtype=torch.int64), ("level.0",))
    torch.testing.assert_close(clean, wanted["level.0"])


@pytest.mark.parametrize("dims", [2, 3])
def test_every_head_gives_logits_of_the_image(dims: int) -> None:
    network = ProbedNetwork(denoiser(dims), DIFFUSION, CLASSES, BOTH, width=8).eval()
    batch = images(dims)
    with torch.no_grad():
        logits = network(batch)
        alone = network(batch, ("linear",))
    assert [x.shape for x in logits] == [(2, CLASSES, *batch.shape[2:])] * 2
    assert torch.equal(alone[0], logits[1])
    assert len(alone) == 1


def test_the_linear_head_is_linear_in_the_features() -> None:
    network = ProbedNetwork(denoiser(), DIFFUSION, CLASSES, [head()]).eval()
    linear, shape = network.heads[0], (8, 8)
    generator = torch.Generator().manual_seed(3)
    a, b = (
        [torch.randn((1, c, s, s), generator=generator) for c, s in ((16, 4), (16, 4), (8, 8))]
        for _ in range(2)
    )
    with torch.no_grad():
        mixed = linear([0.3 * x + 0.7 * y for x, y in zip(a, b, strict=True)], shape)
        torch.testing.assert_close(mixed, 0.3 * linear(a, shape) + 0.7 * linear(b, shape))


def test_only_heads_learn_and_none_touches_another() -> None:
    network = ProbedNetwork(denoiser(), DIFFUSION, CLASSES, BOTH, width=8).train()
    assert not network.denoiser.training
    nonlinear, linear = network(images())
    linear.square().mean().backward()
    assert all(p.grad is None for p in network.denoiser.parameters())
    assert all(p.grad is None for p in network.heads[0].parameters())
    assert all(p.grad is not None for p in network.heads[1].parameters())
    nonlinear.square().mean().backward()
    assert all(p.grad is not None for p in network.heads[0].parameters())
    assert all(p.grad is None for p in network.denoiser.parameters())


def test_the_clean_image_is_seen_without_noise_at_timestep_0_and_joined_with_others() -> None:
    network = ProbedNetwork(denoiser(), DIFFUSION, CLASSES, [head(timesteps=("clean", 50))])
    network, batch = network.eval(), images()
    found = network.features(batch, network.configs)
    with torch.no_grad():
        wanted = network.denoiser.features(batch, torch.zeros(2, dtype=torch.int64), ("level.0",))
    assert torch.equal(found["clean", "level.0"], wanted["level.0"])
    noised = noised_features(network.denoiser, network.process, batch, 50, ("level.0",))
    assert torch.equal(found[50, "level.0"], noised["level.0"])
    seen: list[Tensor] = []
    network.heads[0].register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]))
    network(batch)
    torch.testing.assert_close(seen[-1], torch.cat([wanted["level.0"], noised["level.0"]], 1))


@pytest.mark.parametrize("diffusion", [DIFFUSION, None])
def test_it_comes_back_from_disk(tmp_path: Path, diffusion: Diffusion | None) -> None:
    heads = BOTH if diffusion else (head(timesteps=(0,)),)
    network = ProbedNetwork(denoiser(), diffusion, CLASSES, heads, width=8, seed=4, draws=2)
    network.train()(images())  # moves the running statistics
    save_network(network.eval(), tmp_path)
    again = load_network(tmp_path)
    assert isinstance(again, ProbedNetwork)
    assert again.names == network.names
    with torch.no_grad():
        for ours, theirs in zip(again(images()), network(images()), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("heads", "word"),
    [
        ([], "names"),
        ([head(), head()], "names"),
        ([head(kind="deep")], "deep"),
        ([head(timesteps=(300,))], "0 to 299"),
        ([head(timesteps=())], "timesteps"),
        ([head(taps=("level.7",))], "choose from middle, level.1, level.0"),
    ],
)
def test_bad_heads(heads: list[HeadConfig], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ProbedNetwork(denoiser(), DIFFUSION, CLASSES, heads)


def test_the_pyramid_is_the_bottleneck_and_every_level() -> None:
    assert pyramid(denoiser()) == ("middle", "level.1", "level.0")
