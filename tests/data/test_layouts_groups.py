"""Patients: from an expression, a table, or well-known file names."""

from pathlib import PurePosixPath

import pytest
from layout_files import film, film_label, pairs
from PIL import Image

from radiffuse.config import Data
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.layouts.patients import known_patient
from radiffuse.data.provenance import descent_from, of_other_patients
from radiffuse.errors import InputError


def groups(dataset):
    return {case.name: case.group for case in dataset}


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person7_virus_15", "person7"),
        ("person7_bacteria_16", "person7"),
        ("IM-0115-0001", "normal115"),
        ("IM-0115-0001-0002", "normal115"),
        ("NORMAL2-IM-0115-0001", "normal115"),
        ("NORMAL2-IM-0116-0001", "normal116"),
        ("person7", ""),
        ("CIM-0115-0001", ""),
        ("somebody_person7_virus_15", ""),
        ("sub-01_ses-2_T1w", "sub-01"),
        ("sub-01/ses-2/scan", "sub-01"),
        ("patient001/patient001_frame12", "patient001"),
        ("Patient 7/slice_03", "Patient 7"),
        ("train/subject-2-T1", "subject-2"),
        ("patient7/patient8_frame1", "patient8"),
        ("BraTS-GLI-00046-001/BraTS-GLI-00046-001-t1n", "BraTS-GLI-00046"),
        ("10032/10032_1000032_t2w", "10032"),
        ("10032_2000032_t2w", ""),
        ("patients/scan", ""),
        ("outpatient3/scan", ""),
        ("BraTS20_Training_001_flair", ""),
    ],
)
def test_well_known_names(name, patient):
    assert known_patient(PurePosixPath(f"{name}.png")) == patient


def test_normals_and_ill_children_of_the_same_number_are_distinct():
    normal, ill = PurePosixPath("IM-0007-0001.png"), PurePosixPath("person7_virus_1.png")
    assert known_patient(normal) != known_patient(ill)


def test_two_frames_of_a_heart_are_of_one_patient(tmp_path):
    for patient in ("patient001", "patient002"):
        for frame in ("frame01", "frame12"):
            film(tmp_path / patient / f"{patient}_{frame}.png", seed=int(frame[-2:]))
            film_label(tmp_path / patient / f"{patient}_{frame}_gt.png")
    assert {case.group for case in open_dataset(tmp_path)} == {"patient001", "patient002"}


@pytest.mark.parametrize("word", ["Patient_", "case000"])
def test_folders_of_patients_are_no_classes(tmp_path, word):
    for patient in range(3):
        for slice_ in range(4):
            film(tmp_path / f"{word}{patient}" / f"{slice_}.png", seed=4 * patient + slice_)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "images"
    assert {case.group for case in dataset} == {f"{word}{patient}" for patient in range(3)}


def test_patients_csv_by_path_file_name_or_stem(tmp_path):
    pairs(tmp_path, count=4)
    (tmp_path / "patients.csv").write_text(
        "image,patient,view\nc0,p1,PA\nc1.png,p1,AP\nimages/c2.png,p2,PA\n"
    )
    dataset, issues = survey(tmp_path)
    assert groups(dataset) == {"c0": "p1", "c1": "p1", "c2": "p2", "c3": "c3"}
    assert [issue.severity for issue in issues] == ["warning"]
    assert "does not list 1 images: images/c3.png" in issues[0].problem


def test_a_drawn_pair_may_descend_from_thousands_of_patients(tmp_path):
    names = [f"patient-{i:06}" for i in range(20_000)]
    rows = "\n".join(f"{i}.png,{'+'.join(names)}" for i in range(2))
    (tmp_path / "patients.csv").write_text(f"image,patient\n{rows}\n")
    for i in range(2):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    case = open_dataset(tmp_path).cases[0]
    assert descent_from({names[-1]})(case)
    assert not descent_from({"patient-020000"})(case)


@pytest.mark.parametrize(
    ("held", "group"),
    [
        ("7", "007"),
        ("007", "7"),
        ("7", "7.0"),
        ("Smith", "SMITH"),
        ("Müller", "Mu\u0308ller"),
        ("7", "3+007"),
        ("a+7", "x+A+07"),
    ],
)
def test_a_patient_is_held_out_however_another_folder_spells_the_name(tmp_path, held, group):
    """Spreadsheets take leading zeros away from one table and not from the other."""
    folders = {"labelled": held, "pool": group}
    for name, patient in folders.items():
        film(tmp_path / name / "a.png", seed=len(name))
        film(tmp_path / name / "b.png", seed=len(name) + 20)
        rows = f"image,patient\na,{patient}\nb,{name}\n"
        (tmp_path / name / "patients.csv").write_text(rows, encoding="utf-8")
    labelled, pool = (open_dataset(tmp_path / name) for name in folders)
    assert [case.name for case in of_other_patients(pool, {labelled.cases[0].group})] == ["b"]
    assert len(of_other_patients(pool, {"17", "70", "x", "A"})) == 2 - (group == "x+A+07")


def test_patients_csv_that_contradicts_itself(tmp_path):
    pairs(tmp_path, count=1)
    (tmp_path / "patients.csv").write_text("image,patient\nc0,p1\nc0,p2\n")
    with pytest.raises(InputError, match=r"patients\.csv, line 3: gives c0 a second patient"):
        open_dataset(tmp_path)
    (tmp_path / "patients.csv").write_text("image,person\nc0,p1\n")
    with pytest.raises(InputError, match="lacks the column"):
        open_dataset(tmp_path)


def test_an_expression_goes_before_everything_else(tmp_path):
    for name in ("s1_a", "s1_b", "s2_a"):
        film(tmp_path / "images" / f"{name}.png")
        film_label(tmp_path / "labels" / f"{name}.png")
    (tmp_path / "patients.csv").write_text("image,patient\ns1_a,x\ns1_b,y\ns2_a,x\n")
    dataset = open_dataset(tmp_path, Data(group=r"/(s\d)_"))
    assert groups(dataset) == {"s1_a": "s1", "s1_b": "s1", "s2_a": "s2"}


def test_expressions_that_do_not_work(tmp_path):
    pairs(tmp_path)
    for expression, problem in [("(", "no regular expression"), ("c", "no group in parentheses")]:
        with pytest.raises(InputError, match=problem):
            open_dataset(tmp_path, Data(group=expression))
    with pytest.raises(InputError, match=r"finds no patient in 2 paths: images/c1\.png"):
        open_dataset(tmp_path, Data(group="(c0)"))
