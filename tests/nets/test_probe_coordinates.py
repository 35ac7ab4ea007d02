"""Coordinates of a regressor beside the finest features of any network, computed once for all that needs them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import radiffuse
from conftest import TINY
from radiffuse.config import Diffusion, Network, Probing, UNetConfig, resolve_network
from radiffuse.errors import InputError
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.guided import GuidedUNet
from radiffuse.nets.probe import HeadConfig, ProbedNetwork
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.unet import UNet
from radiffuse.objectives.probing import heads

NETWORK = Network(width=8, multipliers=(1, 2, 2), blocks=1, attention_factors=(), head_channels=8)
TAPS = ("middle", "level.0")


def config(dims: int, channels: int, outputs: int) -> UNetConfig:
    return resolve_network(NETWORK, spatial_dims=dims, in_channels=channels, out_channels=outputs)


def drawn(network: CoordinateRegressor | UNet, seed: int = 3) -> None:
    """Every weight says something."""
    generator = torch.Generator().manual_seed(seed)
    network.initialize(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def regressor(dims: int) -> CoordinateRegressor:
    network = CoordinateRegressor(config(dims, 1, dims), (1.0,) * dims)
    drawn(network)
    return network.eval()


def images(dims: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((2, 1, *(16,) * dims), generator=generator) * 2 - 1


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_a_head_on_an_unguided_network_sees_those_of_a_regressor(
    dims: int, kind: str, tmp_path: Path
) -> None:
    denoiser, guide, clean = UNet(config(dims, 1, 1)), regressor(dims), images(dims)
    drawn(denoiser, 4)
    configs = [
        HeadConfig("with", kind, ("clean", 30), TAPS, coordinates=True),
        HeadConfig("coarse", kind, (30,), ("level.1",), coordinates=True),
        HeadConfig("without", kind, ("clean", 30), TAPS),
    ]
    network = ProbedNetwork(denoiser, Diffusion(), 3, configs, width=8, regressor=guide).eval()
    seen: list[list[Tensor]] = []
    for head in network.heads:
        head.register_forward_pre_hook(lambda module, inputs: seen.append(list(inputs[0])))
    with torch.no_grad():
        logits, where, found = network(clean), guide(clean), network.features(clean, configs)
    middle, finest = (torch.cat([found["clean", tap], found[30, tap]], 1) for tap in TAPS)
    assert torch.equal(seen[0][1], torch.cat([finest, where], 1))
    halved = (functional.avg_pool2d if dims == 2 else functional.avg_pool3d)(where, 2)
    torch.testing.assert_close(seen[1][0], torch.cat([found[30, "level.1"], halved], 1))
    assert all(torch.equal(a, b) for a, b in zip(seen[2], (middle, finest), strict=True))
    save_network(network, tmp_path)
    for ours, theirs in zip(load_network(tmp_path).eval()(clean), logits, strict=True):
        torch.testing.assert_close(ours, theirs)
    frozen = {name for name, value in network.named_parameters() if not value.requires_grad}
    assert {name.partition(".")[0] for name in frozen} == {"denoiser", "regressor"}
    network.train()
    assert not guide.training


def test_the_regressor_runs_once_for_all_timesteps_draws_and_heads() -> None:
    """A pass of it for each image, as long as anything needs coordinates, and the same features as one at a time."""
    clean, calls = images(2), [0]
    count = lambda *_: calls.__setitem__(0, calls[0] + 1)  # noqa: E731
    head = HeadConfig("a", "linear", ("clean", 5, 30), TAPS, coordinates=True)
    blind = dataclasses.replace(head, name="b", coordinates=False)
    guide = regressor(2)
    guided = GuidedUNet(config(2, 3, 1), guide)
    drawn(guided)
    expected = {
        t: guided.eval().features(clean, torch.full((2,), 0), TAPS, clean) for t in ("clean",)
    }
    plain = UNet(config(2, 1, 1))
    guide.register_forward_hook(count)
    for denoiser, beside, configs, passes in (
        (guided, None, (head, blind), 1),
        (guided, None, (blind,), 1),
        (plain, guide, (head, blind), 1),
        (plain, guide, (blind,), 0),
    ):
        network = ProbedNetwork(denoiser, Diffusion(), 3, configs, draws=2, regressor=beside)
        calls[0] = 0
        network.eval()(clean)
        assert calls[0] == passes
        if denoiser is guided:
            found = network.features(clean, configs)
            for tap in TAPS:
                torch.testing.assert_close(found["clean", tap], expected["clean"][tap])


def test_heads_without_coordinates_are_trained_beside_those_with() -> None:
    given = Probing(regressor="where", sweep_coordinates=True, sweep=(5,))
    made = list(heads(given, UNet(config(2, 1, 1)), clean=False))
    assert {head.name: head.coordinates for head in made} == {
        "nonlinear": True, "linear": True, "nonlinear@t=5": True, "linear@t=5": True,
        "nonlinear@no-coordinates": False, "linear@no-coordinates": False,
    }  # fmt: skip
    assert {head.timesteps for head in made if not head.coordinates} == {("clean", 10)}


def test_a_regressor_that_does_not_fit_is_refused() -> None:
    head = HeadConfig("linear", "linear", (5,), ("level.0",), coordinates=True)
    two = CoordinateRegressor(config(2, 2, 2), (1.0, 1.0))
    with pytest.raises(ValueError, match="other axes or channels"):
        ProbedNetwork(UNet(config(2, 1, 1)), Diffusion(), 3, [head], regressor=two)
    guided = GuidedUNet(config(2, 3, 1), regressor(2))
    with pytest.raises(ValueError, match="its own"):
        ProbedNetwork(guided, Diffusion(), 3, [head], regressor=regressor(2))


def test_probing_with_a_regressor_end_to_end(films: Path, unlabelled: Path, tmp_path: Path) -> None:
    shared = {
        "data": unlabelled,
        "plan": {"size": (32, 32)},
        "network": TINY | {"multipliers": (1, 2, 2)},
        "reader": {"cache": str(tmp_path / "cache")},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
        "training": {"steps": 2, "batch_size": 2, "log_every": 1, "warmup_steps": 0},
    }
    where = radiffuse.pretrain(objective="coordinates", out=tmp_path / "where", **shared)
    contrastive = radiffuse.pretrain(objective="contrastive", out=tmp_path / "pre", **shared)
    probing = {
        "data": films, "method": "probe", "from_": contrastive.folder, "labels": 2,
        "training": {"steps": 2, "batch_size": 2, "validate_every": 0},
        "reader": shared["reader"], "machine": shared["machine"],
    }  # fmt: skip
    run = radiffuse.fit(
        out=tmp_path / "probe", regressor=where.folder, sweep_coordinates=True, **probing
    )
    network = load_network(run.model)
    assert isinstance(network, ProbedNetwork)
    assert network.regressor is not None
    source = load_network(where.model).state_dict()
    for name, value in network.regressor.state_dict().items():
        assert torch.equal(value, source[name]), name
    assert [head.coordinates for head in network.configs] == [True, True, False, False]
    plain = radiffuse.fit(out=tmp_path / "plain", **probing)
    assert plain.config["settings"]["probe"]["coordinates"] is False
    for changes, word in (
        ({"regressor": contrastive.folder}, "gives no body coordinates"),
        ({"regressor": where.folder, "coordinates": False}, "heads see no coordinates"),
        ({"sweep_coordinates": True}, 'give a probe={"regressor": ...}'),
    ):
        with pytest.raises(InputError, match=word):
            radiffuse.fit(out=tmp_path / "x", **probing | changes)
    other = shared | {"plan": {"size": (32, 32), "window": (0, 99)}}
    away = radiffuse.pretrain(objective="coordinates", out=tmp_path / "away", **other)
    with pytest.raises(InputError, match="another window"):
        radiffuse.fit(out=tmp_path / "x", regressor=away.folder, **probing)
    guided = radiffuse.pretrain(
        coordinates=where.folder, out=tmp_path / "guided", **shared | {"plan": {}}
    )
    with pytest.raises(InputError, match="the network is guided"):
        radiffuse.fit(
            out=tmp_path / "x", regressor=where.folder, **probing | {"from_": guided.folder}
        )
