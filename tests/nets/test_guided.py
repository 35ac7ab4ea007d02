"""The guided U-Net: what it is shown, what stays frozen, and what starts from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import radiffuse
from conftest import TINY
from radiffuse.config import Network, UNetConfig, resolve_network
from radiffuse.errors import InputError
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.guided import GuidedUNet
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.pixel import PixelClassifier
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.segmenter import Segmenter
from radiffuse.nets.unet import UNet

NETWORK = Network(width=8, multipliers=(1, 2, 2), blocks=1, attention_factors=(), head_channels=8)


def config(dims: int, channels: int, outputs: int) -> UNetConfig:
    return resolve_network(NETWORK, spatial_dims=dims, in_channels=channels, out_channels=outputs)


def guided(dims: int) -> GuidedUNet:
    """A guided denoiser of one channel whose every weight says something."""
    generator = torch.Generator().manual_seed(3)
    regressor = CoordinateRegressor(config(dims, 1, dims), (1.0,) * dims)
    regressor.initialize(generator)
    network = GuidedUNet(config(dims, 1 + dims, 1), regressor)
    network.initialize(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def images(dims: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((2, 1, *(16,) * dims), generator=generator) * 2 - 1


T = torch.tensor([3, 500])


@pytest.mark.parametrize("dims", [2, 3])
def test_coordinates_are_those_of_the_clean_image(dims: int) -> None:
    network, clean, noised = guided(dims), images(dims), images(dims, 1)
    with torch.no_grad():
        plain = UNet(network.config)
        own = {k: v for k, v in network.state_dict().items() if not k.startswith("regressor.")}
        plain.load_state_dict(own)
        expected = plain.eval()(torch.cat([noised, network.regressor(clean)], 1), T)
        torch.testing.assert_close(network(noised, T, clean), expected)
        assert torch.equal(network(clean, T), network(clean, T, clean))
        assert not torch.equal(network(noised, T), network(noised, T, clean))


def test_the_regressor_is_frozen_and_is_not_drawn_anew() -> None:
    network = guided(2)
    before = {k: v.clone() for k, v in network.regressor.state_dict().items()}
    network.initialize(torch.Generator().manual_seed(9))
    network.train()
    assert not network.regressor.training
    with torch.no_grad():
        network.head.weight.fill_(0.1)
    network(images(2), T).square().mean().backward()
    assert all(p.grad is None for p in network.regressor.parameters())
    assert network.stem.weight.grad is not None
    assert all(torch.equal(v, before[k]) for k, v in network.regressor.state_dict().items())


@pytest.mark.parametrize("dims", [2, 3])
def test_what_starts_from_it_has_its_features(dims: int, tmp_path: Path) -> None:
    network, clean = guided(dims), images(dims)
    generator = torch.Generator().manual_seed(1)
    segmenter = Segmenter.from_denoiser(network, classes=3, generator=generator).eval()
    masks = MaskDenoiser.from_denoiser(network, classes=3, generator=generator).eval()
    x_t = torch.randn((2, 3, *clean.shape[2:]), generator=generator)
    with torch.no_grad():
        taps = ("middle", "level.0")
        zero = torch.zeros(2, dtype=torch.int64)
        theirs = network.features(clean, zero, taps, clean)
        ours = segmenter.unet.features(clean, zero, taps)
        of_masks = masks.unet.features(  # type: ignore[call-arg]
            torch.cat([clean, (x_t.clamp(-1, 1) + 1) / 2], 1), zero, taps, clean
        )
        for tap in taps:
            torch.testing.assert_close(ours[tap], theirs[tap])
            torch.testing.assert_close(of_masks[tap], theirs[tap])
        assert torch.equal(masks(clean, x_t, zero), masks(clean, -x_t, zero))
        for name, net, arguments in (
            ("denoiser", network, (clean, T, clean)),
            ("segmenter", segmenter, (clean,)),
            ("masks", masks, (clean, x_t, T)),
        ):
            save_network(net, tmp_path / name)
            again = load_network(tmp_path / name)
            assert type(again) is type(net)
            torch.testing.assert_close(again(*arguments), net(*arguments))


def test_voters_see_features_of_the_clean_images_place(tmp_path: Path) -> None:
    from radiffuse.config import Diffusion

    network = PixelClassifier(guided(2), Diffusion(), 3, voters=2).eval()
    save_network(network, tmp_path)
    again = load_network(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(images(2)), network(images(2)))


def test_guided_pretraining_end_to_end(films: Path, unlabelled: Path, tmp_path: Path) -> None:
    shared = {
        "network": TINY | {"multipliers": (1, 2, 2)},
        "reader": {"cache": str(tmp_path / "cache")},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    }
    learning = {"steps": 2, "batch_size": 2, "log_every": 1, "warmup_steps": 0}
    where = radiffuse.pretrain(
        data=unlabelled,
        objective="coordinates",
        out=tmp_path / "where",
        plan={"size": (32, 32)},
        training=learning,
        **shared,
    )
    arguments = {"data": unlabelled, "training": learning,
                 "diffusion": {"num_train_timesteps": 20}} | shared  # fmt: skip
    run = radiffuse.pretrain(out=tmp_path / "pre", coordinates=where.folder, **arguments)
    network = load_network(run.model)
    assert isinstance(network, GuidedUNet)
    assert run.plan == where.plan
    source = load_network(where.model).state_dict()
    for name, value in network.regressor.state_dict().items():
        assert torch.equal(value, source[name]), name
    assert (run.folder / "samples.npy").exists()
    tuned = radiffuse.fit(
        data=films, out=tmp_path / "seg", from_=run.folder, labels=2, training=learning,
        **{k: v for k, v in shared.items() if k != "network"},
    )  # fmt: skip
    out = radiffuse.predict(
        runs=tuned.folder, data=films / "images", out=tmp_path / "masks", machine=shared["machine"]
    )
    assert len(list(out.glob("*.png"))) == 12
    with pytest.raises(InputError, match="guided by body coordinates"):
        radiffuse.generate(run=run.folder, out=tmp_path / "samples", steps=2)
    with pytest.raises(InputError, match="gives no body coordinates"):
        radiffuse.pretrain(out=tmp_path / "x", coordinates=run.folder, **arguments)
    with pytest.raises(InputError, match="is for --objective ddpm"):
        radiffuse.pretrain(
            out=tmp_path / "y", coordinates=where.folder, objective="ddep", **arguments
        )
