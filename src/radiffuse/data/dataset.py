"""A data set is a list of cases. What a folder holds is found in ``layouts``; here is what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1
"""What a data set says of a finding; what it does not tell is unknown, which is neither of these."""


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        name: Unique in the data set and safe as a file name; masks are written under it.
        images: One path per channel, in the order of ``Dataset.channels``. A DICOM series is its folder,
            or the list of its files in ``series``.
        label: Label map, or None. For COCO it is the JSON file, and ``label_item`` the image id in it; where each
            class is a file of its own, it is the folder of ``label_parts``.
        label_item: Which entry of ``label`` belongs to this case, for containers of many labels.
        label_parts: Masks of one class each, class 1 first, or () where one file holds all classes.
        group: Patient. A split never parts a group.
        target: Name of the class of the whole image (class folders, tables), or None.
        split: ``"train"``, ``"validation"`` or ``"test"`` where the data set says so, or None.
        series: Files of a DICOM series in slice order, or () for every other format.
        fold: Fold in which this case is validation, where the data set has folds, or None.
        file_channels: Channels that a single four-dimensional file holds.
        site: Institution or scanner, where the data set says so, or ''.
        place: Place in the file that lists the sites, or 0.
        label_values: Values of the label map that each class has, background first; () where they are 0, 1, 2, ...
        ignore_value: Value of the label map that is not to be counted, beside 255, or None.
        view: Such as ``"pa"``, ``"ap"`` or ``"lateral"``, where the data set says so, or ''.
        findings: Names of findings with ``PRESENT``, ``ABSENT`` or ``UNCERTAIN``; unknown ones are not in it.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    label_item: str | None = None
    label_parts: tuple[Path, ...] = ()
    group: str = ""
    target: str | None = None
    split: str | None = None
    fold: int | None = None
    series: tuple[Path, ...] = ()
    file_channels: int = 1
    site: str = ""
    place: int = 0
    label_values: tuple[tuple[int, ...], ...] = ()
    ignore_value: int | None = None
    view: str = ""
    findings: tuple[tuple[str, int], ...] = ()

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The files that the label is made of."""
        return self.label_parts or ((self.label,) if self.label else ())


@dataclass(frozen=True)
class Dataset:
    """Cases found under one path.

    Attributes:
        root: The folder or table that was given.
        layout: Name of the layout that was recognised, see ``layouts.LAYOUTS``.
        cases: Sorted by name.
        classes: Names by label value, background first; () where there are no label maps, or where the
            data set does not declare them (then they are found by the fingerprint).
        channels: Names of the channels, such as ``("CT",)`` or ``("t1", "t2")``.
        passed_over: Files of the cases that ``Data.only`` leaves out.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    classes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("image",)
    passed_over: frozenset[Path] = frozenset()

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def filter(self, keep: Callable[[Case], bool]) -> Dataset:
        """The same data set with the cases for which ``keep`` is true."""
        return replace(self, cases=tuple(case for case in self.cases if keep(case)))

    def joined(self, other: Dataset) -> Dataset:
        """With the cases of another data set behind its own.

        Raises:
            InputError: A name is in both, or the channels are others.
        """
        if other.channels != self.channels:
            raise InputError(
                other.root,
                f"has the channels {', '.join(other.channels)}, {self.root} has {', '.join(self.channels)}",
                "Use images of the same channels",
            )
        names = {case.name for case in self}
        for case in other:
            if case.name in names:
                raise InputError(
                    other.root, f"has a case {case.name}, as {self.root} has", "Rename one of them"
                )
        return replace(self, cases=(*self.cases, *other.cases))

    @property
    def labelled(self) -> Dataset:
        """Only the cases that have a label map."""
        return self.filter(lambda case: case.label is not None)
