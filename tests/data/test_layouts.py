"""Every layout, made as its users make it, becomes the cases they expect."""

import os
from collections import Counter

import numpy as np
import pytest
from layout_files import dicom, film, film_label, pairs, volume, volume_label, write_json

from radiffuse.config import Data
from radiffuse.data.cases import read_case_label
from radiffuse.data.layouts import EXPECTED, LAYOUTS, open_dataset, survey
from radiffuse.data.names import short_hash
from radiffuse.errors import InputError


def names(dataset):
    return [case.name for case in dataset]


def test_every_layout_of_the_settings_is_there():
    from typing import get_args, get_type_hints

    legal = set(get_args(get_type_hints(Data)["layout"])) - {"auto"}
    assert legal == LAYOUTS.keys() == EXPECTED.keys()


# --------------------------------------------------------------------------------------- images


def test_a_folder_of_images_with_folders_and_companions(tmp_path):
    film(tmp_path / "b.png")
    film(tmp_path / "deep" / "er" / "a.png")
    volume(tmp_path / "v.nii.gz")
    for litter in (".DS_Store", "Thumbs.db", "._b.png", "README.md", "notes.json", ".hidden/x.png"):
        (tmp_path / litter).parent.mkdir(exist_ok=True)
        (tmp_path / litter).write_bytes(b"\0")
    dataset, issues = survey(tmp_path)
    assert dataset.layout == "images"
    assert names(dataset) == ["b", "deep__er__a", "v"]
    assert [case.group for case in dataset] == names(dataset)
    assert not issues


def test_images_in_split_folders_take_their_split(tmp_path):
    film(tmp_path / "train" / "a.png")
    film(tmp_path / "val" / "b.png")
    film(tmp_path / "Test" / "c.png")
    dataset = open_dataset(tmp_path)
    assert {c.images[0].stem: c.split for c in dataset} == {
        "a": "train", "b": "validation", "c": "test",
    }  # fmt: skip
    film(tmp_path / "other" / "d.png")
    assert {case.split for case in open_dataset(tmp_path)} == {None}


def test_one_image_is_a_data_set(tmp_path):
    path = volume(tmp_path / "scan.nii.gz")
    dataset = open_dataset(path)
    assert names(dataset) == ["scan"]
    assert dataset.cases[0].images == (path,)


def test_names_are_unique_and_safe(tmp_path):
    for name in (
        "a b.png",
        "😀.png",
        "größe.png",
        "x.png",
        "x.jpg",
        "a__y.png",
        "a/y.png",
        "q?.png",
    ):
        film(tmp_path / name)
    film(tmp_path / ("long" * 60 + ".png"))
    film(tmp_path / "CON.png")
    found = names(open_dataset(tmp_path))
    assert {"a b", "😀", "größe", "q_", "_CON"} <= set(found)
    assert len(found) == len({name.casefold() for name in found}) == 10
    assert all("/" not in name and len(name.encode()) <= 150 for name in found)
    assert names(open_dataset(tmp_path)) == found


def test_pictures_among_dicom_files_are_not_mixed_silently(tmp_path):
    dicom(tmp_path / "s" / "1.dcm", series=1, instance=1, position=0)
    film(tmp_path / "s" / "logo.png")
    with pytest.raises(InputError, match="1 DICOM files among 1 other"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, Data(layout="images"))) == 2


# ---------------------------------------------------------------------------------------- pairs


def test_pairs_match_by_stem_and_take_names_of_classes(tmp_path):
    film(tmp_path / "images" / "a.jpg")
    film_label(tmp_path / "labels" / "a.png")
    film(tmp_path / "images" / "deep" / "b.png")
    film_label(tmp_path / "labels" / "deep" / "b.png")
    write_json(tmp_path / "classes.json", {"1": "lung", "2": "heart"})
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "pairs"
    assert [(c.name, c.label.name) for c in dataset] == [("a", "a.png"), ("deep__b", "b.png")]
    assert dataset.classes == ("background", "lung", "heart")
    assert len(dataset.labelled) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.json", ["background", "lung"]),
        ("labels.json", {"background": 0, "lung": 1, "ignore": 255}),
        ("labels.json", {"labels": {"0": "background", "1": "lung"}}),
        ("dataset.json", {"labels": {"1": "lung"}, "name": "x"}),
    ],
)
def test_notations_of_class_names(tmp_path, name, content):
    write_json(pairs(tmp_path) / name, content)
    assert open_dataset(tmp_path).classes == ("background", "lung")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"300": "lung"}, "value 300"),
        ({"lung": [1, 2]}, "region 'lung'"),
        ({"1": "a", "2": "a"}, "same name"),
        ("lung", "does not name the classes"),
        ({"1": 2.5}, "entry '1': 2.5"),
    ],
)
def test_class_names_that_make_no_sense(tmp_path, content, problem):
    write_json(pairs(tmp_path) / "classes.json", content)
    with pytest.raises(InputError, match=problem) as caught:
        open_dataset(tmp_path)
    assert "classes.json" in str(caught.value)


