"""Public sets as they are downloaded, with what comes along: previews, cines, instances, folders of other names."""

import re

import nibabel as nib
import numpy as np
import pytest
from layout_files import dicom, film, film_label, volume, volume_label, write_json

from radiffuse.config import Data
from radiffuse.data.checking.check import check_path
from radiffuse.data.layouts import open_dataset, suffixes, survey
from radiffuse.system.saying import near


def leftover(root):
    """What ``check`` says belongs to no case."""
    result = check_path(root, workers=0)
    assert not result.errors
    lines = [issue.problem for issue in result.issues if "belong to no case" in issue.problem]
    return lines[0] if lines else ""


def test_segthor_calls_the_image_like_its_folder(tmp_path):
    for number in range(3):
        folder = tmp_path / f"Patient_0{number}"
        volume(folder / f"Patient_0{number}.nii.gz", seed=number)
        volume_label(folder / "GT.nii.gz")
    dataset, issues = survey(tmp_path)
    assert not issues
    assert (len(dataset.labelled), dataset.channels) == (3, ("image",))
    assert {case.group for case in dataset} == {"Patient_00", "Patient_01", "Patient_02"}


def test_folders_named_after_splits_hold_out_the_test_of_acdc_and_segthor(tmp_path):
    for number, split in enumerate(("training", "training", "testing")):
        name = f"patient00{number}"
        volume(tmp_path / "acdc" / split / name / f"{name}_frame01.nii.gz", seed=number)
        volume_label(tmp_path / "acdc" / split / name / f"{name}_frame01_gt.nii.gz")
        folder = tmp_path / "segthor" / "train" / f"Patient_0{number}"
        volume(folder / f"Patient_0{number}.nii.gz", seed=number)
        volume_label(folder / "GT.nii.gz")
        volume(tmp_path / "segthor" / "test" / f"Patient_4{number}.nii.gz", seed=10 + number)
    dataset, issues = survey(tmp_path / "acdc")
    assert not issues
    assert sorted(case.split for case in dataset) == ["test", "train", "train"]
    dataset, issues = survey(tmp_path / "segthor")
    assert not issues
    assert [(case.name, case.split) for case in dataset if case.label is None] == [
        (f"Patient_4{number}", "test") for number in range(3)
    ]
    assert {case.split for case in dataset.labelled} == {None}  # the labels of the test are secret
    volume(tmp_path / "acdc" / "training" / "patient009" / "patient009_frame01.nii.gz")
    assert "has no label" in survey(tmp_path / "acdc")[1][0].problem


def test_kits_has_instances_in_the_folder_of_a_case(tmp_path):
    for number in range(3):
        folder = tmp_path / f"case_0000{number}"
        volume(folder / "imaging.nii.gz", seed=number)
        volume_label(folder / "segmentation.nii.gz")
        volume_label(folder / "instances" / "kidney_instance-1_annotation-1.nii.gz")
    assert "holds 3 images that belong to no case: case_00000/instances/kidney" in leftover(
        tmp_path
    )
    assert [case.label.name for case in open_dataset(tmp_path)] == ["segmentation.nii.gz"] * 3
    # a second examination in the folder of the first is a case, and lacks its label
    volume(tmp_path / "case_00000" / "later" / "imaging.nii.gz", seed=9)
    volume_label(tmp_path / "case_00000" / "later" / "segmentation.nii.gz")
    assert len(open_dataset(tmp_path)) == 4


def test_acdc_has_a_cine_beside_the_labelled_frames(tmp_path):
    for number in range(3):
        folder = tmp_path / f"patient00{number}"
        for frame in ("frame01", "frame12"):
            volume(folder / f"patient00{number}_{frame}.nii.gz", seed=number + len(frame))
            volume_label(folder / f"patient00{number}_{frame}_gt.nii.gz")
        cine = np.zeros((8, 7, 6, 3), np.int16)
        nib.save(nib.Nifti1Image(cine, np.eye(4)), folder / f"patient00{number}_4d.nii.gz")
    dataset, issues = survey(tmp_path)
    assert not issues
    assert (len(dataset), len({case.group for case in dataset})) == (6, 3)
    # an image that merely lacks its label is an error still
    volume(tmp_path / "patient000" / "patient000_frame20.nii.gz")
    assert "has no label" in survey(tmp_path)[1][0].problem


def test_verse_has_previews_beside_the_masks(tmp_path):
    for number in range(3):
        name = f"sub-verse00{number}"
        volume(tmp_path / "rawdata" / name / f"{name}_ct.nii.gz", seed=number)
        derived = tmp_path / "derivatives" / name
        volume_label(derived / f"{name}_seg-vert_msk.nii.gz")
        film(derived / f"{name}_seg-vert_snp.png", seed=number)
    dataset, issues = survey(tmp_path)
    assert not issues
    assert (len(dataset.labelled), dataset.channels) == (3, ("ct",))
    assert "holds 3 images that belong to no case: derivatives/sub-verse000" in leftover(tmp_path)


