"""Masks of which none belongs to a case of the truth: what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import radiffuse
from radiffuse.errors import InputError


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ("a.dcm", "holds DICOM-SEG, which is not read. Predict without format"),
        ("b.png", "named like a case of the truth: b.png for one, where a case is a. Give masks"),
        ("note.txt", "named like a case of the truth. Give the folder of radiffuse predict"),
    ],
)
def test_why_no_mask_is_of_a_case(tmp_path: Path, mask: str, words: str) -> None:
    truth, masks = tmp_path / "truth", tmp_path / "masks"
    for name, bright in (("images", 200), ("labels", 1)):
        (truth / name).mkdir(parents=True)
        Image.fromarray(np.eye(9, dtype=np.uint8) * bright).save(truth / name / "a.png")
    masks.mkdir()
    (masks / mask).touch()
    with pytest.raises(InputError, match=words):
        radiffuse.evaluate(masks=masks, truth=truth, out=tmp_path / "out")
