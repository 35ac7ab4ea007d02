"""Denoising on held-out images: at which timesteps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from radiffuse.config import Diffusion
from radiffuse.objectives.denoising import Denoising


@pytest.mark.parametrize(
    ("images", "total", "expected"),
    [
        (1, 1000, [500]),  # at timestep 0 no network tells the noise, whatever it has learned
        (4, 1000, [125, 375, 625, 875]),
        (5, 3, [0, 0, 1, 2, 2]),
    ],
)
def test_held_out_images_are_seen_in_the_middle_of_equal_parts_of_the_timesteps(
    images: int, total: int, expected: list[int]
) -> None:
    seen: list[int] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            seen.extend(t.tolist())
            return torch.zeros_like(x)

    process = Diffusion(num_train_timesteps=total)
    task = Denoising(Watching(), process, torch.zeros(images, 1, 4, 4))
    task.validate(task.build(), torch.device("cpu"))
    assert seen == expected
