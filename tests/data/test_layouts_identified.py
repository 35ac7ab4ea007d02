"""Labelled DICOM images: their headers say which are of one patient, and nothing of that is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from layout_files import dicom, film, film_label, volume_label

from radiffuse.config import Data, Fit, Split
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.layouts.dicom_headers import reading_headers_once
from radiffuse.data.readers import dicomfile
from radiffuse.data.splits import Splits, load_splits
from radiffuse.train.cases import with_more
from radiffuse.train.further_images import read_pools


def labelled(root: Path, patients: Sequence[str], *, series: bool = True, first: int = 0) -> Path:
    """A scan with a label for each entry: a folder of slices, or a film."""
    for number, patient in enumerate(patients, start=first):
        for i in range(3 if series else 1):
            place = f"s{number}/{i}.dcm" if series else f"s{number}.dcm"
            modality, position = ("CT", i) if series else ("DX", None)
            dicom(
                root / "images" / place, series=number, instance=10 * number + i,
                patient=patient, modality=modality, position=position,
            )  # fmt: skip
        if series:
            volume_label(root / "labels" / f"s{number}.nii.gz", size=(8, 8, 3))
        else:
            film_label(root / "labels" / f"s{number}.png", size=(8, 8))
    return root


@pytest.mark.parametrize("series", [True, False])
def test_scans_of_one_patient_are_not_parted(tmp_path: Path, series: bool) -> None:
    patients = [f"{number // 2:03}" for number in range(12)]
    patients[1] = "0"  # as a spreadsheet leaves 000
    dataset = open_dataset(labelled(tmp_path / "data", patients, series=series))
    assert dataset.layout == "pairs"
    assert dataset.patients_named
    groups = {case.name: case.group for case in dataset}
    assert len(set(groups.values())) == 6
    assert all(groups[f"s{n}"] == groups[f"s{n + 1}"] for n in range(0, 12, 2))
    splits = load_splits(dataset, Split(), tmp_path / "cache")
    held = {groups[name] for name in (*splits.test, *splits.validation)}
    assert held.isdisjoint(groups[name] for name in splits.train)


def test_no_patient_can_be_computed_from_a_number(tmp_path: Path) -> None:
    dataset = open_dataset(labelled(tmp_path / "data", ["1001", "1001", "1002"]))
    known = {hashlib.sha256(n.encode()).hexdigest()[:12] for n in ("1001", "1002")}
    for case in dataset:
        assert "100" not in case.group
        assert case.group.removeprefix("patient-") not in known
    again = open_dataset(labelled(tmp_path / "other", ["1001", "1001", "1002"]))
    assert [case.group for case in again] == [case.group for case in dataset]


def test_what_the_user_says_goes_before_headers(tmp_path: Path) -> None:
    root = labelled(tmp_path, ["A", "A", "B"], series=False)
    grouped = open_dataset(root, Data(group=r"(s\d)"))
    assert [case.group for case in grouped] == ["s0", "s1", "s2"]
    (root / "patients.csv").write_text("image,patient\ns0,x\ns1,y\n")
    with_table = open_dataset(root)
    assert [case.group for case in with_table][:2] == ["x", "y"]
    assert with_table.cases[2].group.startswith("patient-")


def test_names_of_files_and_headers_both_count(tmp_path: Path) -> None:
    """Archives that remove names give each examination a PatientID of its own."""
    root = tmp_path / "data"
    places = {"patient1_a": "X", "patient1_b": "Y", "patient2_a": "Z", "c": "Z", "patient3_a": "W"}
    for number, (place, patient) in enumerate(places.items()):
        path = root / "images" / f"{place}.dcm"
        dicom(path, series=number, instance=number, patient=patient, modality="DX")
        film_label(root / "labels" / f"{place}.png", size=(8, 8))
    film(root / "images" / "patient1_d.png", size=(8, 8))
    film_label(root / "labels" / "patient1_d.png", size=(8, 8))
    groups = {case.name: case.group for case in open_dataset(root)}
    assert groups["patient1_a"] == groups["patient1_b"] == groups["patient1_d"]
    assert groups["patient2_a"] == groups["c"]
    assert len(set(groups.values())) == 3


def test_one_word_for_all_says_nothing(tmp_path: Path) -> None:
    dataset, issues = survey(labelled(tmp_path, ["ANONYMOUS"] * 3, series=False))
    assert [case.group for case in dataset] == ["s0", "s1", "s2"]
    assert not dataset.patients_named
    assert [issue.severity for issue in issues] == ["warning"]
    assert "has 3 DICOM images with the same PatientID" in issues[0].problem
    assert "ANONYMOUS" not in str(issues)


@pytest.mark.parametrize("table", [False, True])
def test_scans_of_held_out_patients_in_another_folder_are_left_out(
    tmp_path: Path, table: bool
) -> None:
    """In a pool and in ``--with``, where the folder has names of its own for the patients, or a table has some."""
    root = labelled(tmp_path / "data", ["A", "B", "007"], series=False)
    more = labelled(tmp_path / "more", ["B", "7", "C", "D"], series=False, first=10)
    pool, people = tmp_path / "pool", ["C", "7", "7", "A", "E"]
    for n, patient in enumerate(people, start=20):
        dicom(pool / f"{n}.dcm", series=n, instance=n, patient=patient, modality="DX")
    if table:
        (root / "patients.csv").write_text("image,patient\ns0,x\ns1,y\ns2,z\n")
    dataset = open_dataset(root)
    splits = Splits(("s0",), ("s1",), ("s2",), (("s0",),))
    (left,) = read_pools(Fit(unlabelled=(str(pool),)), dataset, splits)
    assert sorted(case.images[0].stem for case in left) == ["20", "23", "24"]
    held, learned = splits.held_out(dataset), dataset.filter(lambda case: case.name == "s0")
    both = with_more(learned, [str(more)], Data(), held=held, labelled=True)
    assert [case.name for case in both] == ["s0", "s12", "s13"]


def test_one_word_for_all_leaves_out_nobody(tmp_path: Path) -> None:
    root = labelled(tmp_path / "data", ["ANONYMOUS"] * 3, series=False)
    pool = tmp_path / "pool"
    for n in range(20, 22):
        dicom(pool / f"{n}.dcm", series=n, instance=n, patient="ANONYMOUS", modality="DX")
    splits = Splits(("s0",), ("s1",), ("s2",), (("s0",),))
    (left,) = read_pools(Fit(unlabelled=(str(pool),)), open_dataset(root), splits)
    assert len(left) == 2


def test_an_image_without_a_header_is_named_by_who_reads_it(tmp_path: Path) -> None:
    root = labelled(tmp_path, ["A", "A", "B"], series=False)
    (root / "images" / "s1.dcm").write_bytes(b"no DICOM")
    groups = [case.group for case in open_dataset(root)]
    assert groups[1] == "s1"
    assert len(set(groups)) == 3


def test_headers_are_read_once_within_a_choice_but_for_files_that_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = labelled(tmp_path / "data", ["A", "B", "C"], series=False)
    pool, read = tmp_path / "pool", list[str]()
    for n, patient in enumerate("CDE", start=20):
        dicom(pool / f"{n}.dcm", series=n, instance=n, patient=patient, modality="DX")
    load = dicomfile.load

    def counted(path: Path, tags: Sequence[str]) -> object:
        read.append(path.name)
        return load(path, tags)

    monkeypatch.setattr(dicomfile, "load", counted)
    splits = Splits(("s0",), ("s1",), ("s2",), (("s0",),))

    def left() -> list[str]:
        (kept,) = read_pools(Fit(unlabelled=(str(pool),)), open_dataset(root), splits)
        return sorted(case.images[0].stem for case in kept)

    with reading_headers_once():
        assert left() == ["21", "22"]
        once = sorted(read)
        assert left() == ["21", "22"]
        assert sorted(read) == once
        dicom(pool / "22.dcm", series=22, instance=22, patient="B-of-old", modality="DX")
        dicom(pool / "21.dcm", series=21, instance=21, patient="B", modality="DX")
        os.utime(pool / "21.dcm", ns=(0, 0))
        assert left() == ["22"]
        assert {*read[len(once) :]} == {"21.dcm", "22.dcm"}
    read.clear()
    left()
    assert {*read} == {*once}  # nothing is kept
