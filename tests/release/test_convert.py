"""Denoisers of others become runs: the same numbers, the right process, and clear words where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from guided_diffusion_reference import forward as reference
from safetensors.torch import load_file, save_file
from test_convert_hub import SMALL

import radiffuse
from guided_names import to_guided_diffusion
from radiffuse.config import UNetConfig
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.nets.unet import UNet
from radiffuse.train.run import Run
from tiny_runs import shake


@pytest.fixture
def pipeline(tmp_path: Path) -> tuple[Path, Any]:
    """A pipeline of diffusers with random weights."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(**SMALL | {"out_channels": 1, "sample_size": 16}).eval()
    shake(unet, 0)
    scheduler = DDPMScheduler(
        300, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipe")
    return tmp_path / "pipe", unet


def test_a_pipeline_becomes_a_run_that_others_start_from(
    pipeline: tuple[Path, Any], films: Path, tmp_path: Path
) -> None:
    folder, theirs = pipeline
    agreeing = {"schedule": "cosine", "num_train_timesteps": 300, "variance": "fixed_large"}
    run = radiffuse.convert(weights=folder, out=tmp_path / "run", diffusion=agreeing)
    ours = load_network(run.model)
    x, t = (
        torch.randn((1, 1, 16, 16), generator=torch.Generator().manual_seed(1)),
        torch.tensor([9]),
    )
    with torch.no_grad():
        torch.testing.assert_close(ours(x, t), theirs(x, t).sample, atol=2e-4, rtol=1e-4)
    diffusion = Run.open(run.folder).config["settings"]["diffusion"]
    assert (diffusion["schedule"], diffusion["prediction_type"]) == ("cosine", "v")
    assert diffusion["num_train_timesteps"] == 300
    assert diffusion["variance"] == "fixed_large"
    assert run.plan.size == (16, 16)
    assert "converted from diffusers" in (run.folder / "README.md").read_text()
    tuned = radiffuse.fit(
        data=films, method="finetune", from_run=run.folder, out=tmp_path / "seg", split={"validation": 0},
        training={"steps": 1, "batch_size": 2, "validate_every": 0},
        reader={"cache": str(tmp_path / "cache")},
        machine={"accelerator": "cpu", "precision": "32-true"},
    )  # fmt: skip
    assert load_network(tuned.model).unet.config.norm_eps == 1e-5


def test_what_does_not_fit_is_named(pipeline: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = pipeline

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            radiffuse.convert(**{"weights": folder, "out": tmp_path / "run"} | changes)
        assert not (tmp_path / "run").exists()

    refused("multiples of 4", plan={"size": (18,)})
    refused('plan={"spacing": ...}: takes no effect', plan={"spacing": (1.0, 1.0, 1.0)})
    refused('plan={"grid": ...}: takes no effect', plan={"grid": (64,)})
    for name, value in {
        "schedule": "scaled-linear",
        "num_train_timesteps": 20,
        "prediction_type": "x_start",
        "zero_terminal_snr": True,
        "variance": "learned",
    }.items():
        why = "takes no effect, since the weights and their scheduler tell it"
        refused(f'diffusion={{"{name}": ...}}: {why}', diffusion={name: value})
    path = folder / "scheduler" / "scheduler_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"beta_schedule": "linear", "beta_end": 0.5}))
    refused("has betas from 0.0001 to 0.5")
    path.write_text(json.dumps(content | {"beta_schedule": "sigmoid"}))
    refused("has the schedule sigmoid")
    path = folder / "unet" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"flip_sin_to_cos": False}))
    refused("is another network than here: flip_sin_to_cos is False")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    refused("is damaged")
    weights.rename(folder / "unet" / "diffusion_pytorch_model.bin")
    refused("is pickled, which can run code")
    refused("does not exist", weights=tmp_path / "none")


