"""Networks of diffusers and MONAI with random weights give the same numbers as ours; what differs is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from radiffuse.nets.unet import UNet
from radiffuse.release.convert_configs import diffusers_config, monai_config
from radiffuse.release.convert_names import DIFFUSERS, MONAI, renamed
from tiny_runs import shake

SMALL: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 2,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
RESIDUAL = {
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 4,
}


@pytest.mark.parametrize(
    "changes",
    [{}, RESIDUAL, {"norm_eps": 1e-2, "attention_head_dim": None, "layers_per_block": 2}],
    ids=["convolutions", "residual", "one-head"],
)
def test_diffusers_gives_the_same(changes: dict[str, Any]) -> None:
    from diffusers import UNet2DModel

    theirs = UNet2DModel(**SMALL | changes).eval()
    shake(theirs, 0)
    ours = UNet(diffusers_config(dict(theirs.config)))
    ours.load_state_dict(renamed(theirs.state_dict(), ours.config, DIFFUSERS))
    x = torch.randn((2, 1, 16, 24), generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3, 700])
    with torch.no_grad():
        expected = theirs(x, t).sample
        torch.testing.assert_close(ours.eval()(x, t), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_monai_gives_the_same(dims: int, residual: bool) -> None:
    from monai.networks.nets import DiffusionModelUNet

    config = {
        "spatial_dims": dims, "in_channels": 1, "out_channels": 1, "num_res_blocks": [1, 1],
        "channels": [8, 16], "attention_levels": [False, True], "norm_num_groups": 4,
        "norm_eps": 1e-6 if residual else 1e-2, "num_head_channels": [0, 8],
        "resblock_updown": residual,
    }  # fmt: skip
    theirs = DiffusionModelUNet(**config).eval()
    shake(theirs, 0)
    ours = UNet(monai_config(config))
    ours.load_state_dict(renamed(theirs.state_dict(), ours.config, MONAI))
    x = torch.randn((2, 1, *(8, 12, 4)[:dims]), generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3, 700])
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x, t), theirs(x, t), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos is False"),
        ({"downsample_padding": 0}, "downsample_padding is 0"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is fourier"),
        ({"num_class_embeds": 10}, "num_class_embeds is 10"),
        ({"block_out_channels": (8, 12, 16)}, "multiples of the first"),
        ({"up_block_types": ("UpBlock2D", "UpBlock2D", "UpBlock2D")}, "attention on other levels"),
        ({"down_block_types": ("SkipDownBlock2D",) * 3}, "the block SkipDownBlock2D"),
        ({"downsample_type": "resnet"}, "convolutions here and residual blocks there"),
        ({"_class_name": "UNet2DConditionModel"}, "it is a UNet2DConditionModel"),
        ({"norm_num_groups": 5}, "does not divide all channels"),
        ({"time_embedding_dim": 100}, "time_embedding_dim is 100"),
    ],
)
def test_what_differs_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diffusers_config(SMALL | changes)


def test_monai_with_conditioning_and_uneven_levels_is_refused() -> None:
    base = {"spatial_dims": 3, "in_channels": 1, "out_channels": 1}
    for changes, message in (
        ({"with_conditioning": True}, "with_conditioning is True"),
        ({"num_res_blocks": (1, 2, 2, 2)}, "every level has as many"),
        ({"num_head_channels": (8, 8, 8, 64)}, "other heads"),
        ({"use_combined_linear": True}, "use_combined_linear is True"),
    ):
        with pytest.raises(ValueError, match=message):
            monai_config(base | changes)


def test_other_weights_are_refused() -> None:
    config = diffusers_config(SMALL)
    with pytest.raises(ValueError, match=r"time_embedding\.linear_1\.weight is missing"):
        renamed({}, config, DIFFUSERS)
    from diffusers import UNet2DModel

    state = UNet2DModel(**SMALL).state_dict() | {"surplus.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"surplus\.weight has no place"):
        renamed(state, config, DIFFUSERS)
