"""Names of cases are safe whatever files are called."""

import os
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import film, film_label, volume, volume_label, write_json

from radiffuse.config import Data
from radiffuse.data.layouts import open_dataset
from radiffuse.data.layouts.listing import named_file
from radiffuse.data.names import LONGEST, safe_name, unique_names
from radiffuse.errors import InputError

ANYTHING = st.text(st.characters(codec=None), max_size=200)


@given(ANYTHING)
def test_a_name_is_one_visible_component_of_a_path(text):
    name = safe_name(text)
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert not name.endswith((".", " "))
    assert len(name.encode()) <= LONGEST
    assert not set(name) & set('<>:"/\\|?*')
    assert safe_name(name) == name


@settings(max_examples=30)
@given(st.lists(ANYTHING, unique=True, max_size=8))
def test_names_are_distinct_files(texts):
    names = unique_names(texts, texts)
    assert len({name.casefold() for name in names}) == len(texts)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, f"{name}.nii.gz").touch(exist_ok=False)
        assert len(os.listdir(folder)) == len(texts)


# ------------------------------------------------------------------------------------------------ accents

WHOLE, APART = (unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD"))
"""One name, as most systems write it and as macOS does."""


def pairs(root):
    film(root / "images" / f"{WHOLE}.png")
    film_label(root / "labels" / f"{APART}.png")


def suffixes(root):
    film(root / f"{WHOLE}_img.png")
    film_label(root / f"{APART}_mask.png")


def suffixes_by_whole_name(root):
    film(root / f"{WHOLE}.png")
    film_label(root / f"{APART}_mask.png")


def nnunet(root):
    names = {"channel_names": {"0": "t1", "1": "t2"}, "labels": {"background": 0, "a": 1}}
    write_json(root / "dataset.json", names | {"file_ending": ".nii.gz"})
    volume(root / "imagesTr" / f"{WHOLE}_0000.nii.gz")
    volume(root / "imagesTr" / f"{APART}_0001.nii.gz")
    volume_label(root / "labelsTr" / f"{APART}.nii.gz")
    write_json(root / "splits_final.json", [{"train": [], "val": [APART]}])


def msd(root):
    entry = {"image": f"imagesTr/{APART}.nii.gz", "label": f"labelsTr/{WHOLE}.nii.gz"}
    write_json(root / "dataset.json", {"training": [entry], "labels": {"0": "b", "1": "a"}})
    volume(root / "imagesTr" / f"{WHOLE}.nii.gz")
    volume_label(root / "labelsTr" / f"{APART}.nii.gz")


def totalsegmentator(root):
    volume(root / WHOLE / "ct.nii.gz")
    volume_label(root / WHOLE / "segmentations" / "liver.nii.gz")
    (root / "meta.csv").write_text(f"image_id,split\n{APART},val\n", encoding="utf-8")


def table(root):
    (root / "a.csv").write_text(f"image,label\n{APART}.png,{WHOLE}_l.png\n", encoding="utf-8")
    film(root / f"{WHOLE}.png")
    film_label(root / f"{APART}_l.png")


@pytest.mark.parametrize(
    "made", [pairs, suffixes, suffixes_by_whole_name, nnunet, msd, totalsegmentator, table]
)
def test_accents_that_are_encoded_in_two_ways_are_one_name(made, tmp_path):
    made(tmp_path)
    (tmp_path / "sites.txt").write_text(f"{APART} Bonn\n", encoding="utf-8")
    sited = made is not table  # its cases are named after their files
    dataset = open_dataset(tmp_path, Data(sites="sites.txt" if sited else None))
    (case,) = dataset
    assert dataset.layout == made.__name__.removesuffix("_by_whole_name")
    assert case.name == WHOLE
    assert case.label is not None
    assert case.site == ("Bonn" if sited else "")
    assert len(case.images) == len(dataset.channels) == (2 if made is nnunet else 1)
    assert case.split == ("validation" if made in (nnunet, totalsegmentator) else None)
    for file in (*case.images, case.label):
        assert file.exists()


def test_two_files_whose_names_differ_in_the_encoding_alone_are_not_taken_for_one(tmp_path):
    nnunet(tmp_path)
    volume_label(tmp_path / "labelsTr" / f"{WHOLE}.nii.gz")
    with pytest.raises(InputError, match="has the same name as"):
        open_dataset(tmp_path)
    for name in (WHOLE, APART):
        film(tmp_path / "films" / f"{name}_img.png")
        film_label(tmp_path / "films" / f"{name}_mask.png")
    assert len(open_dataset(tmp_path / "films")) == 2


def test_a_mask_is_found_however_its_accents_are_encoded(tmp_path):
    path = film_label(tmp_path / f"{APART}.png")
    assert named_file(tmp_path, WHOLE, (".nii", ".png")) == path
    whole = film_label(tmp_path / f"{WHOLE}.png")
    assert named_file(tmp_path, WHOLE, (".nii", ".png")) == whole
    assert named_file(tmp_path, WHOLE, (".nii",)) is None
