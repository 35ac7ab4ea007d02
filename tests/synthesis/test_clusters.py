"""Clusters of the features of all films: what they are where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from radiffuse.data.plan import Plan
from radiffuse.data.scan import Array, Scan
from radiffuse.data.transform import image_to_plan
from radiffuse.synthesis.clusters import (
    Clusters,
    Places,
    find_clusters,
    name_clusters,
    places_of,
    read_places,
    segment_by_clusters,
)

PLAN = Plan(2, ("image",), (), (32, 32), None, resize="fit", intensity="window", low=0, high=255)
CPU = torch.device("cpu")


def chest(seed: int, shape: tuple[int, int] = (64, 64)) -> tuple[Scan, Array]:
    """Two dark lungs in a bright body in black air, somewhere near the middle; the film and the lungs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0]
    body = (abs(x - shape[1] / shape[0] / 2) < 0.42) & (y > 0.06)
    place = shape[1] / shape[0] / 2 + rng.uniform(-0.02, 0.02)
    lungs = sum(
        ((x - place - side) / 0.15) ** 2 + ((y - 0.5) / 0.32) ** 2 < 1 for side in (-0.2, 0.2)
    ).astype(bool)
    film = np.where(body, 200.0, 0.0)
    film[lungs] = 80.0
    return Scan(film[None]), lungs


def gray_and_air(film: torch.Tensor) -> torch.Tensor:
    """Features of known meaning: gray, whether it is that of air, whether it is that of lungs; on a grid of 16 x 16."""
    gray = film[0]
    maps = torch.stack([gray, (gray < -0.9).float(), ((gray > -0.9) & (gray < 0)).float()])
    return torch.nn.functional.avg_pool2d(maps[None], 2)[0]


def found(count: int = 3, scans: int = 6, seed: int = 0) -> Clusters:
    films = [chest(i)[0] for i in range(scans)]
    return find_clusters(read_places(films, gray_and_air, PLAN, CPU), scans, count, seed)


def test_lungs_are_found_without_labels_and_air_is_not_taken_for_them() -> None:
    clusters = found()
    assert sum(clusters["lung"]) == 1
    for seed in (20, 21):
        film, lungs = chest(seed)
        regions, mask = segment_by_clusters(clusters, gray_and_air, PLAN, film, CPU)
        assert regions.shape == mask.shape == lungs.shape
        dice = 2 * (mask & lungs).sum() / (mask.sum() + lungs.sum())
        assert dice > 0.8
    # Air is darker than the lungs, and what keeps it out is the border.
    assert clusters["darkness"][0] > clusters["darkness"][1] > 0
    assert clusters["lung"] == [False, True, False]


def test_clusters_depend_on_the_seed_and_nothing_else_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert found(seed=3) == found(seed=3)
    monkeypatch.setattr("radiffuse.synthesis.clusters.PLACES", 60)
    few = found(scans=6)
    assert few["films"] == 6
    rows = 0
    films = [chest(i)[0] for i in range(6)]
    for film in read_places(films, gray_and_air, PLAN, CPU):
        rows += min(len(film.gray), 60 // 6)
    assert rows == 60  # ten places of each film, though each has 256
    assert sum(few["left"]) + sum(few["right"]) == pytest.approx(1)


def test_k_means_finds_what_was_drawn_around_known_centers() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[0, 0], [10, 0], [0, 10], [10, 10.0]])
    own = rng.integers(0, 4, 400)
    points = (truth[own] + rng.normal(0, 0.3, (400, 2))).astype(np.float32)
    half = np.arange(400) % 2 == 0
    places = Places(points, points[:, 0], half, half)
    clusters = find_clusters([places], 1, 4, seed=0)
    scale, mean = np.array(clusters["std"]), np.array(clusters["mean"])
    centers = np.array(clusters["centers"]) * scale + mean
    for corner in truth:
        assert np.linalg.norm(centers - corner, axis=1).min() < 0.15
    assert clusters["darkness"] == sorted(clusters["darkness"], reverse=True)
    assert clusters["border"] == pytest.approx([1.0] * 4, abs=0.25)


def test_the_rule_by_hand() -> None:
    """Dark and inside; dark but at the border; bright; then two halves of a pair, and one half alone."""
    dark, border = np.array([0.9, 1.2, -0.5]), np.array([0.0, 2.0, 0.1])
    sides = np.array([0.1, 0.1, 0.3]), np.array([0.12, 0.1, 0.3])
    assert name_clusters(dark, border, *sides).tolist() == [True, False, False]
    dark, border = np.array([0.9, 0.8, -0.5]), np.array([0.0, 0.1, 1.0])
    left, right = np.array([0.14, 0.01, 0.3]), np.array([0.01, 0.13, 0.3])
    assert name_clusters(dark, border, left, right).tolist() == [True, True, False]
    assert not name_clusters(np.array([0.9, -0.8, -0.5]), border, left, right).any()


def test_padding_is_no_part_of_a_film() -> None:
    """A wide film is padded above and below; half of the grid is left, with its own border."""
    film, _ = chest(0, (32, 64))
    image, undo = image_to_plan(film, PLAN)
    assert undo.inner == (16, 32)
    places = places_of(image, undo, gray_and_air(torch.from_numpy(image)))
    assert places.features.shape == (8 * 16, 3)
    assert places.border.sum() == 2 * 16 + 2 * 6
    assert places.left.sum() == 8 * 8
    assert float(places.gray.mean()) == pytest.approx(0, abs=1e-6)


def test_too_few_places_are_refused() -> None:
    one = Places(
        np.zeros((2, 1), np.float32), np.zeros(2, np.float32), np.ones(2, bool), np.ones(2, bool)
    )
    with pytest.raises(ValueError, match="2 places cannot form 3 clusters"):
        find_clusters([one], 1, 3, seed=0)
    with pytest.raises(ValueError, match="fewer than 2 clusters"):
        find_clusters([one], 1, 2, seed=0)
