"""Centers of classes carried from scan to scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from radiffuse.config import Data
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.inference import coordinates
from radiffuse.inference.coordinates import carried_landmarks, carry, centers


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


def test_nearness_is_measured_in_lengths() -> None:
    """One unit along the first axis is 10 long, three along the second are 3."""
    source = torch.zeros(2, 1, 1)
    target = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]])
    assert carry((0, 0), source, target, torch.tensor([10.0, 1.0])) == (0, 1)
    assert carry((0, 0), source, target, torch.tensor([1.0, 1.0])) == (0, 0)


def test_errors_are_in_millimeters_and_the_same_place_is_a_share_of_the_extent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scans of 8 and 16 voxels of 2 mm, in whose coordinates the second begins 5 voxels earlier.

    The center at voxel 2 lands at 7, the true one is at 9: 4 mm. The same share of the extent is (2 + 1/2) / 8, so
    voxel 4.5 of 16: 9 mm off. Back, 9 lands at 4 instead of 2: 4 mm; 9.5 / 16 of 8 is voxel 4.25: 4.5 mm off.
    """
    import nibabel

    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, length, place in (("a", 8, 2), ("b", 16, 9)):
        label = np.zeros((length, 6, 4), np.uint8)
        label[place, 3, 1] = 1
        for folder, array in (("images", label.astype(np.int16)), ("labels", label)):
            nibabel.save(nibabel.Nifti1Image(array, affine), tmp_path / folder / f"{name}.nii.gz")

    def places(regressor: object, image: torch.Tensor, size: object) -> torch.Tensor:
        index = torch.from_numpy(np.indices(image.shape[1:])).float()
        index[0] -= 5 if image.shape[1] == 16 else 0
        return index

    monkeypatch.setattr(coordinates, "coordinate_map", places)
    plan = Plan(3, ("CT",), (), (8, 8, 8), (2.0, 1.0, 1.0), intensity="window", low=0, high=1)
    dataset = open_dataset(tmp_path, Data())
    regressor = TrueCoordinates()
    regressor.scale = torch.ones(3)
    rows = list(carried_landmarks(regressor, plan, dataset))  # type: ignore[arg-type]
    assert [row["error"] for row in rows] == pytest.approx([4.0, 4.0])
    assert [row["same_place"] for row in rows] == pytest.approx([9.0, 4.5])


def test_landmarks_of_a_plan_that_crops(tmp_path: Path) -> None:
    """Bodies of 16 pixels in black, each cropped to its body: the centers are found there, 6 rows apart."""
    from PIL import Image

    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i, (top, left, row) in enumerate([(1, 9, 2), (14, 4, 8)]):
        label = np.zeros((32, 32), np.uint8)
        label[top + row :, left + 5 :][:3, :3] = 1
        image = 200 * label
        image[top : top + 16, left : left + 16] += 50
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(label).save(tmp_path / "labels" / f"{i}.png")
    plan = Plan(2, ("image",), (), (16, 16), low=0.0, high=100.0, crop="nonzero")
    dataset = open_dataset(tmp_path, Data())
    rows = list(carried_landmarks(TrueCoordinates(), plan, dataset))  # type: ignore[arg-type]
    assert [row["error"] for row in rows] == [0.0, 0.0]
    assert [row["same_place"] for row in rows] == [6.0, 6.0]
