"""The network against its oracles (parameter counts, guided-diffusion) and its own promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from guided_diffusion_reference import forward as reference

from guided_names import to_guided_diffusion
from radiffuse.config import PRESETS, Network, UNetConfig, resolve_network
from radiffuse.nets.blocks import timestep_embedding
from radiffuse.nets.summary import summarize
from radiffuse.nets.unet import UNet
from radiffuse.release.convert_configs import guided_config
from radiffuse.release.convert_names import GUIDED, renamed

TINY = UNetConfig(
    width=32,
    multipliers=(1, 2, 2),
    blocks=1,
    attention_factors=(2, 4),
    head_channels=16,
    out_channels=2,
)


def randomized(config: UNetConfig, seed: int = 0) -> UNet:
    """No layer stays zero, so that every one of them matters to the output."""
    network = UNet(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.08, generator=generator)
    return network.eval()


def batch(config: UNetConfig, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (2, config.in_channels, *[size] * config.spatial_dims)
    return torch.randn(shape, generator=generator), torch.tensor([3, 700])


@pytest.mark.parametrize(("width", "millions"), [(256, 552.8), (128, 138.3), (64, 34.6)])
def test_parameter_counts_of_the_paper(width: int, millions: float) -> None:
    paper = dict(PRESETS["paper"]) | {"width": width}
    outputs = 6 if width == 256 else 3
    with torch.device("meta"):
        network = UNet(UNetConfig(in_channels=3, out_channels=outputs, **paper))
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.05)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_equals_guided_diffusion(dims: int, scale_shift: bool) -> None:
    """It keeps the first axis of volumes; networks that halve all are compared with MONAI."""
    config = replace(
        TINY, spatial_dims=dims, scale_shift_norm=scale_shift,
        strides=() if dims == 2 else ((1, 2, 2),) * 2,
    )  # fmt: skip
    network = randomized(config)
    x, t = batch(config, 8)
    state = to_guided_diffusion(network.state_dict(), config)
    with torch.no_grad():
        assert relative(network(x, t), reference(state, x, t, config.head_channels)) < 1e-5
    assert guided_config(state, head_channels=16) == config


def test_converter_round_trip_and_inference_of_the_network() -> None:
    network = randomized(TINY)
    theirs = to_guided_diffusion(network.state_dict(), TINY)
    assert guided_config(theirs, head_channels=16) == TINY
    back = renamed(theirs, TINY, GUIDED)
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(back[k], v) for k, v in network.state_dict().items())


def test_paper_network_is_inferred() -> None:
    config = resolve_network(Network(preset="paper"), spatial_dims=2, in_channels=3, out_channels=6)
    with torch.device("meta"):
        state = UNet(config).state_dict()
    assert guided_config(to_guided_diffusion(state, config), head_channels=64) == config


def test_foreign_weights_are_refused() -> None:
    theirs = to_guided_diffusion(UNet(TINY).state_dict(), TINY)
    with pytest.raises(ValueError, match="not weights of guided-diffusion"):
        guided_config({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"out\.0\.weight is missing"):
        renamed({k: v for k, v in theirs.items() if k != "out.0.weight"}, TINY, GUIDED)
    with pytest.raises(ValueError, match="has no place"):
        renamed(theirs | {"label_emb.weight": torch.zeros(1)}, TINY, GUIDED)


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_last_changes_nothing(dims: int) -> None:
    config = replace(TINY, spatial_dims=dims)
    network = randomized(config)
    x, t = batch(config, 8)
    plain = network(x, t)
    plain.square().mean().backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    network = network.to(memory_format=layout)
    other = network(x.to(memory_format=layout), t)
    other.square().mean().backward()
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)
    for p, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-3, atol=1e-4)


def test_checkpointing_gives_the_same_gradients() -> None:
    network = randomized(TINY)
    other = UNet(TINY, checkpoint_activations=True)
    other.load_state_dict(network.state_dict())
    x, t = batch(TINY)
    for net in (network, other):
        net(x, t).square().mean().backward()
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_bfloat16_stays_close() -> None:
    network = randomized(TINY)
    x, t = batch(TINY)
    with torch.no_grad():
        exact = network(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x, t)
    assert rough.dtype == torch.float32
    assert float((rough - exact).norm() / exact.norm()) < 0.05


def test_taps_are_what_the_decoder_computes() -> None:
    config = replace(TINY, blocks=2)
    network = randomized(config)
    x, t = batch(config)
    taps = network.features(x, t, ("middle", "up.0", "up.8", "level.0", "level.2", "output"))
    assert len(network.up) == 9
    assert taps["middle"].shape == (2, 64, 4, 4)
    assert taps["level.2"].shape == (2, 64, 4, 4)
    assert taps["level.0"].shape == (2, 32, 16, 16)
    assert torch.equal(taps["level.0"], taps["up.8"])
    assert torch.equal(taps["output"], network(x, t))


def test_a_fresh_network_answers_zero_and_depends_on_its_seed_alone() -> None:
    x, t = batch(TINY)
    first, second = UNet(TINY), UNet(TINY)
    for network in (first, second):
        network.initialize(torch.Generator().manual_seed(5))
    assert not first(x, t).any()
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        UNet(TINY)(torch.zeros(1, 1, 18, 16), torch.zeros(1))


def test_the_paper_network_is_summarized_without_memory() -> None:
    config = resolve_network(Network(preset="paper"), spatial_dims=2, in_channels=1, out_channels=1)
    summary = summarize(config, (256, 256), 2)
    assert summary.parameters == pytest.approx(138.3e6, rel=0.01)
    assert summary.forward_flops > 2e11
    half = summarize(config, (256, 256), 1)
    assert summary.forward_flops == pytest.approx(2 * half.forward_flops, rel=0.01)
    assert summary.activation_bytes == pytest.approx(2 * half.activation_bytes, rel=0.05)


def test_timesteps_are_embedded_as_cosines_then_sines() -> None:
    """By hand at a width of four, frequencies 1 and 10000^(-1/2); and as diffusers does."""
    from diffusers.models.embeddings import get_timestep_embedding

    expected = [math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]
    assert timestep_embedding(torch.tensor([3]), 4)[0].tolist() == pytest.approx(expected)
    t = torch.tensor([0, 1, 500, 999])
    theirs = get_timestep_embedding(t, 33, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(timestep_embedding(t, 33), theirs, atol=1e-4, rtol=0)
