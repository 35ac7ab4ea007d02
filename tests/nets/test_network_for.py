"""The network that fits a size by formula: depth, thin axes, and the presets that it gives back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiffuse.config import Network, fitting_size, network_for, resolve_network
from radiffuse.nets.unet import verify_config


@pytest.mark.parametrize(("preset", "side", "width"), [("tiny", 64, 16), ("tiny-256", 256, 32)])
def test_presets_for_a_cpu_are_the_formula_s(preset: str, side: int, width: int) -> None:
    named = Network(preset=preset)  # type: ignore[arg-type]
    expected = resolve_network(named, spatial_dims=2, in_channels=1, out_channels=1)
    assert network_for((side, side), width=width) == expected


@settings(deadline=None)
@given(
    size=st.lists(st.integers(1, 700), min_size=2, max_size=3),
    spacing=st.lists(st.floats(0.3, 6), min_size=3, max_size=3),
)
def test_the_bottleneck_has_up_to_8_positions(size: list[int], spacing: list[float]) -> None:
    fitting = fitting_size(size)
    config = network_for(fitting, spacing=spacing[: len(size)], width=8)
    verify_config(config)
    for n, fit, factor in zip(size, fitting, config.size_multiple, strict=True):
        assert fit >= n
        assert fit % factor == 0
        assert fit // factor <= 8
        assert n < 8 or fit // factor > 4
        assert fit < n + factor


def test_thin_axes_wait_as_in_nnunet() -> None:
    """By hand: 5 mm against .7, 1.4, 2.8 mm: at the third step the ratio is 1.8, below 2."""
    config = network_for((16, 256, 256), spacing=(5, 0.7, 0.7), folds=0, width=8)
    assert config.strides == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert (config.multipliers, config.unshuffle) == ((1, 2, 4, 8, 8, 8), 1)
    folded = network_for((16, 256, 256), spacing=(5, 0.7, 0.7), folds=2, width=8)
    assert folded.unshuffle == (1, 4, 4)
    assert folded.strides == config.strides[2:]
    assert folded.factors == config.factors[2:]


@pytest.mark.parametrize(
    ("size", "fold"),
    [((64, 64), 1), ((96, 112), 1), ((128, 128), 2), ((256, 256), 4), ((1024, 1024), 4),
     ((64, 64, 64), 1), ((128, 128, 128), 2)],
)  # fmt: skip
def test_large_images_are_folded(size: tuple[int, ...], fold: int) -> None:
    config = network_for(size)
    assert config.unshuffle == fold
    assert math.prod(config.size_multiple) * 8 ** len(size) >= math.prod(size)
