"""A data set is a list of cases; ``layouts`` finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1
"""Values of a finding; one that the data set does not mention has none."""


@dataclass(frozen=True)
class Case:
    """One examination.

    Attributes:
        name: Unique in the data set and safe as a file name; masks are written under it.
        images: One path per channel, in the order of ``Dataset.channels``; of a DICOM series its folder.
        label: Label map, or the COCO file, or the folder of ``label_parts``, or the first of them.
        label_item: Image id in the COCO file.
        label_parts: Masks of one class each, class 1 first; or, where ``label`` is the first of them, label maps
            that together are one. () where one file holds all.
        group: Patient, which a split keeps whole.
        target: Name of the class of the whole image.
        split: ``"train"``, ``"validation"`` or ``"test"``, declared by the data set.
        fold: Fold in which this case is validation.
        series: Files of a DICOM series.
        file_channels: Channels that a single four-dimensional file holds.
        site: Institution or scanner.
        place: Place in the file that lists the sites.
        label_values: Values in the label map of each class, background first; (): 0, 1, 2, ...
        label_threshold: Values from this one on are foreground, lower ones background; None: classes.
        ignore_value: Value in the label map that is ignored, besides 255.
        view: Such as ``"pa"``, ``"ap"`` or ``"lateral"``.
        findings: Names with ``PRESENT``, ``ABSENT`` or ``UNCERTAIN``.
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
    label_threshold: float | None = None
    ignore_value: int | None = None
    view: str = ""
    findings: tuple[tuple[str, int], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, and of a DICOM series its folder."""
        return (*self.images, *self.series, *self.label_files)

    @property
    def own_values(self) -> bool:
        """Whether the numbers in the label map are its own, without a word of the user about them."""
        stated = (
            self.label_values or self.label_threshold is not None or self.label_item is not None
        )
        return self.label is not None and not stated and self.ignore_value is None

    @property
    def label_files(self) -> tuple[Path, ...]:
        """All files of the label."""
        return self.label_parts or ((self.label,) if self.label else ())


def counted_patients(facts: Mapping[str, Any]) -> str:
    """The number of patients, from a summary or data.json; it says so where it counts files."""
    patients = facts.get("patients")
    number = str(patients if isinstance(patients, int | str) else len(patients or ()))
    named = facts.get("patients_named", True)
    return number if named else f"{number} (no patient information: each file counts as one)"


@dataclass(frozen=True)
class Dataset:
    """Cases found under one path.

    Attributes:
        root: The given folder or file.
        layout: A key of ``layouts.LAYOUTS``.
        cases: Sorted by name.
        classes: Names by label value, background first; () where not declared.
        channels: Names of the channels, such as ``("CT",)`` or ``("t1", "t2")``.
        passed_over: Files known to belong to no case, such as those that ``Data.only`` leaves out.
        patients_named: Whether anything names patients; else each case counts as one.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    classes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("image",)
    passed_over: frozenset[Path] = frozenset()
    patients_named: bool = False

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def filter(self, keep: Callable[[Case], bool]) -> Dataset:
        """The data set with those cases alone for which ``keep`` is true."""
        return replace(self, cases=tuple(case for case in self.cases if keep(case)))

    def joined(self, other: Dataset) -> Dataset:
        """The data set with the cases of another one behind its own.

        Raises:
            InputError: A name is in both, or the channels differ.
        """
        if other.channels != self.channels:
            own, others = ", ".join(self.channels), ", ".join(other.channels)
            problem = f"has the channels {others}, {self.root} has {own}"
            raise InputError(other.root, problem, "Use images of the same channels")
        names = {case.name for case in self}
        for case in other:
            if case.name in names:
                problem = f"has a case {case.name}, as {self.root} has"
                raise InputError(other.root, problem, "Rename one of them")
        named = self.patients_named or other.patients_named
        return replace(self, cases=(*self.cases, *other.cases), patients_named=named)

    @property
    def labelled(self) -> Dataset:
        """Only the cases that have a label map."""
        return self.filter(lambda case: case.label is not None)
