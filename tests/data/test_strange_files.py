"""Data sets as hospitals and annotation programs export them: read right, or said in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from strange_files import COUNT, KINDS, Array

from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.checking.check import CheckResult, check_path
from radiffuse.data.layouts import survey
from radiffuse.errors import InputError


def checked(folder: Path) -> tuple[CheckResult | None, list[str], bool]:
    """The result, all that was said, each in one line, and whether there was an error."""
    try:
        result = check_path(folder, workers=0)
    except InputError as error:
        return None, [str(error)], True
    return result, [f"{i.problem}. {i.remedy}" for i in result.issues], bool(result.errors)


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_of_it(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    wanted = kind.make(tmp_path)
    result, said, refused = checked(tmp_path)
    assert refused == kind.refused, said
    assert any(kind.says in line for line in said) if kind.says else not said
    assert all("\n" not in line for line in said)
    if refused or result is None:
        return
    dataset, _ = survey(tmp_path)
    assert len(dataset.labelled) == kind.labelled
    assert len({case.group for case in dataset}) == kind.patients
    found = [read_case_image(case).array for case in dataset]
    if wanted is not None:
        match(found, wanted)
    for case in dataset.labelled:  # each box is drawn with 1, wherever its values came from
        label = read_case_label(case, read_case_image(case)).array
        assert set(np.unique(label)) == {0, 1}
        assert label.sum() == np.prod([n // 2 - n // 4 for n in label.shape[1:]])


def match(found: list[Array], wanted: list[Array]) -> None:
    """DICOM cases are named by hashes, so the order is that of the arrays themselves."""
    assert len(found) == len(wanted) == COUNT
    for first, second in zip(sorted(found, key=total), sorted(wanted, key=total), strict=True):
        np.testing.assert_array_equal(first, second)


def total(array: Array) -> float:
    return float(array.sum(dtype=np.float64))