@pytest.mark.parametrize(
    ("images", "masks", "name"),
    [
        ("png_images", "png_masks", "{}.png"),  # SIIM-ACR
        ("ISIC2018_Task1-2_Input", "ISIC2018_Task1_GroundTruth", "{}_segmentation.png"),
    ],
)
def test_folders_whose_last_word_says_what_they_hold(tmp_path, images, masks, name):
    for number in range(4):
        film(tmp_path / images / f"{number}.png", seed=number)
        film_label(tmp_path / masks / name.format(number))
    dataset, issues = survey(tmp_path)
    assert not issues
    assert (dataset.layout, len(dataset.labelled)) == ("pairs", 4)
    film(tmp_path / "Test_Input" / "9.png", seed=9)
    dataset = open_dataset(tmp_path)
    assert [case.split for case in dataset if case.label is None] == ["test"]


def test_folders_of_last_words_may_name_their_split(tmp_path):
    for split, numbers in (("Training", range(3)), ("Validation", range(3, 5))):
        for number in numbers:
            film(tmp_path / f"ISIC_{split}_Input" / f"{number}.png", seed=number)
            film_label(tmp_path / f"ISIC_{split}_GroundTruth" / f"{number}_segmentation.png")
    dataset, issues = survey(tmp_path)
    assert not issues
    assert sorted(case.split for case in dataset) == ["train"] * 3 + ["validation"] * 2
    for number in range(2):  # which are names in Training, too
        film(tmp_path / "ISIC_Test_Input" / f"{number}.png", seed=20 + number)
    assert len(open_dataset(tmp_path).labelled) == 5


def test_classes_called_images_of_something_are_no_pairs(tmp_path):
    for number in range(4):
        film(tmp_path / "old_images" / f"a{number}.png", seed=number)
        film(tmp_path / "no_masks" / f"b{number}.png", seed=10 + number)
    assert open_dataset(tmp_path).layout == "classes"


def test_work_grows_with_the_number_of_cases_not_with_its_square(tmp_path, monkeypatch):
    """As where a few of ten thousand films are labelled: it had taken minutes."""
    looked, labels = [], suffixes._labels
    monkeypatch.setattr(suffixes, "_labels", lambda words: looked.append(words) or labels(words))
    counts = []
    for cases in (10, 40):
        looked.clear()
        for number in range(cases):
            film(tmp_path / f"{number:02d}_img.png")
            if number % 2:
                film_label(tmp_path / f"{number:02d}_mask.png")
        assert len(survey(tmp_path)[0].labelled) == cases // 2
        counts.append(len(looked))
    assert counts[1] < 5 * counts[0]


@pytest.mark.parametrize(
    ("first", "second", "own"), [("__CT", "__PT", 0), ("_0000", "_0001", 1), ("_t1", "_t2", 0)]
)
def test_a_label_of_several_channels_is_one_error_that_says_how_to_bring_them(
    tmp_path, first, second, own
):
    for number in range(3):
        for channel in (first, second) if number else (first,):
            volume(tmp_path / "imagesTr" / f"C-{number}{channel}.nii.gz", seed=number)
        volume_label(tmp_path / "labelsTr" / f"C-{number}.nii.gz")
    issues = [i for i in survey(tmp_path)[1] if "several images" in i.problem]
    assert [i.where for i in issues] == [
        str(tmp_path / "labelsTr" / f"C-{number}.nii.gz") for number in (1, 2)
    ]
    assert issues[0].problem == (
        f"is the label of several images (C-1{first}.nii.gz, C-1{second}.nii.gz)"
    )
    assert "C-1_0000, C-1_0001, ... beside a dataset.json" in issues[0].remedy
    others = [i for i in survey(tmp_path)[1] if i not in issues]
    assert len(others) == (0 if own else 2)  # C-0 alone has the channel of nnU-Net, or another name


def test_a_follow_up_without_label_is_no_channel(tmp_path):
    for number in range(3):
        film(tmp_path / "images" / f"{number}.png", seed=number)
        film_label(tmp_path / "labels" / f"{number}.png")
    film(tmp_path / "images" / "0_later.png", seed=9)
    (issue,) = survey(tmp_path)[1]
    assert (issue.where, issue.problem) == (
        str(tmp_path / "images" / "0_later.png"),
        "has no label",
    )


def test_a_channel_on_another_grid_is_said_to_be_none(tmp_path):
    for number in range(2):
        volume(tmp_path / f"{number}" / "ct.nii.gz", seed=number, size=(4, 4, 4))
        volume(tmp_path / f"{number}" / "pet.nii.gz", seed=number)
        volume_label(tmp_path / f"{number}" / "seg.nii.gz", size=(4, 4, 4))
    issue = check_path(tmp_path, workers=0).errors[0]
    assert re.search("has another size .* than ct.nii.gz", issue.problem)
    assert issue.remedy.startswith("Resample it to the grid of ct.nii.gz, or move out of the case")


