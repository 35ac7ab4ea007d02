"""Small inputs that once were misread, in ``../shared/faults`` beside the project: each gets the right outcome.

The tests of the rooms have inputs of the same kinds that they make themselves.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from radiffuse.cli import main
from radiffuse.config import Data
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.checking.check import check_path
from radiffuse.data.dataset import Dataset
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.readers import read_scan
from radiffuse.errors import InputError

FAULTS = Path(__file__).parents[2] / "shared" / "faults"
SAID = {
    "dicom-scout-in-tree/data": "warning: left out: 1 of the kind localizer (scout.dcm)",
    "finetune-without-foreground/data": "error: no foreground",
    "linked-folders/elsewhere": "",
    "mask-255-ignored/mixed-0-255-and-0-1": "warning: --label-values 0,255",
    "mask-antialiased/data": "error: --label-threshold 128",
    "masks-taken-for-images/annot": "",
    "masks-taken-for-images/flat": "error: --label-values 0,255",
    "nifti-qform-quaternion/data": "",
    "patients-csv-leak/data": "",
    "photo-orientation/coco-exif3": "error: orientation 3",
    "table-ignored-silently/case": "error: line 7: 'img/C5.PNG' does not exist",
    "table-ignored-silently/utf16": "error: line 7: 'img/c5.png' does not exist",
}
"""What ``check`` says of each; '': it finds nothing wrong."""

pytestmark = pytest.mark.skipif(
    not FAULTS.is_dir(), reason="shared/faults is not beside the project"
)


def test_none_is_left_out() -> None:
    found = {p.relative_to(FAULTS).as_posix() for p in FAULTS.glob("*/*") if p.is_dir()}
    assert found <= SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_check_says_what_it_is_and_training_refuses_the_same(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (FAULTS / name).is_dir():
        pytest.skip(f"shared/faults/{name} is not beside the project")
    severity, _, words = SAID[name].partition(": ")
    issues = check_path(FAULTS / name, workers=0).issues
    assert [issue for issue in issues if issue.severity == severity] or not severity
    assert severity == "error" or all(issue.severity == severity for issue in issues)
    assert (
        any(words in f"{issue.where}: {issue.problem}. {issue.remedy}" for issue in issues)
        or not words
    )
    if severity == "error":
        out = tmp_path / "run"
        small = (
            "--method scratch --training.steps 1 --size 16 --preset tiny --training.batch-size 2"
        )
        assert main(["fit", str(FAULTS / name), "--out", str(out), *small.split()]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert words in lines[-1]
        assert lines[-1].startswith("radiffuse: ")
        assert not out.exists()


def opened(name: str) -> Dataset:
    if not (FAULTS / name).is_dir():
        pytest.skip(f"shared/faults/{name} is not beside the project")
    return open_dataset(FAULTS / name)


def test_the_scout_is_no_part_of_the_two_volumes() -> None:
    dataset = opened("dicom-scout-in-tree/data")
    assert sorted(case.images[0].name for case in dataset) == ["good", "odd"]
    assert [len(case.series) for case in dataset] == [12, 12]
    assert len({case.group for case in dataset}) == 2
    assert {read_case_image(case).array.shape for case in dataset} == {(1, 24, 20, 12)}


def test_the_twelve_films_are_of_three_patients() -> None:
    """As the table says with the backslashes of Windows."""
    groups = {case.name: case.group for case in opened("patients-csv-leak/data")}
    assert groups == {f"c{i}": f"P{i // 4}" for i in range(12)}


@pytest.mark.parametrize("kind", ["utf16", "case"])
def test_the_table_is_read_but_for_the_row_without_a_file(kind: str) -> None:
    opened_table = FAULTS / "table-ignored-silently" / kind
    dataset, issues = survey(opened_table)
    assert dataset.layout == "table"
    assert [case.label.parent.name for case in dataset.labelled if case.label] == ["msk"] * 5
    assert len(issues) == 1


@pytest.mark.parametrize(("kind", "layout"), [("flat", "suffixes"), ("annot", "pairs")])
def test_the_masks_belong_to_their_films(kind: str, layout: str) -> None:
    dataset = opened(f"masks-taken-for-images/{kind}")
    assert dataset.layout == layout
    assert [case.name for case in dataset.labelled] == list("123456")
    for case in dataset:
        assert case.images[0].stem == case.name
        assert case.label is not None
        assert case.label.stem in (case.name, f"{case.name}_mask")


def test_the_foreground_of_255_is_there_once_its_value_is_named() -> None:
    path = FAULTS / "masks-taken-for-images" / "flat"
    if path.is_dir():
        for case in open_dataset(path, Data(label_values=(0, 255))):
            share = read_case_label(case).array.mean()
            assert 0.05 < share < 0.12


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_a_linked_folder_is_refused_wherever_it_is(tmp_path: Path, folder: str) -> None:
    source = FAULTS / "linked-folders" / "elsewhere"
    other = {"images": "labels", "labels": "images"}[folder]
    shutil.copytree(source / other, tmp_path / other)
    (tmp_path / folder).symlink_to(source / folder, target_is_directory=True)
    with pytest.raises(InputError, match=f"{folder}: is a link that leads out"):
        open_dataset(tmp_path, Data(skip_bad=True))


def test_the_scan_with_a_rounded_qform_lies_where_other_programs_put_it() -> None:
    path = FAULTS / "nifti-qform-quaternion" / "data" / "tiny.nii.gz"
    scan, raw, image = read_scan(path), nib.load(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(scan.array[0], np.asarray(raw.dataobj))
    np.testing.assert_array_equal(scan.affine, raw.affine)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), scan.array[0])
    for index in ([0, 0, 0], [23, 0, 0], [0, 21, 0], [0, 0, 19]):
        place = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)  # LPS to RAS
        np.testing.assert_allclose(scan.affine @ [*index, 1], [*place, 1], atol=1e-4)
