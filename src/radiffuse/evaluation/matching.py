"""Score label maps of one numbering against truth of another, organ by organ, by name.

The scores of an organ compare two sets of voxels, those of the organ and all others. It makes no difference to them
what the others are called, so an organ that one side does not label takes no part, and need not be mapped to anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..config import IGNORE
from ..data.class_names import name_key, organ
from ..data.issues import some
from ..data.scan import Array, Scan
from ..errors import InputError

BACKGROUND = 0


@dataclass(frozen=True)
class Matching:
    """Which values of two numberings mean the same organ.

    Attributes:
        classes: Background, then the shared organs in the order of the truth's values.
        prediction: Name by value of the prediction, as it was given.
        truth: Name by value of the truth, as it was given.
        numbers: Place in ``classes`` by value, for prediction and truth; other values are 0.
    """

    classes: tuple[str, ...]
    prediction: Mapping[int, str]
    truth: Mapping[int, str]
    numbers: tuple[Mapping[int, int], Mapping[int, int]]

    @property
    def only_predicted(self) -> tuple[str, ...]:
        """Organs that the truth does not label; they are not scored."""
        return _others(self.prediction, self.numbers[0])

    @property
    def only_in_truth(self) -> tuple[str, ...]:
        """Organs that the prediction cannot contain; they are not scored."""
        return _others(self.truth, self.numbers[1])

    @property
    def same(self) -> bool:
        """Whether both sides number the same classes in the same way."""
        keys = [
            {v: _key(name) for v, name in side.items()} for side in (self.prediction, self.truth)
        ]
        return keys[0] == keys[1]

    def rows(self) -> list[dict[str, str | int | bool]]:
        """One row per organ of either side: class, value in the prediction and in the truth ('' where none), scored."""
        rows: list[dict[str, str | int | bool]] = []
        for number, name in enumerate(self.classes[1:], start=1):
            values = [next(v for v, n in side.items() if n == number) for side in self.numbers]
            rows.append(
                {"class": name, "prediction": values[0], "truth": values[1], "scored": True}
            )
        for place, side in enumerate((self.prediction, self.truth)):
            for value, name in side.items():
                if value != BACKGROUND and not self.numbers[place].get(value):
                    both: list[str | int] = ["", ""]
                    both[place] = value
                    rows.append(
                        {
                            "class": organ(name),
                            "prediction": both[0],
                            "truth": both[1],
                            "scored": False,
                        }
                    )
        return rows

    def lines(self) -> list[str]:
        """What was matched and what was not, for a person."""
        lines = [f"scored by name: {', '.join(self.classes[1:])}"]
        for title, names in (("prediction", self.only_predicted), ("truth", self.only_in_truth)):
            if names:
                lines.append(f"only in the {title}, not scored: {some(names, 8)}")
        return lines

    def translate(self, scan: Scan, where: str, side: int) -> Scan:
        """A label map with the values of ``classes``.

        Args:
            scan: ``(1, *S)`` integers.
            where: What an error names.
            side: 0 for a prediction; 1 for a truth, whose 255 stays 255.

        Raises:
            InputError: The map holds a value that its numbering does not name.
        """
        known, numbers = (self.prediction, self.truth)[side], self.numbers[side]
        result = np.zeros(scan.array.shape, np.int64)
        for value in (int(v) for v in np.unique(scan.array)):
            if side == 1 and value == IGNORE:
                _put(result, scan.array, value, IGNORE)
            elif value not in known:
                role = ("prediction", "truth")[side]
                problem = f"the {role} holds the value {value}, which its classes do not name"
                raise InputError(where, problem, f"Correct --{role}-classes, or the map")
            elif number := numbers.get(value):
                _put(result, scan.array, value, number)
        return scan.with_array(result)


def match(prediction: Mapping[int, str], truth: Mapping[int, str]) -> Matching:
    """Match two numberings by the names of their classes.

    Args:
        prediction: Name by value; value 0 is the background.
        truth: The same.

    Raises:
        InputError: They share no class, or one of them gives two values the same name.
    """
    sides = [_by_key(side, role) for side, role in ((prediction, "prediction"), (truth, "truth"))]
    shared = [key for key in sides[1] if key in sides[0]]
    if not shared:
        problem = f"share no class ({_list(prediction)}; {_list(truth)})"
        remedy = "Name both with --prediction-classes and --truth-classes; the same names, if only the spelling differs"
        raise InputError("prediction and truth", problem, remedy)
    classes = ("background", *(organ(truth[sides[1][key]]) for key in shared))
    numbers = tuple({side[key]: n for n, key in enumerate(shared, start=1)} for side in sides)
    return Matching(classes, prediction, truth, (numbers[0], numbers[1]))


def _key(name: str) -> tuple[str, ...]:
    return name_key(organ(name))


def _by_key(side: Mapping[int, str], role: str) -> dict[tuple[str, ...], int]:
    """Value by key of the name, without the background, in ascending order of the values."""
    found: dict[tuple[str, ...], int] = {}
    for value, name in sorted(side.items()):
        if value == BACKGROUND:
            continue
        if (key := _key(name)) in found:
            problem = f"of the {role} call both {found[key]} and {value} {organ(name)}"
            raise InputError("classes", problem, "Rename one of the two")
        found[key] = value
    return found


def _others(side: Mapping[int, str], numbers: Mapping[int, int]) -> tuple[str, ...]:
    return tuple(organ(n) for v, n in sorted(side.items()) if v != BACKGROUND and v not in numbers)


def _put(result: Array, source: Array, value: int, number: int) -> None:
    result[source == value] = number


def _list(side: Mapping[int, str]) -> str:
    names = [name for value, name in sorted(side.items()) if value != BACKGROUND]
    return some(names)