def test_damaged_json_is_named(tmp_path):
    (pairs(tmp_path) / "classes.json").write_text('{"1": ')
    with pytest.raises(InputError, match=r"classes\.json: is not readable JSON"):
        open_dataset(tmp_path)


def test_masks_is_another_word_for_labels_and_splits_are_folders(tmp_path):
    for split in ("train", "test"):
        film(tmp_path / split / "images" / "a.png")
        film_label(tmp_path / split / "masks" / "a.png")
    dataset = open_dataset(tmp_path)
    assert [(c.name, c.split) for c in dataset] == [("test__a", "test"), ("train__a", "train")]


def test_image_without_label_and_the_reverse(tmp_path):
    pairs(tmp_path)
    (tmp_path / "labels" / "c0.png").unlink()
    (tmp_path / "images" / "c2.png").unlink()
    dataset, issues = survey(tmp_path)
    lines = {os.path.relpath(issue.where, tmp_path): issue.problem for issue in issues}
    assert lines == {
        "images/c0.png": "has no label",
        "labels/c2.png": "is a label without an image",
    }
    with pytest.raises(InputError, match=r"c0\.png: has no label \(and 1 more error"):
        open_dataset(tmp_path)
    kept = open_dataset(tmp_path, Data(skip_bad=True))
    assert [(c.name, c.label is not None) for c in kept] == [("c0", False), ("c1", True)]
    assert kept.cases == dataset.cases


def test_two_files_of_one_name_in_a_pair(tmp_path):
    pairs(tmp_path, count=4)
    film(tmp_path / "images" / "c0.jpg")
    film_label(tmp_path / "labels" / "c2.tif")
    for i in range(2):
        dicom(tmp_path / "images" / "c3" / f"{i}.dcm", series=1, instance=i, position=i)
    with pytest.raises(InputError, match="same name"):
        open_dataset(tmp_path)
    kept = open_dataset(tmp_path, Data(skip_bad=True))
    assert names(kept) == ["c1"]  # nobody knows which file of the others is meant


def test_an_image_that_is_listed_with_two_labels_is_left_out(tmp_path):
    film(tmp_path / "a.png")
    film(tmp_path / "b.png", seed=1)
    for reader in (1, 2):
        film_label(tmp_path / f"truth{reader}.png")
    path = table(tmp_path, "image,label\na.png,truth1.png\na.png,truth2.png\nb.png,truth1.png\n")
    dataset, issues = survey(path)
    assert names(dataset) == ["b"]
    assert "names a.png a second time, and not the same of it" in issues[0].problem


def test_labels_without_images_are_never_taken_for_images(tmp_path):
    film_label(tmp_path / "labels" / "a.png")
    film(tmp_path / "pictures" / "a.png")
    with pytest.raises(InputError, match="without images/"):
        open_dataset(tmp_path)


def test_a_folder_of_slices_is_one_image_of_a_pair(tmp_path):
    for i in range(3):
        dicom(tmp_path / "images" / "liver" / f"{i}.dcm", series=1, instance=i, position=i)
    volume_label(tmp_path / "labels" / "liver.nii.gz", size=(8, 8, 3))
    dataset = open_dataset(tmp_path)
    assert names(dataset) == ["liver"]
    assert len(dataset.cases[0].series) == 3
    assert dataset.cases[0].images == (tmp_path / "images" / "liver",)


# -------------------------------------------------------------------------------------- classes


def test_class_folders(tmp_path):
    for name in ("normal", "virus"):
        for i in range(3):
            film(tmp_path / name / f"{i}.png", seed=i)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "classes"
    assert [(c.name, c.target) for c in dataset][2:4] == [
        ("normal__2", "normal"),
        ("virus__0", "virus"),
    ]


