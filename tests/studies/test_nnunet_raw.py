"""What nnU-Net is given: the same images and labels as the other methods, in its own notation."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from radiffuse.config import Data
from radiffuse.data.cases import read_case_image
from radiffuse.data.layouts import open_dataset
from radiffuse.data.readers import read_label, read_scan
from radiffuse.phantoms import write_dataset
from radiffuse.studies.nnunet_raw import write_raw


def test_volumes_keep_their_geometry_and_what_is_not_counted_is_ignored(tmp_path: Path) -> None:
    write_dataset("abdomen", tmp_path / "ct", count=2, labelled=True, seed=1, size=(16, 16, 16))
    dataset = open_dataset(tmp_path / "ct", Data())
    first, second = dataset.cases
    assert first.label is not None
    image = nib.load(first.label)
    values = np.asarray(image.dataobj).copy()
    values[:2] = 255
    nib.save(nib.Nifti1Image(values, image.affine), first.label)
    ending = write_raw(tmp_path / "raw", dataset, dataset.classes, [first.name], [second.name])
    assert ending == ".nii.gz"
    about = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert about["labels"]["background"] == 0
    assert about["labels"]["ignore"] == len(dataset.classes)
    written = read_scan(tmp_path / "raw" / "imagesTs" / f"{second.name}_0000.nii.gz")
    original = read_case_image(second)
    assert np.allclose(written.array, original.array)
    assert np.allclose(written.affine, original.affine)
    label = read_label(tmp_path / "raw" / "labelsTr" / f"{first.name}.nii.gz").array[0]
    assert (label[:2] == len(dataset.classes)).all()
    assert np.array_equal(label[2:], values[2:])


def test_nnunet_gets_color_films_in_the_one_channel_that_the_others_see(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[4:9, 4:9] = 200, 100, 0
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray((pixels[..., 0] > 0).astype(np.uint8)).save(
            tmp_path / "labels" / f"{name}.png"
        )
    dataset = open_dataset(tmp_path, Data())
    write_raw(tmp_path / "raw", dataset, ("background", "a"), ["a"], ["b"])
    for part, name in (("imagesTr", "a"), ("imagesTs", "b")):
        assert [path.name for path in (tmp_path / "raw" / part).iterdir()] == [f"{name}_0000.tif"]
        array = read_scan(tmp_path / "raw" / part / f"{name}_0000.tif").array
        assert array.dtype == np.uint8
        assert np.unique(array).tolist() == [0, round(0.299 * 200 + 0.587 * 100)]
    assert len(json.loads((tmp_path / "raw" / "dataset.json").read_text())["channel_names"]) == 1


def test_a_class_called_ignore_is_learned(tmp_path: Path) -> None:
    for name in "ab":
        for part, values in (("images", (9, 200, 30, 90)), ("labels", (0, 1, 2, 255))):
            (tmp_path / part).mkdir(exist_ok=True)
            pixels = np.resize(np.array(values, np.uint8), (8, 8))
            Image.fromarray(pixels).save(tmp_path / part / f"{name}.png")
    dataset = open_dataset(tmp_path, Data())
    write_raw(tmp_path / "raw", dataset, ("other", "ignore", "background"), ["a"], ["b"])
    labels = json.loads((tmp_path / "raw" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "ignore (class)": 1, "background (class)": 2, "ignore": 3}
