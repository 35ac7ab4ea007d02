"""Centers of classes carried from scan to scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from radiffuse.config import Data
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.inference.coordinates import carried_landmarks, centers


class TrueCoordinates(torch.nn.Module):
    """A regressor that knows: the brightness of the two channels is the place."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.scale = torch.tensor([10.0, 10.0])
        self.shift = shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows, columns = images.shape[2:]
        offset = float((images[0, 0] > 0).nonzero()[0][0]) + self.shift  # the landmark's row
        grid = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        return torch.stack([(grid[0] - offset) / 10, grid[1] / 10])[None].float()


def test_the_center_is_the_mean_place() -> None:
    label = np.zeros((6, 8), np.uint8)
    label[1:4, 2:5] = 2
    label[5, 7] = 255
    assert {k: v.tolist() for k, v in centers(label).items()} == {2: [2.0, 3.0]}


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_a_perfect_regressor_has_no_error_and_the_same_place_has(
    tmp_path: Path, shift: float
) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for i, row in enumerate((4, 10, 20)):
        image, label = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
        image[row : row + 3, 8:11], label[row : row + 3, 8:11] = 255, 1
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(label).save(tmp_path / "labels" / f"{i}.png")
    plan = Plan(2, ("image",), (), (32, 32), low=0.0, high=100.0)
    rows = list(
        carried_landmarks(
            TrueCoordinates(shift),  # type: ignore[arg-type]
            plan,
            open_dataset(tmp_path, Data()),
        )
    )
    assert [(r["source"], r["target"]) for r in rows] == [("0", "1"), ("1", "2"), ("2", "0")]
    assert [r["error"] for r in rows] == [0.0, 0.0, 0.0]
    assert [r["same_place"] for r in rows] == [6.0, 10.0, 16.0]
