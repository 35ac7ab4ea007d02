"""The public chest sets, on small folders in their layouts."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radiffuse.config import Data
from radiffuse.data.dataset import ABSENT, PRESENT, UNCERTAIN, Case
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.errors import InputError

CHEXPERT = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices"
)


def film(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


def by_file(path: Path, data: Data | None = None) -> dict[str, Case]:
    dataset = open_dataset(path, data)
    assert dataset.layout == "chest"
    return {case.images[0].name: case for case in dataset}


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    rows = [
        "00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,58,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,No Finding,1,1,58,M,AP,2682,2749,0.143,0.143,",
        "00000002_000.png,Effusion,0,2,81,M,PA,2500,2048,0.171,0.171,",
        "00000003_000.png,Effusion,0,3,81,F,PA,2500,2048,0.171,0.171,",
    ]
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (tmp_path / "test_list.txt").write_text("00000002_000.png\n00000003_000.png\n")
    for i, name in enumerate(("00000001_000", "00000001_001", "00000002_000")):
        film(tmp_path / f"images_00{i // 2 + 1}" / "images" / f"{name}.png")
    return tmp_path


def test_nih(nih: Path) -> None:
    cases = by_file(nih)
    first = cases["00000001_000.png"]
    assert (first.group, first.view, first.split) == ("1", "pa", "train")
    findings = dict(first.findings)
    assert len(findings) == 14
    assert [n for n, v in findings.items() if v == PRESENT] == [
        "cardiomegaly",
        "pleural_thickening",
    ]
    assert set(dict(cases["00000001_001.png"].findings).values()) == {ABSENT}
    assert cases["00000002_000.png"].split == "test"
    _, issues = survey(nih)
    assert [(i.severity, "lacks 1 films" in i.problem) for i in issues] == [("warning", True)]


def test_views_and_one_finding_as_class(nih: Path) -> None:
    cases = by_file(nih, Data(finding="Effusion", views=("PA",)))
    assert {n: c.target for n, c in cases.items()} == {
        "00000001_000.png": "no effusion",
        "00000002_000.png": "effusion",
    }
    with pytest.raises(InputError, match="is no finding of"):
        open_dataset(nih, Data(finding="covid"))


def test_a_finding_that_nih_does_not_have_is_an_error(nih: Path) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Cardiomegaly|", "Cardiomegally|"))
    with pytest.raises(InputError, match=r"line 2.*cardiomegally"):
        open_dataset(nih)


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0-small/", "CheXpert-v1.0/", ""])
def test_chexpert_keeps_uncertain_and_unknown_apart(tmp_path: Path, prefix: str) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    frontal, lateral = (
        f"train/patient00001/study1/view{i}_{view}.jpg"
        for i, view in ((1, "frontal"), (2, "lateral"))
    )
    valid = "valid/patient64541/study1/view1_frontal.jpg"
    for path in (frontal, lateral, valid):
        film(root / path)
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}\n"
    (root / "train.csv").write_text(
        header
        + f"{prefix}{frontal},Female,68,Frontal,AP,,,0.0,,,,-1.0,,,,1.0,,,\n"
        + f"{prefix}{lateral},Female,68,Lateral,,1.0,,,,,,,,,,,,,\n"
    )
    (root / "valid.csv").write_text(
        header + f"{prefix}{valid},Male,73,Frontal,PA" + ",0.0" * 14 + "\n"
    )
    dataset = open_dataset(root)
    assert [case.split for case in dataset] == ["train", "train", "validation"]
    assert [case.group for case in dataset] == ["patient00001", "patient00001", "patient64541"]
    assert [case.view for case in dataset] == ["ap", "lateral", "pa"]
    assert dict(dataset.cases[0].findings) == {
        "cardiomegaly": ABSENT,
        "consolidation": UNCERTAIN,
        "pleural effusion": PRESENT,
    }
    targets = [case.target for case in open_dataset(root, Data(finding="consolidation"))]
    assert targets == [None, None, "no consolidation"]


def test_mimic_with_compressed_tables(tmp_path: Path) -> None:
    path = "files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg"
    film(tmp_path / path)
    tables = {
        "metadata": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition\n"
        "02aa804e-bde0afdd,10000032,50414267,CHEST (PA AND LAT),LATERAL\n",
        "chexpert": f"subject_id,study_id,{CHEXPERT}\n10000032,50414267,,,,,,-1.0,,,,,1.0,,,\n",
        "split": "dicom_id,study_id,subject_id,split\n02aa804e-bde0afdd,50414267,10000032,validate\n",
    }
    for kind, text in tables.items():
        with gzip.open(tmp_path / f"mimic-cxr-2.0.0-{kind}.csv.gz", "wt") as file:
            file.write(text)
    case = by_file(tmp_path)["02aa804e-bde0afdd.jpg"]
    assert (case.group, case.view, case.split) == ("10000032", "lateral", "validation")
    assert dict(case.findings) == {"edema": UNCERTAIN, "pleural effusion": PRESENT}
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError, match="is no readable table"):
        open_dataset(tmp_path)


def test_padchest(tmp_path: Path) -> None:
    film(tmp_path / "0" / "a_1.png")
    film(tmp_path / "b_2.png")
    (tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text(
        ",ImageID,ImageDir,StudyID,PatientID,Projection,Labels\n"
        "0,a_1.png,0,s1,p1,PA,\"['pleural effusion', ' nodule']\"\n"
        "1,b_2.png,1,s2,p2,L,\n"
    )
    cases = by_file(tmp_path)
    assert dict(cases["a_1.png"].findings) == {"pleural effusion": PRESENT, "nodule": PRESENT}
    assert (cases["a_1.png"].group, cases["a_1.png"].view) == ("p1", "pa")
    assert (cases["b_2.png"].view, cases["b_2.png"].findings) == ("lateral", ())


def test_vindr_readers_that_disagree_leave_a_finding_uncertain(tmp_path: Path) -> None:
    for name in ("train/a.dicom", "test/b.dicom"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")  # headers alone are looked at here
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "image_labels_train.csv").write_text(
        "image_id,rad_id,Cardiomegaly,ILD,Other diseases,No finding\n"
        "a,R1,1,0,1,0\na,R2,1,0,0,0\na,R3,0,0,0,0\n"
    )
    (tmp_path / "annotations" / "image_labels_test.csv").write_text(
        "image_id,Cardiomegaly,ILD,Other disease,No finding\nb,0,0,1,0\n"
    )
    cases = by_file(tmp_path)
    assert dict(cases["a.dicom"].findings) == {
        "cardiomegaly": PRESENT,
        "ild": ABSENT,
        "no finding": ABSENT,
        "other diseases": UNCERTAIN,
    }
    assert dict(cases["b.dicom"].findings)["other diseases"] == PRESENT
    assert (cases["a.dicom"].split, cases["b.dicom"].split) == ("train", "test")
