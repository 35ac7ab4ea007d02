"""Classes by size."""

from __future__ import annotations

import numpy as np

from radiffuse.config import IGNORE
from radiffuse.evaluation.size_groups import class_sizes, size_groups


def test_the_size_is_the_mean_over_maps_that_have_the_class() -> None:
    maps = [np.array([[0, 1, 1], [2, IGNORE, 1]]), np.array([[0, 0, 1], [0, 0, 0]])]
    assert class_sizes(maps, ("background", "a", "b", "c")) == {"a": 2.0, "b": 1.0, "c": 0.0}


def test_thirds_by_size() -> None:
    groups = size_groups({"liver": 900, "vein": 3, "spleen": 200, "gland": 1, "kidney": 150})
    assert groups == {
        "gland": "small",
        "vein": "small",
        "kidney": "medium",
        "spleen": "medium",
        "liver": "big",
    }
    assert size_groups({"a": 1, "b": 2}) == {"a": "big", "b": "big"}