def test_a_volume_network_of_monai(tmp_path: Path) -> None:
    from monai.networks.nets import DiffusionModelUNet

    config = {
        "spatial_dims": 3, "in_channels": 1, "out_channels": 1, "num_res_blocks": 1,
        "channels": [8, 16], "attention_levels": [False, False], "norm_num_groups": 4,
    }  # fmt: skip
    folder = tmp_path / "monai"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(DiffusionModelUNet(**config).state_dict(), folder / "model.safetensors")
    with pytest.raises(InputError, match="^spacing: is missing"):
        radiffuse.convert(weights=folder, out=tmp_path / "run", size=(16,))
    run = radiffuse.convert(
        weights=folder, out=tmp_path / "run", size=(16,), spacing=(1, 1, 2), window=(-1000, 1000)
    )
    assert (run.plan.size, run.plan.spacing) == ((16, 16, 16), (1, 1, 2))
    assert load_network(run.model).config.norm_eps == 1e-6


GUIDED = UNetConfig(
    width=32, multipliers=(1, 2), blocks=1, attention_factors=(1, 2), scale_shift_norm=False
)


def guided(path: Path, config: UNetConfig = GUIDED) -> dict[str, torch.Tensor]:
    """Random weights in guided-diffusion's names, also written to a file."""
    network = UNet(config)
    shake(network, 3)
    state = to_guided_diffusion(network.state_dict(), config)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return state


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("heads", [{"heads": 4}, {"heads": 1}, {"head_channels": 8}], ids=str)
def test_a_file_of_guided_diffusion(tmp_path: Path, heads: dict[str, int], order: str) -> None:
    """The oracle is the reading of the published code in ``guided_diffusion_reference``, told the same."""
    path = tmp_path / "unet.safetensors"
    state = guided(path)
    asked = {"weights": path, "size": (8,), "out": tmp_path / "run"} | heads
    if heads != {"heads": 1}:
        with pytest.raises(InputError, match="^attention_order: is missing: the weights do not"):
            radiffuse.convert(**asked)
        asked["attention_order"] = order
    run = radiffuse.convert(**asked)
    x, t = torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(1)), torch.arange(2)
    with torch.no_grad():
        ours = load_network(run.model)(x, t)
        theirs = reference(state, x, t, new_order=order == "new", **heads)
        other = reference(state, x, t, new_order=order != "new", **heads)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert heads == {"heads": 1} or (ours - other).abs().max() > 0.01 * ours.abs().max()


def test_volumes_of_guided_diffusion_keep_their_first_axis(tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    state = guided(path, replace(GUIDED, spatial_dims=3, strides=((1, 2, 2),)))
    run = radiffuse.convert(
        weights=path, out=tmp_path / "run", heads=4, attention_order="legacy", size=(9, 8, 8),
        spacing=(3, 1, 1), window=(-1000, 1000),
    )  # fmt: skip
    network = load_network(run.model)
    assert network.config.strides == ((1, 2, 2),)
    x, t = torch.randn((2, 1, 9, 8, 8), generator=torch.Generator().manual_seed(1)), torch.arange(2)
    with torch.no_grad():
        torch.testing.assert_close(
            network(x, t), reference(state, x, t, heads=4), atol=1e-4, rtol=0
        )


def test_networks_of_guided_diffusion_that_would_answer_otherwise_are_refused(
    tmp_path: Path, pipeline: tuple[Path, Any]
) -> None:
    path = tmp_path / "unet.safetensors"
    guided(path)

    def refused(message: str, **given: Any) -> None:
        with pytest.raises(InputError, match=message):
            radiffuse.convert(**{"weights": path, "out": tmp_path / "run", "size": (8,)} | given)

    refused("^heads and head_channels: are missing")
    refused("are both given", heads=4, head_channels=8)
    refused("attends to 32 channels, which 64 does not divide", head_channels=64)
    refused("attends to 64 channels, which 11 does not divide", heads=11)
    refused("^heads: is not for weights of diffusers", weights=pipeline[0], heads=4)
    guided(path, replace(GUIDED, multipliers=(2, 3)))
    state = load_file(path)
    state["time_embed.0.weight"] = torch.zeros(256, 64)  # channel_mult 1, 1.5
    save_file(state, path)
    refused("multiples of 64", heads=4)
