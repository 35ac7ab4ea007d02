"""The cost of a network against published figures."""

from __future__ import annotations

import pytest

from radiffuse.config import UNetConfig
from radiffuse.nets.summary import summarize


def test_operations_of_the_published_network() -> None:
    """Peebles and Xie 2023 (DiT) give 1120 G multiply-adds for the 256 px network of width 256."""
    config = UNetConfig(in_channels=3, out_channels=6, width=256)
    summary = summarize(config, (256, 256))
    assert summary.forward_flops / 2e9 == pytest.approx(1120, rel=0.002)
    assert summary.state_bytes == 20 * summary.parameters
