"""Trees as a hospital exports them: scans among scouts, dose reports, reports, and files that are not whole."""

import numpy as np
import pydicom
import pytest
from layout_files import dicom, film, volume

from radiffuse.config import Data, PlanSettings
from radiffuse.data.checking.check import check_path
from radiffuse.data.fingerprint import take_fingerprint
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.plan import make_plan
from radiffuse.errors import InputError

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_instances = iter(range(10**6))


def series(folder, number, count=4, *, first=0.0, **elements):
    """Slices 2 mm apart, or all in one place with ``step=0``."""
    step = elements.pop("step", 2.0)
    return [
        one(folder / f"IM{i}.dcm", number, position=first + step * i, **elements)
        for i in range(count)
    ]


def one(path, number, *, position=None, modality="CT", without=(), **elements):
    dicom(path, series=number, instance=next(_instances), modality=modality, position=position)
    data = pydicom.dcmread(path)
    for name in without:
        delattr(data, name)
    for name, value in elements.items():
        setattr(data, name, value)
    data.save_as(path)
    return path


def test_a_study_with_all_that_comes_along(tmp_path):
    series(tmp_path / "DOE_1" / "chest", 1)
    series(tmp_path / "DOE_1" / "chest", 2)  # a second series in the same folder, under other names
    series(tmp_path / "DOE_1" / "abdomen", 3)
    for i in range(4):
        (tmp_path / "DOE_1" / "abdomen" / f"IM{i}.dcm").rename(
            tmp_path / "DOE_1" / "chest" / f"A{i}"
        )
    extra = tmp_path / "DOE_1" / "extra"
    one(extra / "scout", 4, position=0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for i in range(2):  # a dose report as two pictures in a series of modality CT
        one(extra / f"dose{i}", 5, SOPClassUID=CAPTURE)
    for i in range(3):  # bolus tracking: one place, three times
        one(extra / f"bolus{i}", 6, position=8)
    one(extra / "single", 7, position=3)
    one(extra / "pr", 8, modality="PR", without=["Rows"])
    one(extra / "sr", 9, modality="SR", without=["Rows"])
    one(extra / "rtdose", 10, modality="RTDOSE", position=0)
    one(extra / "pdf", 11, modality="OT", without=["Rows", "PixelData"])
    one(tmp_path / "DOE_1" / "chest" / "Z", 1, position=99, ImageType=["X", "Y", "LOCALIZER"])
    dataset, issues = survey(tmp_path)
    assert sorted(len(case.series) for case in dataset) == [4, 4]
    (issue,) = issues
    assert issue.severity == "warning"
    for part in (
        "2 of the kind localizer (DOE_1/chest/Z, DOE_1/extra/scout)",
        "2 of the kind secondary capture (DOE_1/extra/dose0, DOE_1/extra/dose1)",
        "4 of the kind single slice",
        "1 of the kind PR",
        "1 of the kind SR",
        "1 of the kind RTDOSE",
        "1 of the kind DICOM object without an image (DOE_1/extra/pdf)",
    ):
        assert part in issue.problem
    result = check_path(tmp_path, workers=0)
    assert [i.problem for i in result.issues if "same patient" not in i.problem] == [issue.problem]
    assert not any(word in str(result).upper() for word in ("JANE", "DOE^"))


def test_trees_of_single_images_stay_whole(tmp_path):
    """Nothing is left out where there is no volume: films, single slices, captures alone."""
    one(tmp_path / "a", 1, modality="DX")
    one(tmp_path / "b", 2, position=0)
    one(tmp_path / "c", 3, SOPClassUID=CAPTURE, modality="OT")
    one(tmp_path / "d", 4, position=0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    dataset, issues = survey(tmp_path)
    assert len(dataset) == 4
    assert not issues


def test_captures_with_a_place_are_slices_and_slices_of_other_studies_stay(tmp_path):
    series(tmp_path / "volume", 1)
    series(tmp_path / "converted", 2, SOPClassUID=CAPTURE)
    one(tmp_path / "slice", 3, position=0, StudyInstanceUID="1.2.6")
    dataset, issues = survey(tmp_path)
    assert sorted(len(case.series) for case in dataset) == [0, 4, 4]
    assert not issues


def test_films_among_volumes_are_named_by_path_and_can_be_skipped(tmp_path):
    series(tmp_path / "ct", 1, 6)
    series(tmp_path / "ct2", 2, 6)
    film = one(tmp_path / "thorax.dcm", 3, modality="DX")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 3
    (error,) = check_path(tmp_path, workers=0).errors
    assert error.problem == "mixes films and volumes: 2 3D and 1 2D images; 2D are thorax.dcm"
    with pytest.raises(InputError, match=rf"mixes films and volumes; 2D are {film}"):
        make_plan(dataset, PlanSettings(size=(8, 8, 8)), labelled=False)
    plan = make_plan(dataset, PlanSettings(size=(8, 8, 8)), labelled=False, skip_bad=True)
    assert plan.spatial_dims == 3


def test_a_mixture_of_other_formats_is_named_too(tmp_path):
    for i in range(3):
        film(tmp_path / f"{i}.png", seed=i)
    volume(tmp_path / "v.nii.gz")
    with pytest.raises(InputError, match=r"3D are .*v\.nii\.gz"):
        take_fingerprint(open_dataset(tmp_path))
    assert take_fingerprint(open_dataset(tmp_path), skip_bad=True).spatial_dims == 2


@pytest.mark.parametrize("name", ["IM5.dcm", "IM5"])
@pytest.mark.parametrize("explicit", [True, False])
def test_a_file_without_preamble_is_named_so(tmp_path, name, explicit):
    series(tmp_path, 1)
    whole = one(tmp_path / name, 2, position=0)
    data = pydicom.dcmread(whole)
    content = whole.read_bytes()
    if explicit:
        whole.write_bytes(content[132:])  # the preamble alone is cut off
    else:
        from pydicom.filewriter import dcmwrite

        del data.file_meta
        data.preamble = None
        dcmwrite(whole, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert whole.read_bytes()[:4] in (
            b"\x08\x00\x05\x00",
            b"\x08\x00\x08\x00",
            b"\x08\x00\x16\x00",
        )
    dataset, issues = survey(tmp_path)
    assert [len(case.series) for case in dataset] == [4]
    (issue,) = issues
    assert issue.where == str(whole)
    assert "lacks the preamble" in issue.problem
    with pytest.raises(InputError, match=r"lacks the preamble"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, Data(skip_bad=True))) == 1


def test_a_file_without_transfer_syntax_is_named_so(tmp_path):
    series(tmp_path, 1)
    path = one(tmp_path / "x.dcm", 2, position=0)
    content = path.read_bytes()
    at = content.index(b"\x02\x00\x10\x00UI")
    length = 8 + int.from_bytes(content[at + 6 : at + 8], "little")
    group = int.from_bytes(content[140:144], "little") - length
    shorter = content[:140] + group.to_bytes(4, "little") + content[144:at] + content[at + length :]
    path.write_bytes(shorter)
    _, issues = survey(tmp_path)
    assert [(i.where, i.problem) for i in issues] == [
        (str(path), "is no readable DICOM file: it does not name its transfer syntax")
    ]


def test_binary_files_are_not_taken_for_dicom(tmp_path):
    film(tmp_path / "a.png")
    for name, content in (
        ("a.dat", np.arange(2, 100, dtype="<i4").tobytes()),
        ("b", np.full(100, 8, "<i4").tobytes()),
        ("c.bin", b"\x08\x00"),
        ("d.npy", b"\x93NUMPY"),
    ):
        (tmp_path / name).write_bytes(content)
    assert open_dataset(tmp_path).layout == "images"


def test_a_fault_of_a_series_names_its_folder_and_a_file(tmp_path):
    """Two series in one folder, one of which lacks a slice; and a series of two time points."""
    for number, heights in ((1, (0, 2, 4, 6)), (2, (0, 2, 6, 8))):
        for i, height in enumerate(heights):
            one(tmp_path / "x" / f"S{number}_{i}", number, position=height)
    for i, height in enumerate((0, 2, 4, 0, 2, 4)):
        one(tmp_path / "y" / f"T{i}", 3, position=height)
    found = {issue.where: issue.problem for issue in check_path(tmp_path, workers=0).errors}
    missing = found[f"{tmp_path / 'x'} (4 files from S2_0)"]
    assert missing == "lacks about 1 slice between S2_1 and S2_2"
    assert found[str(tmp_path / "y" / "T3")] == "lies in the same place as T0"
    assert len(found) == 2


def test_patients_csv_goes_before_headers_and_stays_hidden(tmp_path):
    """Two series with numbers of their own are one patient; a third is alone."""
    for number, folder in enumerate(("left", "right", "other")):
        series(tmp_path / folder, number, PatientID=f"N{number}")
    rows = "left,SMITH\nright\\IM0.dcm,SMITH\nE:\\pacs\\other\\IM3.dcm,JONES\n"
    (tmp_path / "patients.csv").write_text("image,patient\n" + rows)
    dataset, issues = survey(tmp_path)
    assert not issues
    patients = {case.images[0].name: case.group for case in dataset}
    assert patients["left"] == patients["right"] != patients["other"]
    assert not any(word in repr(dataset) for word in ("SMITH", "JONES", "N0"))


def test_one_uid_for_all_slices_or_all_patients_does_not_mix_them(tmp_path):
    """As some programs that remove names write: the place tells slices apart, PatientID series."""
    for patient in ("A", "B"):
        series(tmp_path / patient, 1, PatientID=patient, SOPInstanceUID=f"1.2.9.{ord(patient)}")
        series(tmp_path / f"{patient}2", 2, PatientID=patient)
    dataset, issues = survey(tmp_path)
    assert not issues
    assert [len(case.series) for case in dataset] == [4] * 4
    assert len({case.group for case in dataset}) == 2
    for case in dataset:
        assert len({path.parent for path in case.series}) == 1
    (tmp_path / "B" / "copy.dcm").write_bytes((tmp_path / "B" / "IM0.dcm").read_bytes())
    (issue,) = survey(tmp_path)[1]
    assert issue.where == str(tmp_path / "B" / "copy.dcm")
    assert "is the same image as B/IM0.dcm" in issue.problem


@pytest.mark.parametrize(("modality", "first"), [("CT", 0.0), ("CT", 100.0), ("DX", None)])
def test_one_uid_for_everything_does_not_mix_patients(tmp_path, modality, first):
    """Where slices lie in other places they would be one volume of two patients; else the second's would be copies."""
    for number, patient in enumerate(("A", "B", "C")):
        uids = {"PatientID": patient, "SOPInstanceUID": "1.2.9"}
        if first is None:
            one(tmp_path / patient / "film", 1, modality=modality, **uids)
        else:
            series(tmp_path / patient, 1, modality=modality, first=number * first, **uids)
    dataset, issues = survey(tmp_path)
    assert not issues
    assert len({case.name for case in dataset}) == len({case.group for case in dataset}) == 3
    for case in dataset:
        assert len({path.parent for path in case.series or case.images}) == 1
        assert len(case.series) == (0 if first is None else 4)
    assert {case.name for case in dataset} == {case.name for case in survey(tmp_path)[0]}


def test_slices_of_two_folders_in_one_place_are_named_with_their_folders(tmp_path):
    for folder in ("a", "b"):
        series(tmp_path / folder, 1)
    (issue,) = check_path(tmp_path, workers=0).errors
    assert issue.where == str(tmp_path / "b" / "IM0.dcm")
    assert f"in the same place as {tmp_path / 'a' / 'IM0.dcm'}" in issue.problem


def test_segmentations_left_out_are_said_to_be_possible_labels(tmp_path):
    series(tmp_path / "ct", 1)
    one(tmp_path / "report", 2, modality="SR", without=["Rows"])
    (issue,) = survey(tmp_path)[1]
    assert "other-folders.md" not in issue.remedy
    one(tmp_path / "seg", 3, modality="SEG")
    (issue,) = survey(tmp_path)[1]
    assert "segmentations become labels as docs/how-to/other-folders.md says" in issue.remedy


def test_raw_films_among_processed_ones_are_a_warning(tmp_path):
    for number, intent in enumerate(("FOR PROCESSING", "FOR PRESENTATION", "FOR PRESENTATION")):
        one(tmp_path / f"f{number}", number, modality="MG", PresentationIntentType=intent)
        if number == 0:
            assert not survey(tmp_path)[1]
    (issue,) = survey(tmp_path)[1]
    assert issue.severity == "warning"
    assert "1 FOR PROCESSING and 2 FOR PRESENTATION (PresentationIntentType); raw are f0" in (
        issue.problem
    )
