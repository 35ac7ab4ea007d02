"""The guided U-Net: what it is shown, what stays frozen, and what starts from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

import radiffuse
from conftest import TINY
from radiffuse.config import Diffusion, Network, Probing, UNetConfig, resolve_network
from radiffuse.config.types import Ramp
from radiffuse.errors import InputError
from radiffuse.inference.windows import slide
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.guided import GuidedUNet
from radiffuse.nets.mask_denoiser import MaskDenoiser
from radiffuse.nets.pixel import PixelClassifier
from radiffuse.nets.probe import HeadConfig, LinearHead, ProbedNetwork
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet
from radiffuse.objectives.probing import heads
from radiffuse.system.files import read_json, seal

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


@pytest.mark.parametrize("ramp", ["none", "input", "output"])
def test_coordinates_are_a_program_of_any_batch(ramp: Ramp) -> None:
    trunk = config(2, 3 if ramp == "input" else 1, 2)
    regressor = CoordinateRegressor(trunk, (0.3, 100.0), ramp, (2.0, 3.0)).eval()
    regressor.requires_grad_(False)
    free = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(regressor, (images(2),), dynamic_shapes=free).module()
    for batch in (images(2)[:1], torch.cat([images(2), images(2, 1)])):
        torch.testing.assert_close(program(batch), regressor(batch))


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
    segmenter = SegmentingUNet.from_denoiser(network, classes=3, generator=generator).eval()
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
    network = PixelClassifier(guided(2), Diffusion(), 3, voters=2).eval()
    save_network(network, tmp_path)
    again = load_network(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(images(2)), network(images(2)))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_a_head_sees_the_coordinates_beside_its_finest_features(dims: int, kind: str) -> None:
    denoiser, clean = guided(dims), images(dims)
    configs = [
        HeadConfig("with", kind, ("clean", 30), ("middle", "level.0"), coordinates=True),
        HeadConfig("coarse", kind, (30,), ("level.1",), coordinates=True),
        HeadConfig("without", kind, ("clean", 30), ("middle", "level.0")),
    ]
    network = ProbedNetwork(denoiser, Diffusion(), 3, configs, width=8).eval()
    seen: list[list[Tensor]] = []
    for head in network.heads:
        head.register_forward_pre_hook(lambda module, inputs: seen.append(list(inputs[0])))
    with torch.no_grad():
        network(clean)
        where = denoiser.regressor(clean)
        found = network.features(clean, configs)
    with_them, (coarse,), without = seen
    middle, finest = (
        torch.cat([found["clean", tap], found[30, tap]], 1) for tap in ("middle", "level.0")
    )
    assert torch.equal(with_them[0], middle)
    assert torch.equal(with_them[1], torch.cat([finest, where], 1))
    halved = (functional.avg_pool2d if dims == 2 else functional.avg_pool3d)(where, 2)
    torch.testing.assert_close(coarse, torch.cat([found[30, "level.1"], halved], 1))
    assert all(torch.equal(a, b) for a, b in zip(without, (middle, finest), strict=True))


class Place(nn.Module):
    """Gives the intensities, from which a test reads where a window lies."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, 2 * x, -x], 1)


def test_a_window_shows_the_coordinates_of_its_own_place() -> None:
    denoiser = guided(3)
    config = HeadConfig("linear", "linear", (40,), ("middle", "level.0"), coordinates=True)
    network = ProbedNetwork(denoiser, Diffusion(), 3, [config]).eval()
    denoiser.regressor = Place()  # type: ignore[assignment]
    head = network.heads[0]
    assert isinstance(head, LinearHead)
    with torch.no_grad():
        for weight in head.parameters():
            weight.zero_()
        last = head.project[-1][1].weight  # type: ignore[index]
        last[:, -3:] = torch.eye(3).reshape(3, 3, 1, 1, 1)  # type: ignore[operator]
    volume = (torch.arange(12 * 10 * 9) / 1080.0).reshape(1, 12, 10, 9)
    with torch.no_grad():
        slabs = slide(volume, (8, 8, 8), lambda window: network(window)[0], overlap=0.5)
        logits = torch.cat([slab for _, slab in slabs], 1)
    torch.testing.assert_close(logits, Place()(volume[None])[0], atol=1e-5, rtol=1e-4)


