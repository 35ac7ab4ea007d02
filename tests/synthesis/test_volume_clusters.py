"""Clusters of volumes where they are known: feature maps made by hand, windows, coordinates, the scan's own grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from radiffuse.data.plan import Plan
from radiffuse.data.scan import Array, Scan
from radiffuse.synthesis.dense import DenseWindows
from radiffuse.synthesis.volumes import (
    VolumeClusters,
    find_volume_clusters,
    read_volume_places,
    scorer,
    segment_volume,
)

CPU = torch.device("cpu")
PLAN = Plan(
    3, ("CT",), (), (12, 12, 12), (2.0, 2.0, 2.0), intensity="window", low=-160, high=240
)  # fmt: skip
TISSUES = {"air": -1000.0, "fat": -100.0, "liver": 100.0, "bone": 230.0}


def slabs(seed: int, shape: tuple[int, int, int] = (16, 30, 20)) -> tuple[Scan, Array]:
    """A body of fat in air, with a block of liver and one of bone in it, and which is which, 0 to 3."""
    rng = np.random.default_rng(seed)
    what = np.zeros(shape, np.uint8)
    what[2:-2, 3:-3, 2:-2] = 1
    at = rng.integers(4, 8)
    what[4:-4, at : at + 8, 4:-4] = 2
    what[4:-4, at + 10 : at + 15, 4:-4] = 3
    hu = np.asarray(list(TISSUES.values()), np.float32)[what]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return Scan(hu[None], (2.0, 2.0, 2.0), affine, None, "HU"), what


def tissue(window: Tensor) -> Tensor:
    """Features of known meaning: whether a voxel is nearest to fat, to liver, to bone in gray; another is constant."""
    gray = torch.tensor([(hu + 160) / 400 * 2 - 1 for hu in list(TISSUES.values())[1:]])
    nearest = (window - gray.reshape(1, -1, 1, 1, 1)).abs().argmin(1)
    maps = torch.nn.functional.one_hot(nearest, 3).movedim(-1, 1).float()
    return torch.cat([maps, torch.full_like(window, 7.0)], dim=1)


def found(
    dense: DenseWindows, count: int = 3, weight: float = 0.0, seed: int = 0
) -> VolumeClusters:
    scans = [slabs(i)[0] for i in range(4)]
    places = read_volume_places(scans, len(scans), dense, PLAN, CPU, seed)
    return find_volume_clusters(places, count, seed, dense.coordinates, weight)


def test_segments_are_the_tissues_in_volumes_larger_than_a_window() -> None:
    clusters = found(DenseWindows(tissue))
    assert clusters["volumes"] == 4
    assert clusters["share"] == sorted(clusters["share"], reverse=True)
    assert clusters["std"][3] == 0  # constant: it does not count
    for seed in (20, 21):
        scan, what = slabs(seed)
        segments = segment_volume(clusters, DenseWindows(tissue), PLAN, scan, CPU)
        assert segments.dtype == np.uint8
        for value in range(4):  # every tissue is one segment, air is 0
            assert len(np.unique(segments[what == value])) == 1
        assert (segments[what == 0] == 0).all()
        assert len(np.unique(segments)) == 4


def test_segments_lie_on_the_scans_own_grid_whatever_its_axes_and_spacing() -> None:
    """A scan of half the spacing along one axis, with axes turned and flipped, has the same tissues."""
    clusters = found(DenseWindows(tissue))
    scan, _ = slabs(3)
    fine = np.repeat(scan.array, 2, axis=3).transpose(0, 3, 1, 2)[:, ::-1]
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = -1.0, 2.0, 2.0, 1.0
    turned = Scan(np.ascontiguousarray(fine), (1.0, 2.0, 2.0), affine, None, "HU")
    segments = segment_volume(clusters, DenseWindows(tissue), PLAN, turned, CPU)
    usual = segment_volume(clusters, DenseWindows(tissue), PLAN, scan, CPU)
    assert segments.shape == turned.spatial_shape
    back = segments[::-1].transpose(1, 2, 0)[:, :, ::2]
    assert (back == usual).mean() > 0.97  # but where linear interpolation mixes tissues


def test_a_volume_within_one_window_has_the_features_of_that_window() -> None:
    """Its score is that of the distance to each center, by hand."""
    scan, _ = slabs(1, (12, 24, 12))
    small = Scan(scan.array[:, :, :12], scan.spacing, scan.affine, None, "HU")
    seen: list[Tensor] = []

    def random(window: Tensor) -> Tensor:
        seen.append(window)
        generator = torch.Generator().manual_seed(0)
        return torch.randn((1, 5, *window.shape[2:]), generator=generator)

    clusters = found(DenseWindows(random), count=4)
    seen.clear()
    segments = segment_volume(clusters, DenseWindows(random), PLAN, small, CPU)
    assert len(seen) == 1
    features = random(seen[0])[0].numpy()
    scaled = (features.reshape(5, -1).T - clusters["mean"]) / clusters["std"]
    centers = np.array(clusters["centers"])
    nearest = ((scaled[:, None] - centers[None]) ** 2).sum(2).argmin(1).reshape(12, 12, 12)
    body = small.array[0] > -160
    assert np.array_equal(segments, np.where(body, nearest + 1, 0))


def test_coordinates_part_what_looks_alike_as_their_weight_says() -> None:
    """Two halves of one tissue: only with coordinates are they clusters of their own."""
    rng = np.random.default_rng(0)
    gray = rng.normal(0, 1, (400, 4)).astype(np.float32)
    gray[:, 3] = 2.0
    place = np.repeat([-5.0, 5.0], 200)[:, None].astype(np.float32) + rng.normal(0, 0.1, (400, 1))
    points = torch.from_numpy(np.concatenate([gray, place], 1).astype(np.float32))
    clusters = find_volume_clusters([points], 2, 0, coordinates=1, weight=4.0)
    labels = scorer(clusters)(points.T[None])[0].argmax(0)
    assert len(labels[:200].unique()) == len(labels[200:].unique()) == 1
    assert labels[0] != labels[-1]
    # Variance of the coordinate, scaled: 4 times that of the three features that vary.
    scaled = (points.numpy() - clusters["mean"]) / np.where(
        clusters["std"], clusters["std"], np.inf
    )
    assert scaled[:, 4].var() == pytest.approx(4 * scaled[:, :4].var(0).sum(), rel=1e-4)
    alone = find_volume_clusters([points[:, :4]], 2, 0)
    mixed = scorer(alone)(points[:, :4].T[None])[0].argmax(0)
    assert len(mixed[:200].unique()) == 2


def test_places_are_of_the_body_alone_bounded_and_drawn_by_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("radiffuse.synthesis.volumes.PLACES", 80)
    scans = [slabs(i)[0] for i in range(4)]
    gray = DenseWindows(lambda window: window)

    def read(seed: int) -> list[Tensor]:
        return list(read_volume_places(scans, 4, gray, PLAN, CPU, seed))

    parts = read(0)
    assert [len(part) for part in parts] == [20] * 4
    assert all((part > -0.99).all() for part in parts)  # air is -1
    assert all(torch.equal(a, b) for a, b in zip(parts, read(0), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(parts, read(1), strict=True))
    empty = Scan(np.full((1, 8, 8, 8), -1000.0), (2.0, 2.0, 2.0), np.diag([2.0, 2, 2, 1]))
    nothing = list(read_volume_places([empty], 1, gray, PLAN, CPU, 0))
    with pytest.raises(ValueError, match="0 places of the body cannot form 2 clusters"):
        find_volume_clusters(nothing, 2, 0)