def test_class_folders_within_splits(tmp_path):
    for split in ("train", "val"):
        for name in ("normal", "virus"):
            for i in range(2):
                film(tmp_path / split / name / f"{split}{i}.png")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "classes"
    assert {(c.split, c.target) for c in dataset} == {
        ("train", "normal"), ("train", "virus"), ("validation", "normal"), ("validation", "virus"),
    }  # fmt: skip


def test_folders_of_one_image_each_are_no_classes_unless_told(tmp_path):
    for i in range(4):
        film(tmp_path / f"patient{i}" / "film.png")
    assert open_dataset(tmp_path).layout == "images"
    forced = open_dataset(tmp_path, Data(layout="classes"))
    assert {case.target for case in forced} == {f"patient{i}" for i in range(4)}


# --------------------------------------------------------------------------------------- nnunet


def nnunet(root, cases=2, channels=("CT",), **more):
    for i in range(cases):
        for c in range(len(channels)):
            volume(root / "imagesTr" / f"la_{i:03d}_{c:04d}.nii.gz", seed=i + 10 * c)
        volume_label(root / "labelsTr" / f"la_{i:03d}.nii.gz")
    content = {
        "channel_names": {str(c): name for c, name in enumerate(channels)},
        "labels": {"background": 0, "atrium": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    write_json(root / "dataset.json", content | more)
    return root


def test_nnunet_with_channels_folds_and_test_images(tmp_path):
    nnunet(tmp_path, channels=("T1", "T2"))
    for c in range(2):
        volume(tmp_path / "imagesTs" / f"la_900_{c:04d}.nii.gz")
    write_json(tmp_path / "splits_final.json", [{"train": ["la_000"], "val": ["la_001"]}])
    dataset, issues = survey(tmp_path)
    assert not issues
    assert dataset.layout == "nnunet"
    assert dataset.channels == ("T1", "T2")
    assert dataset.classes == ("background", "atrium")
    assert [(c.name, c.split, len(c.images), c.label is not None) for c in dataset] == [
        ("la_000", "train", 2, True),
        ("la_001", "validation", 2, True),
        ("la_900", "test", 2, False),
    ]
    assert [path.name for path in dataset.cases[0].images] == [
        "la_000_0000.nii.gz",
        "la_000_0001.nii.gz",
    ]


def test_nnunet_missing_channel_label_and_image(tmp_path):
    nnunet(tmp_path, cases=4, channels=("T1", "T2"))
    (tmp_path / "imagesTr" / "la_000_0001.nii.gz").unlink()
    (tmp_path / "labelsTr" / "la_001.nii.gz").unlink()
    for c in range(2):
        (tmp_path / "imagesTr" / f"la_002_{c:04d}.nii.gz").unlink()
    volume(tmp_path / "imagesTr" / "la_007.nii.gz")
    dataset, issues = survey(tmp_path)
    assert names(dataset) == ["la_001", "la_003"]
    assert sorted(issue.problem for issue in issues) == [
        "has no label",
        "has the channels 0000 where dataset.json declares 2",
        "is a label without an image",
        "is no channel of a case",
    ]


def test_nnunet_rgb_is_one_file_of_three_channels(tmp_path):
    film(tmp_path / "imagesTr" / "a_0000.png", mode="RGB")
    film_label(tmp_path / "labelsTr" / "a.png")
    write_json(
        tmp_path / "dataset.json",
        {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": {"background": 0, "x": 1},
            "file_ending": ".png",
        },
    )
    dataset = open_dataset(tmp_path)
    assert (len(dataset.cases[0].images), dataset.channels) == (1, ("R", "G", "B"))


def test_nnunet_refuses_regions(tmp_path):
    nnunet(tmp_path, labels={"background": 0, "whole": [1, 2], "core": 2})
    with pytest.raises(InputError, match="region 'whole'"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("value", [2, 255])
def test_nnunet_may_ignore_any_value(tmp_path, value):
    nnunet(tmp_path, labels={"background": 0, "a": 1, "ignore": value})
    for path in (tmp_path / "labelsTr").iterdir():
        volume_label(path, values=(0, 1, value))
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ("background", "a")
    for case in dataset.labelled:
        assert set(np.unique(read_case_label(case).array)) <= {0, 1, 255}
        assert (read_case_label(case).array == 255).any()


def test_nnunet_cases_that_dataset_json_lists(tmp_path):
    nnunet(tmp_path)
    entry = {"images": ["imagesTr/la_000_0000.nii.gz"], "label": "labelsTr/la_000.nii.gz"}
    climbing = {"images": ["../secret.nii.gz"], "label": "labelsTr/la_000.nii.gz"}
    nnunet(tmp_path, dataset={"mine": entry, "theirs": climbing})
    dataset, issues = survey(tmp_path)
    assert names(dataset) == ["mine"]
    assert "leads out of" in issues[0].problem


# ------------------------------------------------------------------------------------------ msd


def msd(root, **more):
    volume(root / "imagesTr" / "liver_1.nii.gz")
    volume_label(root / "labelsTr" / "liver_1.nii.gz")
    volume(root / "imagesTs" / "liver_2.nii.gz")
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}],
        "test": ["./imagesTs/liver_2.nii.gz"],
    }
    write_json(root / "dataset.json", content | more)
    return root


