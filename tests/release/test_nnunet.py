"""What nnU-Net would do with the export, step by step, without nnU-Net: find, build, load, train, predict."""

from __future__ import annotations

import json
import pydoc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import radiffuse
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network, save_network
from radiffuse.system.files import write_atomic
from radiffuse.train.start_run import start_run
from tiny_runs import shake, tiny, volume_plan


def denoiser_run(folder: Path, plan: Plan) -> Path:
    with start_run(folder, "pretrain", {}) as run:
        write_atomic(folder / "plan.json", plan.to_json())
        unet = tiny(plan.spatial_dims, 1).unet
        shake(unet, 1)
        save_network(unet, run.model)
    return folder


def built(folder: Path, classes: int = 3) -> nn.Module:
    """As nnU-Net builds a network from its plans and loads pre-trained weights into it."""
    architecture = json.loads((folder / "plans.json").read_text())["configurations"]["radiffuse"][
        "architecture"
    ]
    network_class = pydoc.locate(architecture["network_class_name"])
    network = network_class(
        input_channels=1,
        num_classes=classes,
        **architecture["arch_kwargs"] | {"deep_supervision": True},
    )
    given = torch.load(folder / "pretrained.pth", weights_only=True)["network_weights"]
    own = network.state_dict()
    for key, tensor in own.items():
        if ".seg_layers." not in key:
            assert given[key].shape == tensor.shape
    own.update({key: value for key, value in given.items() if ".seg_layers." not in key})
    network.load_state_dict(own)
    return network


@pytest.mark.parametrize("dims", [2, 3])
def test_nnunet_gets_the_pretrained_features(dims: int, tmp_path: Path) -> None:
    plan = (
        volume_plan((8, 8, 16))
        if dims == 3
        else Plan(2, ("image",), (), (16, 24), intensity="window", low=-1, high=1)
    )
    run = denoiser_run(tmp_path / "run", plan)
    out = radiffuse.export(run=run, format="nnunet-encoder", out=tmp_path / "nnunet")
    network = built(out).eval()
    images = torch.rand((2, 1, *plan.size), generator=torch.Generator().manual_seed(0)) * 2 - 1
    # nnU-Net sees volumes with reversed axes.
    order = (0, 1, *range(dims + 1, 1, -1)) if dims == 3 else tuple(range(dims + 2))
    taps = ("middle", "level.0")
    with torch.no_grad():
        t = torch.zeros(2, dtype=torch.int64)
        expected = load_network(run / "model").features(images, t, taps)
        found = network.unet.features(images.permute(order), t, taps)
        for tap in taps:
            torch.testing.assert_close(found[tap].permute(order), expected[tap], atol=1e-4, rtol=0)
        logits = network(images.permute(order))
    shape = images.permute(order).shape[2:]
    assert [tuple(x.shape) for x in logits] == [(2, 3, *shape)]
    network.decoder.deep_supervision = False
    with torch.no_grad():
        assert torch.equal(network(images.permute(order)), logits[0])


def test_every_scale_of_deep_supervision_learns() -> None:
    from dataclasses import asdict, replace

    from radiffuse.nets.unet import UNet
    from radiffuse.release.nnunet_network import NNUNetUNet, strides_of

    config = replace(tiny(2, 1).unet.config, multipliers=(1, 2, 2), attention_factors=())
    values = json.loads(json.dumps(asdict(config)))
    network = NNUNetUNet(1, 3, unet=values, strides=strides_of(config))
    logits = network(torch.randn(1, 1, 16, 16))
    # nnU-Net's targets: 1 / cumprod of the strides, all but the last
    scales = 1 / np.cumprod(strides_of(config), axis=0)[:-1]
    assert [tuple(x.shape[2:]) for x in logits] == [tuple((16 * s).astype(int)) for s in scales]
    sum(x.square().mean() for x in logits).backward()
    unused = {name for name, p in network.named_parameters() if p.grad is None}
    assert unused == set()
    assert not isinstance(network.unet.head, nn.Conv2d)
    assert isinstance(UNet(config).head, nn.Conv2d)
    with pytest.raises(ValueError, match="trained on 1 channels, the data has 2"):
        NNUNetUNet(2, 3, unet=values, strides=strides_of(config))
    with pytest.raises(ValueError, match="strides are"):
        NNUNetUNet(1, 3, unet=values, strides=[[1, 1], [2, 2], [2, 1]])


def test_its_normalization_becomes_the_window(tmp_path: Path) -> None:
    plan = Plan(
        3, ("CT",), (), (8, 8, 8), (1.0, 2.0, 3.0), intensity="window", low=-1350, high=1000
    )
    out = radiffuse.export(
        run=denoiser_run(tmp_path / "run", plan), format="nnunet-encoder", out=tmp_path / "nnunet"
    )
    content = json.loads((out / "plans.json").read_text())
    stated = content["foreground_intensity_properties_per_channel"]["0"]
    values = np.array([-2000.0, -1350, -175, 1000, 3000])
    clipped = values.clip(stated["percentile_00_5"], stated["percentile_99_5"])
    np.testing.assert_allclose((clipped - stated["mean"]) / stated["std"], [-1, -1, 0, 1, 1])
    configuration = content["configurations"]["radiffuse"]
    assert configuration["spacing"] == [3.0, 2.0, 1.0]
    assert configuration["architecture"]["arch_kwargs"]["rescale"] is False
    assert "nnUNetv2_train" in (out / "README.md").read_text()


def test_what_cannot_go_there(tmp_path: Path) -> None:
    from radiffuse.nets.mask_denoiser import MaskDenoiser

    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    run = denoiser_run(tmp_path / "run", plan)
    save_network(
        MaskDenoiser.from_denoiser(tiny(2, 1).unet, classes=2, generator=torch.Generator()),
        run / "model",
    )
    with pytest.raises(
        InputError,
        match="package's U-Net. Give a run of radiffuse pretrain, or of fit --method finetune",
    ):
        radiffuse.export(run=run, format="nnunet-encoder", out=tmp_path / "x")
