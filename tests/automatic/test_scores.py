"""Cases that were left out are segmented by the runs that did not see them, once each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from radiffuse.automatic.folds import Folds
from radiffuse.automatic.scores import OutOfFold
from radiffuse.config import Machine
from radiffuse.data.dataset import Case
from radiffuse.data.scan import Array, Scan
from radiffuse.inference.predictor import Segmented

MASKS = {"a": np.eye(5, 7, dtype=np.uint8), "b": np.full((5, 7), 2, np.uint8)}


class Counted:
    """Segments by name, and counts how often."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, scan: Scan, name: str) -> Segmented:
        self.seen.append(name)
        probable = np.full((3, 5, 7), 0.25, np.float32)
        probable[1] = 0.5
        return Segmented(MASKS[name], np.ones((5, 7), np.float32), mean=probable)


def test_each_case_is_segmented_once_whatever_is_done_with_its_mask() -> None:
    found = OutOfFold(Folds((("a",), ("b",))), (), Machine())
    predictor: Any = Counted()
    found.opened = {0: predictor, 1: predictor}
    image = Scan(np.zeros((1, 5, 7), np.float32))
    for _ in range(3):
        for name, mask in MASKS.items():
            got: Array = found.mask(Case(name, (Path("x"),)), image)
            assert got.dtype == np.uint8
            assert np.array_equal(got, mask)
    assert predictor.seen == ["a", "b"]
    assert np.isclose(
        found.expected["a"][0], 2 * 0.5 / (1 + 0.5)
    )  # half of what the mask claims is there