def test_msd(tmp_path):
    dataset = open_dataset(msd(tmp_path))
    assert dataset.layout == "msd"
    assert dataset.channels == ("CT",)
    assert dataset.classes == ("background", "liver", "cancer")
    assert [(c.name, c.split, c.label is not None) for c in dataset] == [
        ("liver_1", None, True),
        ("liver_2", "test", False),
    ]


def test_msd_lists_everything_that_is_wrong(tmp_path):
    training = [
        {"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"},
        {"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"},
        {"image": "./imagesTr/gone.nii.gz", "label": "./labelsTr/liver_1.nii.gz"},
        {"image": "/etc/passwd", "label": "./labelsTr/liver_1.nii.gz"},
        {"image": "imagesTr/../../x.nii.gz", "label": "x"},
        {"image": "./imagesTr/liver_1.nii.gz"},
        7,
    ]
    dataset, issues = survey(msd(tmp_path, training=training))
    assert names(dataset) == ["liver_1", "liver_2"]
    text = " | ".join(issue.problem for issue in issues)
    for part in ("does not exist", "leads out of", "names no label", "names no image", "a second"):
        assert part in text
    assert len(issues) == 6


# ---------------------------------------------------------------------------------------- dicom


def test_dicom_series_are_found_by_their_headers(tmp_path):
    for i in range(4):
        name = f"DOE_JANE/{i}.dcm" if i % 2 else f"DOE_JANE/more/IM{i}"
        dicom(tmp_path / name, series=1, instance=i, position=i)
    for i in range(4, 6):
        dicom(tmp_path / "DOE_JANE" / f"{i}.dcm", series=2, instance=i, position=i)
    for i in range(6, 8):  # two films of one series are two cases
        dicom(tmp_path / "x" / f"{i}.dcm", series=3, instance=i, modality="DX", patient="ROE^RON")
    dicom(tmp_path / "x" / "contours.dcm", series=4, instance=9, modality="RTSTRUCT")
    dataset, issues = survey(tmp_path)
    assert dataset.layout == "dicom"
    assert [issue.severity for issue in issues] == ["warning"]
    assert issues[0].problem.endswith("left out: 1 of the kind RTSTRUCT (x/contours.dcm)")
    assert sorted(len(case.series) for case in dataset) == [0, 0, 2, 4]
    assert len({case.group for case in dataset}) == 2
    text = repr([(case.name, case.group) for case in dataset]).upper()
    assert not any(word in text for word in ("DOE", "JANE", "ROE", "RON"))
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert names(open_dataset(moved)) == names(dataset)


def test_dicom_bad_files_and_copies(tmp_path):
    for i in range(3):
        dicom(tmp_path / f"{i}.dcm", series=1, instance=i, position=i)
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "0.dcm").read_bytes())
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("no image")
    dataset, issues = survey(tmp_path)
    assert len(dataset.cases[0].series) == 3
    problems = sorted(issue.problem.split(" (")[0] for issue in issues)
    first, second, third = problems
    assert (first, second) == (
        "is empty",
        "is no readable DICOM file: it lacks the preamble",
    )
    assert third in ("is the same image as 0.dcm", "is the same image as copy.dcm")


def test_dicom_groups_from_an_expression_are_hashed(tmp_path):
    for patient in ("ann", "bob"):
        for i in range(2):
            number = 10 * len(patient) + i + (patient == "bob") * 5
            dicom(
                tmp_path / patient / f"{i}.dcm",
                series=int(patient == "bob"),
                instance=number,
                position=i,
            )
    dataset = open_dataset(tmp_path, Data(group=r"^(\w+)/"))
    assert len({case.group for case in dataset}) == 2
    assert not {case.group for case in dataset} & {
        "ann",
        "bob",
        short_hash("ann"),
        short_hash("bob"),
    }


