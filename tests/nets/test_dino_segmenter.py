"""The decoder on a frozen DINO: features as transformers has them, sizes and patches, saving, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from radiffuse.config import Decoding, Fit
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets.dino_segmenter import DinoSegmenter, new_dino_segmenter, spread_blocks
from radiffuse.nets.encoder import load_encoder
from radiffuse.nets.imagenet import DEVIATION, MEAN
from radiffuse.nets.registry import load_network, save_network
from radiffuse.objectives import method_of
from radiffuse.objectives.segmentation import build_dino

KINDS = {
    "Dinov2": {"patch_size": 14, "image_size": 70},
    "Dinov2WithRegisters": {"patch_size": 14, "image_size": 70, "num_register_tokens": 3},
    "DINOv3ViT": {"patch_size": 16, "image_size": 64, "num_register_tokens": 4},
    "ViT": {"patch_size": 8, "image_size": 32},
}


def folder_of(kind: str, where: Path) -> Path:
    """A tiny encoder with random weights, as transformers writes it."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.2,
        **KINDS[kind],
    )
    getattr(transformers, f"{kind}Model")(config).save_pretrained(where / kind)
    return where / kind


def theirs(kind: str, folder: Path, pixels: torch.Tensor, blocks: tuple[int, ...]) -> Any:
    """The features of blocks by the class that transformers has for it; of ViT, which has none, by its layers."""
    if kind == "ViT":
        model = transformers.ViTModel.from_pretrained(folder)
        found: list[torch.Tensor] = []
        for layer in model.layers:
            layer.register_forward_hook(
                lambda _module, _given, out: found.append(out if torch.is_tensor(out) else out[0])
            )
        model(pixel_values=pixels, interpolate_pos_encoding=True)
        grid = [n // 8 for n in pixels.shape[2:]]
        tokens = [model.layernorm(found[block])[:, 1:] for block in blocks]
        return [t.transpose(1, 2).reshape(len(pixels), 32, *grid) for t in tokens]
    backbone = getattr(transformers, f"{kind}Backbone").from_pretrained(
        folder, out_indices=[block + 1 for block in blocks]
    )
    return backbone(pixel_values=pixels).feature_maps


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    folder, patch = folder_of(kind, tmp_path), KINDS[kind]["patch_size"]
    encoder = load_encoder(str(folder))
    films = torch.rand(2, 1, 3 * patch, 5 * patch) * 2 - 1
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    pixels = ((films.expand(-1, 3, -1, -1) + 1) / 2 - mean) / std
    found = encoder.blocks(films, (1, 3))
    with torch.no_grad():
        expected = theirs(kind, folder, pixels, (1, 3))
    assert [f.shape for f in found] == [(2, 32, 3, 5)] * 2
    for ours, other in zip(found, expected, strict=True):
        assert torch.allclose(ours, other, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(48, 40), (33, 70)])
def test_a_network_of_any_size_is_saved_whole(
    kind: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """It loads without the folder of the encoder, and gives the same."""
    folder = folder_of(kind, tmp_path)
    network = new_dino_segmenter(load_encoder(str(folder)), 1, 3, width=16).eval()
    films = torch.rand(2, 1, *size) * 2 - 1
    with torch.no_grad():
        logits = network(films)
    save_network(network, tmp_path / "model")
    folder.rename(tmp_path / "gone")
    assert str(tmp_path) not in (tmp_path / "model/config.json").read_text()
    loaded = load_network(tmp_path / "model")
    assert isinstance(loaded, DinoSegmenter)
    assert logits.shape == (2, 3, *size)
    with torch.no_grad():
        assert torch.equal(loaded(films), logits)


def test_a_film_is_padded_to_whole_patches_by_its_own_border(tmp_path: Path) -> None:
    """A film of 13 x 20 pixels is seen as one of 16 x 24: its last row and column are repeated."""
    network = new_dino_segmenter(load_encoder(str(folder_of("ViT", tmp_path))), 1, 2, width=16)
    film = torch.rand(1, 1, 13, 20)
    rows, columns = torch.arange(16).clamp(max=12), torch.arange(24).clamp(max=19)
    whole = film[:, :, rows][:, :, :, columns]
    with torch.no_grad():
        assert torch.equal(network.eval()(film), network(whole)[..., :13, :20])


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_program_of_any_batch(kind: str, tmp_path: Path) -> None:
    network = new_dino_segmenter(load_encoder(str(folder_of(kind, tmp_path))), 1, 2, width=16)
    network.eval().requires_grad_(False)
    free = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(network, (torch.zeros(2, 1, 40, 56),), dynamic_shapes=free)
    films = torch.rand(3, 1, 40, 56) * 2 - 1
    assert torch.allclose(program.module()(films), network(films), atol=1e-5)


def test_only_the_decoder_learns(tmp_path: Path) -> None:
    network = new_dino_segmenter(load_encoder(str(folder_of("DINOv3ViT", tmp_path))), 1, 2)
    assert not network.train().encoder.backbone.training
    network(torch.rand(2, 1, 32, 32)).square().mean().backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learned == {n for n, _ in network.named_parameters() if not n.startswith("encoder.")}


def test_the_decoder_depends_on_the_seed_alone(tmp_path: Path) -> None:
    encoder = load_encoder(str(folder_of("Dinov2", tmp_path)))
    before = torch.random.get_rng_state()
    one, same, other = (new_dino_segmenter(encoder, 1, 2, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (6, (0, 2, 3, 5)), (2, (0, 1)), (1, (0,))],
)
def test_blocks_are_spread_up_to_the_last(depth: int, blocks: tuple[int, ...]) -> None:
    assert spread_blocks(depth) == blocks


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = str(folder_of("ViT", tmp_path))
    films = Plan(2, ("film",), ("background", "lung"), (32, 32))
    pair = Plan(2, ("one", "two"), ("background", "lung"), (32, 32))
    volumes = Plan(3, ("CT",), ("background", "organ"), (32, 32, 32), (1, 1, 1))

    def refused(plan: Plan, words: str, encoder: str = folder, **dino: Any) -> None:
        settings = Fit(method="dino", encoder=encoder, dino=Decoding(**dino))
        with pytest.raises(InputError, match=words):
            build_dino(settings, plan, None, None)

    refused(volumes, "is for films")
    refused(pair, "takes 3 channels, the films have 2")
    refused(films, "blocks 4: choose from 0 to 3", blocks=(4,))
    refused(films, "blocks 1, 1: .*each once", blocks=(1, 1))
    refused(films, "no multiple of 8", width=20)
    refused(films, "model.safetensors", encoder=str(tmp_path))
    away = "cannot be fetched by that name.*hf download someone/dino .*radiffuse synthesize"
    refused(films, away, encoder="someone/dino")
    with pytest.raises(InputError, match="needs a DINO encoder.*--encoder"):
        method_of(Fit(method="dino"))
