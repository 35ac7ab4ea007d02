"""The rules by which scans are chosen, on points and uncertainties whose right choice is plain."""

from __future__ import annotations

import numpy as np
import pytest

from radiffuse.evaluation.choosing import typical, uncertain


def blobs(*sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points around corners far apart, densest in the middle, and the corner of each."""
    rng = np.random.default_rng(0)
    corners = 100.0 * np.eye(len(sizes))
    points = [corners[k] + rng.normal(size=(n, len(sizes))) for k, n in enumerate(sizes)]
    return np.concatenate(points), np.repeat(np.arange(len(sizes)), sizes)


def test_one_scan_of_every_cluster_the_largest_first_and_near_its_middle() -> None:
    points, corner = blobs(40, 30, 20)
    chosen = typical(points, range(90), 3)
    assert [corner[i] for i, _ in chosen] == [0, 1, 2]
    assert [size for _, size in chosen] == [40, 30, 20]
    for i, _ in chosen:
        own = points[corner == corner[i]]
        away = np.linalg.norm(own - own.mean(0), axis=1)
        place = np.linalg.norm(points[i] - own.mean(0))
        assert place < np.median(away)
    assert typical(points, range(90), 3) == chosen


def test_labelled_clusters_come_last_and_labelled_scans_never() -> None:
    points, corner = blobs(40, 30, 20)
    labelled = [0, 1, 45]
    chosen = [i for i, _ in typical(points, range(90), 1, labelled=labelled)]
    assert [corner[i] for i in chosen] == [2]
    everything = typical(points, range(90), 87, labelled=labelled)
    assert sorted(i for i, _ in everything) == sorted(set(range(90)) - set(labelled))


def test_a_few_odd_scans_are_no_cluster_in_a_large_pool() -> None:
    points, corner = blobs(40, 40, 1)
    assert 2 not in {corner[i] for i, _ in typical(points, range(81), 3)}


def test_a_patient_is_chosen_once_as_long_as_there_are_others() -> None:
    points, _ = blobs(12, 12)
    patients = ["a"] * 10 + ["b"] * 2 + ["c"] * 12
    chosen = [patients[i] for i, _ in typical(points, patients, 4)]
    assert sorted(chosen[:3]) == ["a", "b", "c"]
    entropy, volume = np.ones((24, 1)), np.ones((24, 1))
    found = [patients[i] for i, _, _ in uncertain(entropy, volume, patients, 4, labels=1)]
    assert sorted(found[:3]) == ["a", "b", "c"]
    seen = uncertain(entropy, volume, patients, 1, labels=1, seen=["a", "c"])
    assert patients[seen[0][0]] == "b"


def test_equal_images_can_be_chosen_among() -> None:
    assert len(typical(np.zeros((5, 3)), range(5), 3)) == 3


def test_uncertain_scans_take_turns_between_classes() -> None:
    """With many labels there is next to no noise: the most uncertain scan of each class, by turns."""
    u = np.array([[0.1, 0.8], [0.9, 0.1], [0.2, 0.7], [0.8, 0.2], [0.1, 0.1], [0.1, 0.9]])
    volume = np.full_like(u, 100.0)
    chosen = uncertain(u * volume, volume, range(6), 4, labels=1000)
    assert [(i, k) for i, k, _ in chosen] == [(5, 1), (1, 0), (0, 1), (3, 0)]
    assert chosen[0][2] == pytest.approx(0.9 / 1.1)


def test_the_most_uncertain_of_a_class_is_labelled_first() -> None:
    """Few labels draw with chance, and what was drawn is put in order."""
    u = np.random.default_rng(1).uniform(0.1, 0.9, (40, 2))
    volume = np.full_like(u, 1e6)
    for seed in range(5):
        found = uncertain(u * volume, volume, range(40), 9, labels=1, seed=seed)
        classes = [k for _, k, _ in found]
        assert classes[::2] == [classes[0]] * 5
        assert classes[1::2] == [1 - classes[0]] * 4
        for part in (found[::2], found[1::2]):
            assert part == sorted(part, key=lambda one: -one[2])
            assert [one[2] for one in part] == pytest.approx([u[i, k] / 1.1 for i, k, _ in part])
        assert len({i for i, _, _ in found}) == 9


def test_few_labels_draw_in_proportion_to_the_uncertainty() -> None:
    """The Gumbel-max trick: with one label, a scan is drawn with probability u / sum of u."""
    u, volume = np.array([[0.1], [0.3], [0.6]]), np.full((3, 1), 1e6)
    drawn = [
        uncertain(u * volume, volume, range(3), 1, labels=1, seed=s)[0][0] for s in range(4000)
    ]
    share = np.bincount(drawn, minlength=3) / 4000
    assert share == pytest.approx([0.1, 0.3, 0.6], abs=0.03)


def test_a_scan_without_the_class_is_not_uncertain_about_it() -> None:
    """A hair of probability that is all doubt counts little beside an organ whose rim is doubtful."""
    volume = np.array([[1000.0], [900.0], [2.0]])
    entropy = volume * np.array([[0.2], [0.1], [0.9]])
    assert uncertain(entropy, volume, range(3), 1, labels=1000)[0][0] == 0