def test_only_a_guided_network_has_coordinates_to_show() -> None:
    plain, given = UNet(config(2, 1, 1)), Probing(sweep=(5,), sweep_levels=True)
    assert all(head.coordinates for head in heads(given, guided(2), clean=False))
    assert not any(head.coordinates for head in heads(given, plain, clean=False))
    without = dataclasses.replace(given, coordinates=False)
    assert not any(head.coordinates for head in heads(without, guided(2), clean=False))
    wrong = HeadConfig("linear", "linear", (5,), ("level.0",), coordinates=True)
    with pytest.raises(ValueError, match="no regressor guides"):
        ProbedNetwork(plain, Diffusion(), 3, [wrong])


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
    assert dataclasses.replace(run.plan, shift=None, reasons={}) == where.plan
    assert run.plan.shift == 1
    source = load_network(where.model).state_dict()
    for name, value in network.regressor.state_dict().items():
        assert torch.equal(value, source[name]), name
    assert (run.folder / "samples.npy").exists()
    tuned = radiffuse.fit(
        data=films, out=tmp_path / "seg", method="finetune", from_=run.folder, labels=2,
        training=learning,
        **{k: v for k, v in shared.items() if k != "network"},
    )  # fmt: skip
    out = radiffuse.predict(
        runs=tuned.folder, data=films / "images", out=tmp_path / "masks", machine=shared["machine"]
    )
    assert len(list(out.glob("*.png"))) == 12
    quick = learning | {"validate_every": 0}
    given = {"data": films, "from_": run.folder, "labels": 2, "timesteps": (5,), "training": quick}
    own = {name: shared[name] for name in ("reader", "machine")}
    probing = {"method": "probe"} | given | own
    _probed(probing, tmp_path)
    with pytest.raises(InputError, match="guided by body coordinates"):
        radiffuse.generate(run=run.folder, out=tmp_path / "samples", steps=2)
    with pytest.raises(InputError, match="gives no body coordinates"):
        radiffuse.pretrain(out=tmp_path / "x", coordinates=run.folder, **arguments)
    with pytest.raises(InputError, match='is for objective="ddpm"'):
        radiffuse.pretrain(
            out=tmp_path / "y", coordinates=where.folder, objective="ddep", **arguments
        )


def _probed(probing: dict[str, object], folder: Path) -> None:
    """Heads see the coordinates and say so; a run from before they could has its masks and goes on as it was."""

    def masks(run: radiffuse.Run, name: str) -> list[bytes]:
        out = radiffuse.predict(
            runs=run.folder, data=f"{probing['data']}/images", out=folder / name,
            machine=probing["machine"],
        )  # fmt: skip
        return [path.read_bytes() for path in sorted(out.glob("*.png"))]

    run = radiffuse.fit(out=folder / "probe", **probing)
    assert run.config["settings"]["probe"]["coordinates"] is True
    assert all(head.coordinates for head in load_network(run.model).configs)  # type: ignore[union-attr]
    run = radiffuse.fit(out=folder / "older", coordinates=False, **probing)
    before = masks(run, "before")
    description, record = read_json(run.model / "config.json", dict), run.folder / "config.yaml"
    assert [head.pop("coordinates") for head in description["heads"]] == [False, False]
    seal(run.model, "config.json", description)
    content = yaml.safe_load(record.read_text())
    del content["settings"]["probe"]["coordinates"]
    record.write_text(yaml.safe_dump(content))
    assert masks(run, "after") == before
    with pytest.raises(InputError, match=r"probe.coordinates = False, not True"):
        radiffuse.fit(out=run.folder, **probing)
    radiffuse.fit(out=run.folder, coordinates=False, **probing)
