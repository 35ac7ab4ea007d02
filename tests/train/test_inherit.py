"""What may not be asked for beside a pre-trained network is refused, by what it has."""

from __future__ import annotations

import re

import pytest

from radiffuse.config import Network, resolve_network
from radiffuse.config.given import written
from radiffuse.errors import InputError
from radiffuse.nets.unet import UNet
from radiffuse.train.inherit import verify_network


@pytest.mark.parametrize(
    ("has", "asked", "said"),
    [
        (("1x2x2",), ("2x2x1",), "--strides 2x2x1: RUN was trained with the strides 1x2x2"),
        (None, ("1x2x2",), "--strides 1x2x2: RUN was trained with the strides 2x2x2"),
    ],
)
def test_strides_are_refused_by_those_of_the_network(
    has: tuple[str, ...] | None, asked: tuple[str, ...], said: str
) -> None:
    def small(strides: tuple[str, ...] | None) -> Network:
        return Network(width=8, blocks=1, multipliers=(1, 2), strides=strides, attention_factors=())

    unet = resolve_network(small(has), spatial_dims=3, in_channels=1, out_channels=1)
    verify_network(small(has), UNet(unet), "RUN")
    with pytest.raises(InputError, match=re.escape(said)):
        verify_network(small(asked), UNet(unet), "RUN")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2), "1,2"), (((1, 2, 2), (2, 2, 2)), "1x2x2,2x2x2"), (("1x2x2",), "1x2x2"), ([], "[]"),
        (True, "true"), (None, "none"), (0.5, "0.5"), (2.0, "2"), (3, "3"), ("a", "a"),
    ],
)  # fmt: skip
def test_a_value_is_written_as_on_the_command_line(value: object, text: str) -> None:
    assert written(value) == text
