"""Networks come back from disk as they were, or one line says which file is at fault."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from radiffuse.config import Diffusion, UNetConfig
from radiffuse.errors import RunError
from radiffuse.nets import registry
from radiffuse.nets.pixel import PixelClassifier
from radiffuse.nets.registry import load_network, save_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet

CONFIG = UNetConfig(
    width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8, out_channels=3
)


def network(kind: str) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    unet = UNet(CONFIG)
    unet.initialize(generator)
    if kind == "segmenter":
        return SegmentingUNet.from_denoiser(unet, classes=3, timestep=4, generator=generator).eval()
    if kind == "pixel":
        return PixelClassifier(unet, Diffusion(), 3, voters=2).eval()
    return unet.eval()


def call(net: nn.Module) -> torch.Tensor:
    x = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        result: torch.Tensor = net(x, torch.tensor([3])) if isinstance(net, UNet) else net(x)
    return result


@pytest.mark.parametrize("kind", ["denoiser", "segmenter", "pixel"])
def test_a_network_comes_back(kind: str, tmp_path: Path) -> None:
    saved = network(kind).to(memory_format=torch.channels_last)
    save_network(saved, tmp_path / "a b")
    assert sorted(p.name for p in (tmp_path / "a b").iterdir()) == [
        "SHA256SUMS",
        "config.json",
        "model.safetensors",
    ]
    loaded = load_network(tmp_path / "a b")
    assert type(loaded) is type(saved)
    assert loaded.to_config() == saved.to_config()
    for (name, a), (other, b) in zip(
        saved.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b)
    torch.testing.assert_close(call(loaded), call(saved), rtol=1e-4, atol=1e-6)


def test_half_precision_files_come_back_in_float32(tmp_path: Path) -> None:
    saved = network("segmenter")
    save_network(saved, tmp_path / "full")
    save_network(saved, tmp_path / "half", torch.bfloat16)
    sizes = [(tmp_path / f / "model.safetensors").stat().st_size for f in ("half", "full")]
    assert sizes[0] < 0.8 * sizes[1]
    loaded = load_network(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(call(loaded), call(saved), rtol=0.1, atol=0.02)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_named(keep: int, tmp_path: Path) -> None:
    save_network(network("denoiser"), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"model\.safetensors: is damaged"):
        load_network(tmp_path)


def test_a_description_of_too_large_a_network_takes_no_memory(tmp_path: Path) -> None:
    save_network(network("denoiser"), tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["unet"]["width"] = 2**17  # a terabyte of weights
    path.write_text(json.dumps(config))
    with pytest.raises(RunError, match="at least 4.6e\\+12 parameters"):
        load_network(tmp_path)


@pytest.mark.parametrize("place", [0.5, 0.999])
def test_a_flipped_bit_is_found(place: float, tmp_path: Path) -> None:
    save_network(network("denoiser"), tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"model\.safetensors: is damaged"):
        load_network(tmp_path)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_standard_tool_reads_the_hashes(tmp_path: Path) -> None:
    save_network(network("denoiser"), tmp_path)
    command = ["sha256sum", "--strict", "--check", "SHA256SUMS"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["config.json: OK", "model.safetensors: OK"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    save_network(network("denoiser"), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(RunError, match=f"{name}: is missing"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "unheard-of"},
        {"unet": {"width": 8, "colour": 3}},
        {"unet": {"spatial_dims": 4}},
        {"unet": None},
    ],
)
def test_a_description_of_nothing_is_named(change: dict[str, object], tmp_path: Path) -> None:
    save_network(network("denoiser"), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunError, match=r"config\.json: describes no network"):
        load_network(tmp_path)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    save_network(network("denoiser"), tmp_path)
    save_network(network("segmenter"), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(RunError, match="does not fit"):
        load_network(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    """Networks of one's own may keep an infinite mask beside their weights."""
    spoiled = network("segmenter")
    with torch.no_grad():
        next(iter(spoiled.parameters())).view(-1)[3] = value
    save_network(spoiled, tmp_path)
    with pytest.raises(RunError, match=r"model\.safetensors: holds weights that are not finite \("):
        load_network(tmp_path)


def test_an_infinite_mask_beside_the_weights_of_a_network_of_ones_own_is_legal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("mask", torch.full((2,), -float("inf")))

        def to_config(self) -> dict[str, object]:
            return {"kind": "own"}

    monkeypatch.setitem(registry.REGISTERED, "own", lambda config: Own())
    save_network(Own(), tmp_path)
    assert isinstance(load_network(tmp_path), Own)
