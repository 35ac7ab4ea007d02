"""Distances that tell copies from new images."""

from __future__ import annotations

import numpy as np
import pytest

from radiffuse.synthesis.copies import Ruler, correlation, threshold_of


def test_nearest_passes_over_the_own_patient() -> None:
    reference = np.array([[0.0], [1.0], [4.0]])
    ruler = Ruler(reference, ["a", "a", "b"])
    unit = reference.std()
    distance, index = ruler.nearest(reference, ["a", "a", "b"])
    assert index.tolist() == [2, 2, 1]
    assert distance == pytest.approx(np.array([4, 3, 3]) / unit)
    distance, index = ruler.nearest(np.array([[0.9]]))
    assert index.tolist() == [1]
    assert distance == pytest.approx([0.1 / unit])


def test_a_constant_feature_counts_for_nothing_and_units_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    reference, queries = rng.normal(size=(20, 3)), rng.normal(size=(5, 3))
    one, _ = Ruler(reference, range(20)).nearest(queries)
    scale = np.array([1.0, 100.0, 0.01])
    other, _ = Ruler(np.column_stack([reference * scale, np.full(20, 7.0)]), range(20)).nearest(
        np.column_stack([queries * scale, np.full(5, 9.0)])
    )
    assert other == pytest.approx(one)
    with pytest.raises(ValueError, match="two patients"):
        Ruler(reference, ["a"] * 20)


def test_new_images_are_suspected_at_the_stated_rate_and_copies_always() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(600, 4))
    ruler = Ruler(real, range(600))
    threshold = threshold_of(ruler.nearest(real, range(600))[0], 95)
    new, _ = ruler.nearest(rng.normal(size=(600, 4)))
    assert (new < threshold).mean() == pytest.approx(0.05, abs=0.03)
    copies, _ = ruler.nearest(real[:100] + 1e-3 * rng.normal(size=(100, 4)))
    assert (copies < threshold).all()


def test_the_threshold_is_a_quantile() -> None:
    distances = np.arange(101.0)
    assert threshold_of(distances, 95) == pytest.approx(5)
    assert threshold_of(distances, 100) == 0


def test_correlation() -> None:
    image = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float16)
    assert correlation(image, 2 * image + 1) == pytest.approx(1, abs=1e-3)
    assert correlation(image, -image) == pytest.approx(-1)
    assert np.isnan(correlation(image, np.ones((1, 4, 4))))