def test_dicom_patients_cannot_be_computed_from_their_numbers(tmp_path):
    """Three series of two patients: the same names in every copy of the folder, and none from PatientID."""
    for place in ("here", "there/deeper"):
        for series, patient in enumerate(("1001", "1001", "1002")):
            for i in range(2):
                path = tmp_path / place / f"{9 - series}{i}.dcm"
                dicom(path, series=series, instance=10 * series + i, patient=patient, position=i)
    here, there = (open_dataset(tmp_path / place, Data()) for place in ("here", "there/deeper"))
    assert [(c.name, c.group) for c in here] == [(c.name, c.group) for c in there]
    groups = [case.group for case in here]
    assert sorted(Counter(groups).values()) == [1, 2]
    for number in range(1000, 1010):
        for text in (str(number), f"patient {number}", f"patient-{number}"):
            assert not any(short_hash(text) in group for group in groups)


# ---------------------------------------------------------------------------------------- table


def table(root, text, name="cases.csv"):
    path = root / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("given", ["file", "folder"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_table(tmp_path, given, delimiter):
    for name in "abc":
        film(tmp_path / "films" / f"{name}.png")
    film_label(tmp_path / "truth" / "a.png")
    rows = [
        "Image,label,patient,class,split",
        "films/a.png,truth/a.png,p1,ill,train",
        "films/b.png,,p1,well,train",
        "films/c.png,,p2,well,val",
    ]
    path = table(tmp_path, "\ufeff" + "\n".join(rows).replace(",", delimiter))
    dataset = open_dataset(path if given == "file" else tmp_path)
    assert dataset.layout == "table"
    assert [(c.name, c.group, c.target, c.split, c.label is not None) for c in dataset] == [
        ("films__a", "p1", "ill", "train", True),
        ("films__b", "p1", "well", "train", False),
        ("films__c", "p2", "well", "validation", False),
    ]


def test_table_parquet(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    film(tmp_path / "a.png")
    parquet.write_table(
        pa.table({"image": ["a.png"], "patient": [7], "target": [None]}), tmp_path / "t.parquet"
    )
    case = open_dataset(tmp_path / "t.parquet").cases[0]
    assert (case.name, case.group, case.target) == ("a", "7", None)


def test_messages_name_the_line_of_the_file(tmp_path):
    film(tmp_path / "a.png")
    text = 'sep=;\n\nimage;note\n\n;\na.png;"two\nlines"\n\ngone.png;\n'
    _, issues = survey(table(tmp_path, text))
    assert [issue.where for issue in issues] == [f"{tmp_path / 'cases.csv'}, line 9"]
    table(tmp_path, "image,patient\n\na,1\n\n\na,2\n", "patients.csv")
    with pytest.raises(InputError, match=r"patients\.csv, line 6: gives a a second patient"):
        open_dataset(tmp_path, Data(layout="images"))


def test_table_lists_every_bad_row(tmp_path):
    outside = film(tmp_path / "outside.png")
    root = tmp_path / "set"
    film(root / "a.png")
    film(root / "sp ace 😀.png")
    rows = [
        "image,split,patient",
        "a.png,train,1",
        "a.png,train,1",
        "../outside.png,train,1",
        f"{outside},train,1",
        "gone.png,train,1",
        ",train,1",
        "sp ace 😀.png,train,",
        "a\x07.png,train,1",
        "a.png,autumn,1",
    ]
    dataset, issues = survey(table(root, "\n".join(rows)))
    assert names(dataset) == ["a", "sp ace 😀"]
    lines = {issue.where.rpartition(" ")[2]: issue.problem for issue in issues}
    assert lines["3"].endswith("second time")
    assert "leads out" in lines["4"]
    assert "leads out" in lines["5"]
    assert "does not exist" in lines["6"]
    assert "names no file" in lines["7"]
    assert "names no file" in lines["9"]
    assert "autumn" in lines["10"]
    assert any(
        issue.severity == "warning" and "without a patient" in issue.problem for issue in issues
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no rows"),
        ("image\n", "no rows"),
        ("file,label\na,b\n", "no column 'image'"),
        ("image,image\na,b\n", "two columns"),
        ("image\na.png,b\n", "2 fields"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, problem):
    with pytest.raises(InputError, match=problem):
        open_dataset(table(tmp_path, text))


def test_damaged_parquet(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"t\.parquet: is no readable table"):
        open_dataset(tmp_path / "t.parquet")


def test_several_tables_in_a_folder(tmp_path):
    film(tmp_path / "a.png")
    table(tmp_path, "image\na.png\n", "one.csv")
    table(tmp_path, "image\na.png\n", "two.csv")
    with pytest.raises(InputError, match=r"one\.csv and two\.csv"):
        open_dataset(tmp_path)


# ---------------------------------------------------------------------------------------- links


def test_links_out_of_the_folder_are_refused(tmp_path):
    film(tmp_path / "elsewhere" / "x.png")
    root = tmp_path / "set"
    film(root / "a.png")
    (root / "out.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "broken.png").symlink_to(root / "gone.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "inner.png").symlink_to(root / "a.png")
    dataset, issues = survey(root)
    assert names(dataset) == ["a", "inner"]
    lines = {os.path.basename(issue.where): issue.problem for issue in issues}
    assert lines == {
        "out.png": "is a link that leads out of the data folder",
        "folder": "is a link that leads out of the data folder",
        "broken.png": "is a broken link",
        "loop.png": "is a broken link",
    }
    with pytest.raises(InputError, match=r"leads out of .* 3 more errors"):
        open_dataset(root)
    rows = "image\na.png\nout.png\nfolder/x.png\n"
    dataset, issues = survey(table(root, rows))
    assert names(dataset) == ["a"]
    assert all("leads out" in issue.problem for issue in issues)
    assert len(issues) == 2


def test_a_link_to_the_data_folder_itself_is_fine(tmp_path):
    film(tmp_path / "real" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(open_dataset(tmp_path / "link")) == ["a"]


def test_pipes_do_not_hang(tmp_path):
    film(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    _, issues = survey(tmp_path)
    assert [issue.problem for issue in issues] == ["is not a regular file"]


# --------------------------------------------------------------------------------- nothing fits


def test_nothing_fits(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(tmp_path / "gone")
    with pytest.raises(InputError, match=r"\(found no files\)"):
        open_dataset(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no files but hidden ones and texts"):
        open_dataset(tmp_path)
    (tmp_path / "a.docx").touch()
    (tmp_path / "b.docx").touch()
    with pytest.raises(InputError, match=r"found 2 of \.docx") as caught:
        open_dataset(tmp_path)
    usual = ("a folder of images", "images/ and labels/", ".nii.gz", "layouts.md")
    assert all(words in str(caught.value) for words in usual)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400  # rather than a list of all layouts
    with pytest.raises(InputError, match="the layout 'nnunet'.*dataset.json with channel_names"):
        open_dataset(tmp_path, Data(layout="nnunet"))


def test_folders_of_radiffuse_are_no_data(tmp_path):
    run = tmp_path / "run"
    film(run / "overlay.png")
    (run / "config.yaml").touch()
    (run / "plan.json").touch()
    with pytest.raises(InputError, match="is a run of radiffuse"):
        open_dataset(run)
    film(tmp_path / "a.png")
    assert names(open_dataset(tmp_path)) == ["a"]
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "rows.jsonl").touch()
    with pytest.raises(InputError, match="that radiffuse prepared"):
        open_dataset(prepared)


def test_folders_of_splits_inside_images_are_the_split(tmp_path):
    for part, split in (("train", "train"), ("val", "validation")):
        film(tmp_path / "images" / part / "a.png")
        film_label(tmp_path / "labels" / part / "a.png")
        assert {case.name: case.split for case in open_dataset(tmp_path)}[f"{part}__a"] == (
            split if part == "val" else None
        )


def test_train_images_and_train_masks_are_no_classes(tmp_path):
    for i in range(3):
        film(tmp_path / "train_images" / f"{i}.png", seed=i)
        film_label(tmp_path / "train_masks" / f"{i}.png")
        film(tmp_path / "test_images" / f"{i}.png", seed=i + 3)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "pairs"
    assert len(dataset.labelled) == 3
    assert [case.split for case in dataset if case.label is None] == ["test"] * 3


def test_vessels_and_field_of_view_are_not_mistaken(tmp_path):
    film(tmp_path / "images" / "21.png")
    for folder in ("1st_manual", "mask"):
        film_label(tmp_path / folder / "21.png")
    with pytest.raises(InputError, match="holds both 1st_manual and mask"):
        open_dataset(tmp_path)
