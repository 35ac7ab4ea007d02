"""The sliding window: the same numbers as MONAI's, in slabs that cover the volume once."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from radiffuse.inference.windows import blending, slide, slide_at, starts


def volume(shape: tuple[int, ...], channels: int = 1) -> Tensor:
    return torch.rand((channels, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1


def place_dependent(images: Tensor) -> Tensor:
    """A function whose answer depends on where in the window a voxel is, so that blending shows."""
    ramp = torch.linspace(0, 1, images.shape[-1])
    return torch.cat([images * ramp, images.flip(2) + ramp, ramp.expand_as(images)], dim=1)


def together(parts: list[tuple[int, Tensor]]) -> Tensor:
    assert [first for first, _ in parts] == [
        sum(slab.shape[1] for _, slab in parts[:i]) for i in range(len(parts))
    ]
    return torch.cat([slab for _, slab in parts], dim=1)


@pytest.mark.parametrize("shape", [(19, 13, 10), (8, 8, 8), (5, 9, 3), (16, 8, 21), (9, 40, 8)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.8])
def test_slabs_equal_the_whole_volume_blended_by_monai(
    shape: tuple[int, ...], overlap: float
) -> None:
    from monai.inferers import sliding_window_inference

    image = volume(shape)
    ours = together(list(slide(image, (8, 8, 6), place_dependent, overlap=overlap)))
    theirs = sliding_window_inference(
        image[None], (8, 8, 6), 1, place_dependent, overlap=overlap, mode="gaussian", cval=-1.0,
        padding_mode="constant",
    )[0]  # fmt: skip
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_no_slab_is_thicker_than_a_window() -> None:
    parts = list(slide(volume((100, 8, 8)), (8, 8, 8), lambda x: x, overlap=0.5))
    assert len(parts) > 10
    assert max(slab.shape[1] for _, slab in parts) <= 8


def test_windows_reach_both_ends() -> None:
    for length, window, overlap in ((10, 4, 0.5), (4, 4, 0.9), (11, 4, 0.0), (9, 8, 0.99)):
        found = starts(length, window, overlap)
        assert found[0] == 0
        assert found[-1] == length - window
        assert all(0 < b - a <= window for a, b in itertools.pairwise(found))


def test_blending_is_symmetric_and_never_vanishes() -> None:
    weight = blending((7, 5, 6))
    torch.testing.assert_close(weight, weight.flip((0, 1, 2)))
    assert float(weight.min()) >= 1e-3 - 1e-9
    assert float(weight[3, 2, 2]) == pytest.approx(float(weight.max()))


@pytest.mark.parametrize("shape", [(19, 13, 10), (5, 9, 3), (8, 8, 6)])
def test_gathered_voxels_are_those_of_the_slabs(shape: tuple[int, ...]) -> None:
    """Also of a volume that is smaller than the window, and in any order."""
    image, size = volume(shape), (8, 8, 6)
    whole = together(list(slide(image, size, place_dependent, overlap=0.5))).flatten(1)
    voxels = torch.randperm(whole.shape[1], generator=torch.Generator().manual_seed(1))[:25]
    ours = slide_at(image, size, place_dependent, voxels, overlap=0.5)
    torch.testing.assert_close(ours, whole[:, voxels].T, atol=1e-5, rtol=1e-5)
    assert slide_at(image, size, place_dependent, voxels[:0], overlap=0.5).shape[0] == 0


def test_windows_without_a_wanted_voxel_are_not_run_and_coarse_results_are_interpolated() -> None:
    seen: list[Tensor] = []

    def coarse(window: Tensor) -> Tensor:
        seen.append(window)
        return torch.nn.functional.avg_pool3d(window, 2)

    image, size = volume((32, 8, 8)), (8, 8, 8)
    voxels = torch.tensor(
        [3 * 64 + 2 * 8 + 5]
    )  # plane 3 lies in the first window alone, whose step is 8
    value = slide_at(image, size, coarse, voxels, overlap=0.0)
    assert len(seen) == 1
    up = torch.nn.functional.interpolate(
        torch.nn.functional.avg_pool3d(image[None, :, :8], 2), size, mode="trilinear"
    )
    torch.testing.assert_close(value[0], up[0, :, 3, 2, 5])
