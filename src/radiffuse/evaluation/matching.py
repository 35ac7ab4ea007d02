"""Score label maps of one numbering against truth of another, organ by organ, by name.

The scores of an organ compare two sets of voxels, the organ and everything else. The names of the others do not matter,
so an organ that only one side labels is left out and needs no counterpart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import IGNORE
from ..data.class_names import name_key, organ, read_classes
from ..data.dataset import Dataset
from ..data.issues import some
from ..data.scan import Scan
from ..errors import InputError

BACKGROUND = 0
SIDES = ("prediction", "truth")


@dataclass(frozen=True)
class Matching:
    """Which values of two numberings mean the same organ. Of two of a kind, the prediction comes first.

    Attributes:
        classes: Background, then the shared organs in the order of the truth's values.
        names: Name by value, as given.
        numbers: Place in ``classes`` by value, of the shared organs.
    """

    classes: tuple[str, ...]
    names: tuple[Mapping[int, str], Mapping[int, str]]
    numbers: tuple[Mapping[int, int], Mapping[int, int]]

    def unshared(self, side: int) -> dict[int, str]:
        """Organ by value, of those that the other side does not label, which are not scored."""
        numbers = self.numbers[side]
        return {
            value: organ(name)
            for value, name in sorted(self.names[side].items())
            if value != BACKGROUND and value not in numbers
        }

    @property
    def same(self) -> bool:
        """Whether both sides number the same classes in the same way."""
        first, second = ({v: _key(name) for v, name in side.items()} for side in self.names)
        return first == second

    def rows(self) -> list[dict[str, Any]]:
        """One row per organ of either side: class, value in the prediction and in the truth ('' where none), scored."""
        values = [{number: value for value, number in side.items()} for side in self.numbers]
        rows: list[dict[str, Any]] = [
            {"class": name, "prediction": values[0][i], "truth": values[1][i], "scored": True}
            for i, name in enumerate(self.classes[1:], start=1)
        ]
        for side, title in enumerate(SIDES):
            for value, name in self.unshared(side).items():
                empty = {"class": name, "prediction": "", "truth": "", "scored": False}
                rows.append(empty | {title: value})
        return rows

    def lines(self) -> list[str]:
        """What was matched and what was not, to print."""
        lines = [f"scored by name: {', '.join(self.classes[1:])}"]
        for side, title in enumerate(SIDES):
            if names := list(self.unshared(side).values()):
                lines.append(f"only in the {title}, not scored: {some(names, 8)}")
        return lines

    def translate(self, scan: Scan, where: str, side: int) -> Scan:
        """A label map ``(1, *S)`` of the prediction (side 0) or truth (1, whose 255 stays) with values of ``classes``.

        Raises:
            InputError: The map, named by ``where``, holds a value that its numbering does not name.
        """
        result = np.zeros(scan.array.shape, np.int64)
        for value in (int(v) for v in np.unique(scan.array)):
            number = self.numbers[side].get(value, BACKGROUND)
            if side == 1 and value == IGNORE:
                number = IGNORE
            elif value not in self.names[side]:
                role = SIDES[side]
                problem = f"the {role} holds the value {value}, which its classes do not name"
                raise InputError(where, problem, f"Correct --{role}-classes, or the map")
            if number:
                result[scan.array == value] = number
        return scan.with_array(result)


def match(prediction: Mapping[int, str], truth: Mapping[int, str]) -> Matching:
    """Match two numberings, name by value, by the names of their classes; value 0 is the background.

    Raises:
        InputError: They share no class, or one of them gives two values the same name.
    """
    sides = [_by_key(names, role) for names, role in zip((prediction, truth), SIDES, strict=True)]
    shared = [key for key in sides[1] if key in sides[0]]
    if not shared:
        lists = [some([names[v] for v in sorted(names) if v]) for names in (prediction, truth)]
        problem = f"share no class ({'; '.join(lists)})"
        remedy = "Name both with --prediction-classes and --truth-classes; the same names, if only the spelling differs"
        raise InputError("prediction and truth", problem, remedy)
    classes = ("background", *(organ(truth[sides[1][key]]) for key in shared))
    first, second = ({side[key]: n for n, key in enumerate(shared, start=1)} for side in sides)
    return Matching(classes, (prediction, truth), (first, second))


def match_folder(
    masks: Path, truth: Dataset, prediction_classes: str | None, truth_classes: str | None
) -> Matching | None:
    """Match the classes of a folder of masks, named in its ``classes.json`` if at all, with those of a data set.

    Args:
        masks: The folder.
        truth: The data set, with the classes that it declares.
        prediction_classes: Replaces the classes of the masks, see ``data.class_names.read_classes``.
        truth_classes: Replaces the classes of the data set.

    Returns:
        None where values are compared: the numberings are the same, or not both have names.

    Raises:
        InputError: One side was named and the other has no names, or see ``match``.
    """
    file = masks / "classes.json"
    predicted = read_classes(str(file)) if file.is_file() else {}
    if all(re.fullmatch(r"class-\d+", name) for value, name in predicted.items() if value):
        predicted = {}  # placeholders, not names
    true = dict(enumerate(truth.classes)) if truth_classes is None else read_classes(truth_classes)
    if prediction_classes is not None:
        predicted = read_classes(prediction_classes)
    if predicted and true:
        matching = match(predicted, true)
        return None if matching.same else matching
    problem = "does not say what its classes are called"
    if truth_classes is not None and not predicted:
        raise InputError(masks, problem, "Say so with --prediction-classes")
    if prediction_classes is not None and not true:
        raise InputError(truth.root, problem, "Say so with --truth-classes")
    return None


def _key(name: str) -> tuple[str, ...]:
    return name_key(organ(name))


def _by_key(names: Mapping[int, str], role: str) -> dict[tuple[str, ...], int]:
    """Value by key of the name, without the background, in ascending order of the values."""
    values: dict[tuple[str, ...], int] = {}
    for value, name in sorted(names.items()):
        if value == BACKGROUND:
            continue
        if (key := _key(name)) in values:
            problem = f"of the {role} call both {values[key]} and {value} {organ(name)}"
            raise InputError("classes", problem, "Rename one of the two")
        values[key] = value
    return values
