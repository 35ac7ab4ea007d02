"""Masks of BIDS: beside their images or among the derivatives."""

from pathlib import PurePosixPath

import pytest
from layout_files import volume, volume_label

from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.layouts.bids import places_of_masks

IMAGE = "sub-{}/anat/sub-{}_T1w.nii.gz"


@pytest.mark.parametrize(
    "mask",
    [
        "sub-{}/anat/sub-{}_label-lesion_mask.nii.gz",
        "sub-{}/anat/sub-{}_space-T1w_desc-manual_mask.nii.gz",
        "sub-{}/anat/sub-{}_dseg.nii.gz",
        "sub-{}/anat/sub-{}_T1w_label-lesion_mask.nii.gz",
        "derivatives/labels/sub-{}/anat/sub-{}_label-lesion_mask.nii.gz",
        "derivatives/labels/sub-{}/anat/sub-{}_T1w_dseg.nii.gz",
    ],
)
def test_a_mask_belongs_to_the_image_of_its_subject(tmp_path, mask):
    for subject in ("01", "02", "03"):
        volume(tmp_path / IMAGE.format(subject, subject), seed=int(subject))
        volume_label(tmp_path / mask.format(subject, subject))
    dataset, issues = survey(tmp_path)
    assert not issues
    assert dataset.layout == "suffixes"
    for case, subject in zip(dataset, ("01", "02", "03"), strict=True):
        assert case.images == (tmp_path / IMAGE.format(subject, subject),)
        assert case.label == tmp_path / mask.format(subject, subject)
        assert case.group == f"sub-{subject}"


def test_two_masks_of_an_image_are_an_error(tmp_path):
    for subject in ("01", "02", "03"):
        volume(tmp_path / IMAGE.format(subject, subject), seed=int(subject))
        for name in ("lesion", "brain") if subject != "02" else ("brain",):
            volume_label(tmp_path / f"sub-{subject}/anat/sub-{subject}_label-{name}_mask.nii.gz")
    dataset, issues = survey(tmp_path)
    assert [issue.severity for issue in issues] == ["error", "error"]
    assert "is the same part of the case as sub-01_label-brain_mask" in issues[0].problem
    assert [case.group for case in dataset] == ["sub-02"]


def test_sessions_do_not_mix(tmp_path):
    for session in ("1", "2"):
        name = f"sub-01_ses-{session}"
        volume(tmp_path / f"sub-01/ses-{session}/anat/{name}_T1w.nii.gz", seed=int(session))
        volume_label(tmp_path / f"derivatives/x/sub-01/ses-{session}/anat/{name}_dseg.nii.gz")
    for case in open_dataset(tmp_path):
        assert case.images[0].parent.parent.name == case.label.parent.parent.name


def test_a_mask_that_fits_images_in_two_folders_is_left_alone():
    paths = [PurePosixPath(f"{folder}/sub-01/sub-01_T1w.nii.gz") for folder in ("raw", "other")]
    mask = PurePosixPath("derivatives/sub-01/sub-01_dseg.nii.gz")
    assert places_of_masks([*paths, mask]) == {}
    assert places_of_masks([paths[0], mask]) == {mask: PurePosixPath("raw/sub-01/sub-01")}


@pytest.mark.parametrize("suffix", ["tif", "dcm", "png"])
def test_a_mask_that_is_a_picture_may_have_a_film_of_another_format(suffix):
    image, mask = (
        PurePosixPath(f"sub-1/anat/sub-1_{name}")
        for name in (f"XR.{suffix}", "label-lung_mask.png")
    )
    assert places_of_masks([image, mask]) == {mask: PurePosixPath("sub-1/anat/sub-1")}
    preview = PurePosixPath("previews") / image.with_suffix(".png")
    assert places_of_masks([preview, image, mask]) == {mask: PurePosixPath("sub-1/anat/sub-1")}
