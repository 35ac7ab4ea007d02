"""Folds: no patient and no site is parted, every case is left out once, sizes are alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from radiffuse.automatic.folds import make_folds
from radiffuse.data.dataset import Case, Dataset


def dataset(*groups: str, sites: str = "") -> Dataset:
    """A case for each group, ``a0``, ``a1`` and so on; ``sites`` gives each a letter."""
    cases = tuple(
        Case(f"c{i:03}", (Path(f"c{i}.png"),), Path("l.png"), group=g, site=sites[i : i + 1])
        for i, g in enumerate(groups)
    )
    return Dataset(Path("d"), "pairs", cases)


@pytest.mark.parametrize(("patients", "folds"), [(3, 3), (5, 5), (6, 5), (23, 5)])
def test_each_case_is_left_out_once_and_no_patient_is_parted(patients: int, folds: int) -> None:
    data = dataset(*(f"p{i % patients}" for i in range(2 * patients)))
    names = [case.name for case in data]
    found = make_folds(data, names, seed=1)
    assert found.by == "patient"
    assert len(found.parts) == folds
    assert sorted(name for part in found.parts for name in part) == names
    group = {case.name: case.group for case in data}
    owners = [{group[name] for name in part} for part in found.parts]
    assert sum(map(len, owners)) == patients
    assert max(map(len, found.parts)) - min(map(len, found.parts)) <= 2
    assert {*found.rest(0)} == {*names} - {*found.parts[0]}
    assert found == make_folds(data, names, seed=1)


def test_a_large_patient_shares_its_fold_with_few() -> None:
    data = dataset(*"aaaaaaaa", *"bcdefgh")
    found = make_folds(data, [case.name for case in data], seed=0)
    assert sorted(map(len, found.parts)) == [1, 2, 2, 2, 8]


def test_no_patient_is_left_out_of_one_or_two_whose_difference_is_chance() -> None:
    data = dataset("a", "a", "b", "c")
    assert make_folds(data, ["c000", "c001"], seed=0).parts == ()
    assert make_folds(data, ["c000", "c001", "c002"], seed=0).parts == ()
    assert len(make_folds(data, ["c000", "c002", "c003"], seed=0).parts) == 3
    sites = dataset("a", "b", "c", sites="xxy")
    assert make_folds(sites, ["c000", "c002"], seed=0).parts == ()
    assert len(make_folds(sites, ["c000", "c001", "c002"], seed=0).parts) == 2


def test_sites_are_not_parted_where_they_are_known() -> None:
    data = dataset(*"aabbccdd", sites="xxxyyyzz")
    names = [case.name for case in data]
    found = make_folds(data, names, seed=0)
    assert found.by == "site"
    site = {case.name: case.site for case in data}
    group = {case.name: case.group for case in data}
    assert len(found.parts) == 3
    for part in found.parts:  # patient b is of two sites, and counts to the first
        assert {group[n] for n in part}.isdisjoint(group[n] for n in {*names} - {*part})
        assert len({site[n] for n in part} - {"y"} | {"y"} & {site[n] for n in part}) <= 2
    assert make_folds(dataset(*"ab", sites="xx"), ["c000", "c001"], 0).by == "patient"
