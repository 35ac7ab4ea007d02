"""Denoisers of others become runs: the same numbers, the right process, and clear words where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_convert_hub import SMALL

import radiffuse
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.train.run import Run
from tiny_runs import shake, tiny


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
    run = radiffuse.convert(weights=folder, out=tmp_path / "run")
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
    assert run.plan.size == (16, 16)
    assert "converted from diffusers" in (run.folder / "README.md").read_text()
    tuned = radiffuse.fit(
        data=films, from_run=run.folder, out=tmp_path / "seg", split={"validation": 0},
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
    with pytest.raises(InputError, match="--spacing: is missing"):
        radiffuse.convert(weights=folder, out=tmp_path / "run", size=(16,))
    run = radiffuse.convert(
        weights=folder, out=tmp_path / "run", size=(16,), spacing=(1, 1, 2), window=(-1000, 1000)
    )
    assert (run.plan.size, run.plan.spacing) == ((16, 16, 16), (1, 1, 2))
    assert load_network(run.model).config.norm_eps == 1e-6


def test_a_file_of_guided_diffusion(tmp_path: Path) -> None:
    from radiffuse.release.convert_names import to_guided_diffusion

    unet = tiny(2, 1).unet
    shake(unet, 3)
    path = tmp_path / "unet.safetensors"
    state = to_guided_diffusion(unet.state_dict(), unet.config)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    run = radiffuse.convert(weights=path, head_channels=8, size=(16,), out=tmp_path / "run")
    found = load_network(run.model)
    assert found.config == unet.config
    for name, tensor in unet.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
