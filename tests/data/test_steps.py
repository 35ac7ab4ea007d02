"""What is done to predicted masks, in the words of a report."""

from __future__ import annotations

import pytest

from radiffuse.data.steps import steps_in_words

CLASSES = ("background", "lung", "heart")


@pytest.mark.parametrize(
    ("steps", "dims", "words"),
    [
        (("1=keep:2", "2=keep:1"), 2, "lung: the 2 largest pieces are kept; heart: the largest piece is kept"),
        (("1=largest", "2=keep:1"), 2, "lung, heart: the largest piece is kept"),
        (("1=islands:0.00833333",), 2, "lung: pieces below 0.83 % of the image are dropped"),
        (("2=drop:9400",), 3, "heart: pieces below 9400 mm³ are dropped"),
        (("drop:80", "fill"), 2, "every class: pieces below 80 mm² are dropped; every class: holes are filled"),
        (("9=keep:2",), 2, "class 9: the 2 largest pieces are kept"),
        (("open:9:2",), 3, "every class: opened by 9 voxels"),
        (("none",), 2, "none"),
        ((), 3, "none"),
    ],
)  # fmt: skip
def test_steps_are_said_in_words(steps: tuple[str, ...], dims: int, words: str) -> None:
    assert steps_in_words(steps, CLASSES, dims) == words