def test_outlines_of_public_chest_sets_are_a_warning(tmp_path):
    for number in range(3):
        film(tmp_path / "chestx" / "train_data" / f"{number}.png", seed=number)
        dicom(tmp_path / "siim" / f"{number}.dcm", series=number, instance=number)
    record = {"file_name": "0.png", "syms": ["Mass"], "polygons": [[[1, 1], [5, 1], [5, 5]]]}
    write_json(tmp_path / "chestx" / "ChestX_Det_train.json", [record])
    (tmp_path / "siim" / "other.csv").write_text("ImageId,remark\n1.2.3,EncodedPixels\n")
    (issue,) = survey(tmp_path / "chestx")[1]
    assert "holds outlines or boxes that are not read (1 .json: ChestX_Det" in issue.problem
    tables = ("ImageId, EncodedPixels\n1.2, 5 4\n", "image_id,Landmarks\n1,2\n", "id,x_min\n1,2\n")
    for text in tables:
        (tmp_path / "siim" / "train.csv").write_text(text)
        (issue,) = survey(tmp_path / "siim")[1]
        assert "holds outlines or boxes that are not read (1 .csv: train.csv)" in issue.problem
    (tmp_path / "siim" / "train.csv").write_text("ImageId,remark\n1.2.3,rle and x_min\n")
    assert not survey(tmp_path / "siim")[1]


def test_a_readme_without_suffix_is_a_companion(tmp_path):
    for number in range(2):
        film(tmp_path / f"{number}.png", seed=number)
    for name in ("README", "CHANGES", "LICENSE", "data"):
        (tmp_path / name).write_text("text")
    (issue,) = check_path(tmp_path, workers=0).issues
    assert "(1 of no suffix)" in issue.problem
    assert issue.remedy.endswith(": data")


def test_folders_with_files_of_the_same_words_are_patients_not_classes(tmp_path):
    for number in range(3):
        for name in ("t1_mprage_2", "t2_flair_3"):
            volume(tmp_path / "dcm2niix" / f"S{number}" / f"{name}.nii.gz", seed=number)
        for slice_ in range(3):  # numbers alone say nothing
            path = tmp_path / "kinds" / f"kind{number}" / f"img{slice_}.png"
            film(path, seed=10 * number + slice_)
    assert open_dataset(tmp_path / "dcm2niix").layout == "images"
    assert open_dataset(tmp_path / "kinds").layout == "classes"


def test_a_folder_with_the_masks_of_the_others_is_no_class(tmp_path):
    for number in range(6):
        volume(tmp_path / f"subset{number % 2}" / f"1.2.{number}.nii.gz", seed=number)
        volume_label(tmp_path / "seg-lungs" / f"1.2.{number}.nii.gz")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "images"
    assert not any(case.target for case in dataset)


def test_parts_beside_images_tr_and_labels_tr_are_the_split(tmp_path):
    for part, count in (("Tr", 3), ("Val", 2), ("Ts", 1)):
        for number in range(count):
            volume(tmp_path / f"images{part}" / f"{part}{number}.nii.gz", seed=number)
            volume_label(tmp_path / f"labels{part}" / f"{part}{number}.nii.gz")
    dataset, issues = survey(tmp_path)
    assert not issues
    assert sorted(case.split for case in dataset) == [
        *("test", "train", "train", "train", "validation", "validation")
    ]


def test_a_data_set_one_folder_deeper_is_pointed_to(tmp_path):
    for number in range(2):
        folder = tmp_path / "set_v2" / f"s{number:04}"
        volume(folder / "ct.nii.gz", seed=number)
        volume_label(folder / "segmentations" / "liver.nii.gz", values=(0, 1 + number))
    found = [issue.remedy for issue in check_path(tmp_path, workers=0).issues]
    assert any(
        line.endswith(f"give the folder that holds the cases: {near(tmp_path / 'set_v2')}")
        for line in found
    )
    assert not check_path(tmp_path / "set_v2", workers=0).issues


def test_values_above_those_of_labels_are_told_how_to_be_named(tmp_path):
    """Multi-modality whole heart segmentation (MM-WHS) numbers its structures from 205 to 850."""
    for number in range(2):
        volume(tmp_path / f"{number}_image.nii.gz", seed=number)
        label = np.zeros((8, 7, 6), np.int16)
        label[2:4, 2:4, 2:4], label[5, 5, 5] = 205, 500
        image = nib.Nifti1Image(label, np.diag([1.0, 1.0, 2.0, 1.0]))
        nib.save(image, tmp_path / f"{number}_label.nii.gz")
    found = [i for i in check_path(tmp_path, workers=0).errors if "outside" in i.problem]
    assert len(found) == 2
    assert found[0].remedy.endswith("name all values, as in --label-values 0,205,500")
    assert not check_path(tmp_path, Data(label_values=(0, 205, 500)), workers=0).errors
