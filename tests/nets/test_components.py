"""Encoders, autoencoders and denoisers that others trained: by folder, with their own preprocessing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from radiffuse.config import LATENT_PRESETS, AutoencoderSettings, Diffusion, LatentNetwork
from radiffuse.errors import InputError
from radiffuse.nets.encoder import load_encoder
from radiffuse.nets.imagenet import DEVIATION, MEAN
from radiffuse.synthesis.autoencoder import build_autoencoder, load_autoencoder
from radiffuse.synthesis.denoiser import build_denoiser, center_context, start_denoiser


def gray(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def public_encoder(tmp_path: Path) -> Path:
    """A DINOv2 of colors at patch 14, as it is downloaded."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    processor = {
        "do_center_crop": True,
        "crop_size": {"height": 42, "width": 42},
        "size": {"shortest_edge": 48},
        "image_mean": list(MEAN),
        "image_std": list(DEVIATION),
    }
    (tmp_path / "dino/preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "dino"


@pytest.fixture
def stable_diffusion(tmp_path: Path) -> Path:
    """A tiny folder in the layout of Stable Diffusion: colors, and a unet that knows of no embedding."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        scaling_factor=0.5,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=2,
    )
    vae.save_pretrained(tmp_path / "sd/vae")
    unet.save_pretrained(tmp_path / "sd/unet")
    return tmp_path / "sd"


def test_an_encoder_sees_films_as_it_was_trained_to(public_encoder: Path) -> None:
    encoder = load_encoder(str(public_encoder))
    assert (encoder.size, encoder.width, encoder.channels) == (42, 32, 3)
    images = gray(2, 42)
    colors = ((images + 1) / 2).expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, DEVIATION))
    tokens = encoder.backbone(pixel_values=(colors - mean) / std).last_hidden_state[:, 0]
    found = encoder(images)
    assert torch.allclose(found, normalize(tokens, dim=1), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
    assert encoder(gray(2, 64)).shape == (2, 32)
    assert not any(p.requires_grad for p in encoder.parameters())
    (public_encoder / "preprocessor_config.json").unlink()
    assert load_encoder(str(public_encoder)).size == 70
    with pytest.raises(InputError, match="takes 3 channels"):
        encoder(torch.zeros(1, 2, 42, 42))


@pytest.mark.parametrize("kind", ["dinov2", "dino-of-theirs", "bert", None])
def test_code_in_the_folder_of_an_encoder_never_runs(
    public_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None
) -> None:
    """A known type is the class of transformers, whatever ``auto_map`` says; a typed "yes" opens nothing."""
    trace = tmp_path / "trace"
    for name in ("theirs.py", "__init__.py", "modeling_dinov2.py"):
        (public_encoder / name).write_text(f"open({str(trace)!r}, 'w').write('it ran')\n")
    path = public_encoder / "config.json"
    auto_map = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}
    values = json.loads(path.read_text()) | {"auto_map": auto_map, "model_type": kind}
    values |= {"attn_implementation": "theirs/kernel", "_attn_implementation": "theirs/kernel"}
    path.write_text(json.dumps(values))
    monkeypatch.setattr("builtins.input", lambda *question: "y")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    if kind == "dinov2":
        backbone = load_encoder(str(public_encoder)).backbone
        assert type(backbone).__module__ == "transformers.models.dinov2.modeling_dinov2"
        assert backbone.config._attn_implementation != "theirs/kernel"
    else:
        with pytest.raises(InputError, match=f"has the model_type {kind!r}, not dinov2, "):
            load_encoder(str(public_encoder))
    assert not trace.exists()


def test_an_encoder_without_some_of_its_weights_is_refused(public_encoder: Path) -> None:
    path = public_encoder / "model.safetensors"
    whole = load_file(path)
    save_file({k: v for k, v in whole.items() if k != "layernorm.weight"}, path)
    with pytest.raises(InputError, match="lacks layernorm.weight"):
        load_encoder(str(public_encoder))
    save_file({k: v for k, v in whole.items() if "mask_token" not in k}, path)
    load_encoder(str(public_encoder))


def test_gray_films_go_through_an_autoencoder_of_colors(stable_diffusion: Path) -> None:
    autoencoder = load_autoencoder(str(stable_diffusion), 1)
    assert (autoencoder.scale, autoencoder.factor, autoencoder.latent_channels) == (0.5, 2, 4)
    images = gray()
    moments = autoencoder.encode(images)
    assert moments.shape == (2, 8, 16, 16)
    posterior = autoencoder.vae.encode(images.expand(-1, 3, -1, -1)).latent_dist
    assert torch.allclose(moments[:, :4], posterior.mean * 0.5, atol=1e-5)
    assert torch.allclose(moments[:, 4:], posterior.std * 0.5, atol=1e-5)
    pixels = autoencoder.vae.decode(posterior.mean).sample.mean(1, keepdim=True).clamp(-1, 1)
    assert torch.allclose(autoencoder.decode(moments[:, :4]), pixels, atol=1e-4)
    with pytest.raises(InputError, match="takes 3 channels"):
        load_autoencoder(str(stable_diffusion), 2)


def test_a_start_keeps_all_but_the_map_of_the_embedding(stable_diffusion: Path) -> None:
    denoiser = start_denoiser(str(stable_diffusion), Diffusion(), latent_channels=4, width=40)
    assert denoiser.width == 40
    assert denoiser.unet.encoder_hid_proj.weight.shape == (24, 40)
    from diffusers import UNet2DConditionModel

    source = UNet2DConditionModel.from_pretrained(
        stable_diffusion / "unet", low_cpu_mem_usage=False
    )
    for name, value in source.state_dict().items():
        assert torch.equal(value, denoiser.unet.state_dict()[name]), name
    told = normalize(torch.randn(2, 40), dim=1)
    assert denoiser(torch.randn(2, 4, 8, 8), torch.tensor([0, 999]), told).shape == (2, 4, 8, 8)
    with pytest.raises(InputError, match="for 4 latent channels, the autoencoder has 8"):
        start_denoiser(str(stable_diffusion), Diffusion(), latent_channels=8, width=40)
    with pytest.raises(InputError, match=r"holds no UNet2DConditionModel .*safetensors lacks "):
        start_denoiser(str(stable_diffusion / "vae"), Diffusion(), latent_channels=4, width=40)


def test_folders_that_lack_a_weight_are_refused(stable_diffusion: Path) -> None:
    for part, lost in (("unet", "conv_norm_out.weight"), ("vae", "quant_conv.weight")):
        path = stable_diffusion / part / "diffusion_pytorch_model.safetensors"
        save_file({k: v for k, v in load_file(path).items() if k != lost}, path)
    with pytest.raises(InputError, match="lacks conv_norm_out.weight"):
        start_denoiser(str(stable_diffusion), Diffusion(), latent_channels=4, width=40)
    with pytest.raises(InputError, match="lacks quant_conv.weight"):
        load_autoencoder(str(stable_diffusion), 1)


def test_context_tokens_start_centered_and_the_null_token_is_the_bias() -> None:
    torch.manual_seed(0)
    network = LatentNetwork(channels=(16, 32), heads=2, context=256)
    denoiser = build_denoiser(network, Diffusion(), latent_channels=4, size=8, width=48)
    crowded = normalize(torch.randn(48) + 0.3 * torch.randn(500, 48), dim=1)
    center_context(denoiser, crowded)
    tokens = denoiser.unet.encoder_hid_proj(crowded).detach()
    assert float(tokens.mean(0).abs().max()) < 1e-4
    assert float(tokens.square().mean()) == pytest.approx(1, rel=0.1)
    null = denoiser.unet.encoder_hid_proj(torch.zeros(48))
    assert torch.equal(null, denoiser.unet.encoder_hid_proj.bias)


@pytest.mark.parametrize("preset", LATENT_PRESETS)
def test_presets_build_and_only_sd_spares_its_coarsest_level(preset: str) -> None:
    with torch.device("meta"):
        network = LatentNetwork(preset=preset)  # type: ignore[arg-type]
        unet = build_denoiser(network, Diffusion(), latent_channels=4, size=64, width=768).unet
    kinds = ["Attn" in kind for kind in unet.config.down_block_types]
    assert kinds == [True] * (len(kinds) - 1) + [preset != "sd"]
    assert list(unet.config.up_block_types) == [
        kind.replace("Down", "Up") for kind in reversed(unet.config.down_block_types)
    ]


def test_the_autoencoder_halves_as_often_as_it_has_levels() -> None:
    torch.manual_seed(0)
    settings = AutoencoderSettings(channels=(8, 16, 24), latent_channels=3)
    autoencoder = build_autoencoder(settings, 1, 32)
    assert autoencoder.factor == 4
    output, mean, log_variance = autoencoder(gray(), torch.zeros(2, 3, 8, 8))
    assert output.shape == (2, 1, 32, 32)
    assert mean.shape == log_variance.shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match="does not divide"):
        build_denoiser(LatentNetwork(heads=5), Diffusion(), latent_channels=3, size=8, width=8)
