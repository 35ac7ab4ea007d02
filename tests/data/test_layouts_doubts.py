"""Tables, patients, masks and links that once were passed over without a word."""

import codecs
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from layout_files import film, film_label, pairs, volume, volume_label, write_json
from PIL import Image

from radiffuse.automatic.labels import read_labels
from radiffuse.config import Data, Fit
from radiffuse.data.checking.check import check_path
from radiffuse.data.checking.text import format_check
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.tables import read_table
from radiffuse.errors import InputError


def groups(dataset):
    return [case.group for case in dataset]


def problems(path, **reader):
    return [issue.problem for issue in survey(path, Data(**reader))[1]]


def two(number):
    """The patient of the films 0 and 1, 2 and 3, and so on."""
    return f"p{number // 2}"


# ------------------------------------------------------------------------------------ patients


@pytest.mark.parametrize(
    "written",
    [
        "images\\c{}.png",
        ".\\images\\c{}.png",
        "D:\\export 7\\images\\c{}.png",
        "\\\\server\\share\\images\\c{}.png",
        "/home/somebody/films/images/c{}.png",
        "../films/images/c{}.png",
        "IMAGES/C{}.PNG",
        "c{}.dcm",
        "C{}",
        " images/c{} ",
    ],
)
def test_rows_of_patients_are_found_however_they_are_written(tmp_path, written):
    pairs(tmp_path, count=4)
    rows = [f"{written.format(i)};{two(i)}" for i in range(4)]
    (tmp_path / "Patients.CSV").write_text("\n".join(["Image;Patient", *rows]), "utf-16")
    dataset, issues = survey(tmp_path)
    assert groups(dataset) == [two(i) for i in range(4)]
    assert not issues
    assert dataset.patients_named


def test_a_table_of_patients_that_matches_nothing_is_an_error_even_with_skip_bad(tmp_path):
    pairs(tmp_path, count=4)
    table = tmp_path / "patients.csv"
    table.write_text("image,patient\n" + "".join(f"scan{i}.png,p\n" for i in range(4)))
    with pytest.raises(InputError, match=r"lists none of the 4 images, such as images/c0\.png"):
        open_dataset(tmp_path, Data(skip_bad=True))
    assert len(open_dataset(tmp_path, Data(group=r"(c)\d"))) == 4  # the user says otherwise
    assert len(open_dataset(tmp_path / "images" / "c0.png")) == 1  # a film alone cannot leak
    table.write_text("image,patient\nc0,a\nc1,a\nc9,b\nc2,\n")
    lines = problems(tmp_path)
    assert "does not list 2 images: images/c2.png, images/c3.png" in lines
    assert "lists 1 images that are no cases here: c9" in lines
    assert problems(tmp_path, only="c[01]") == ["lists 1 images that are no cases here: c9"]


@pytest.mark.parametrize("written", ["scans/c{}.png", "D:\\old\\c{}.png", "images/sub/c{}"])
def test_rows_of_other_folders_are_not_these_images(tmp_path, written):
    pairs(tmp_path, count=3)
    rows = "".join(f"{written.format(i)},p\n" for i in range(3))
    (tmp_path / "patients.csv").write_text("image,patient\n" + rows)
    with pytest.raises(InputError, match="lists none of the 3 images"):
        open_dataset(tmp_path)


def test_an_image_of_two_patients_is_refused_even_with_skip_bad(tmp_path):
    for folder in "ab":
        film(tmp_path / folder / "1.png", seed=ord(folder))
    table = tmp_path / "patients.csv"
    table.write_text("image,patient\nold/a/1.png,p\nnew/a/1.png,q\nb/1,r\n")
    with pytest.raises(InputError, match=r"gives a/1\.png 2 patients \(p, q\)"):
        open_dataset(tmp_path, Data(layout="images", skip_bad=True))
    table.write_text("image,patient\na/1.png,p\na/1.png,q\nb/1,r\n")
    with pytest.raises(InputError, match=r"line 3: gives a/1\.png a second patient"):
        open_dataset(tmp_path, Data(layout="images", skip_bad=True))
    table.write_text("image,patient\na/1.png,p\nold/a/1.png,q\nb/1,r\n")  # the nearest row counts
    assert groups(open_dataset(tmp_path, Data(layout="images"))) == ["p", "r"]


def test_patients_of_other_kinds_of_files_are_not_passed_over(tmp_path):
    pairs(tmp_path, count=2)
    (tmp_path / "patients.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"patients\.xlsx: is no table that is read"):
        open_dataset(tmp_path)
    (tmp_path / "patients.tsv").write_text("image\tpatient\nc0\ta\nc1\ta\n")
    with pytest.raises(InputError, match=r"holds both patients\.tsv and patients\.xlsx"):
        open_dataset(tmp_path)
    (tmp_path / "patients.xlsx").unlink()
    assert groups(open_dataset(tmp_path)) == ["a", "a"]


def test_each_folder_may_name_its_own_patients(tmp_path):
    for site, patients in (("a", "xxy"), ("b", "yzz")):
        for i, _ in enumerate(patients):
            film(tmp_path / site / "images" / f"{i}.png", seed=i + ord(site))
        rows = "".join(f"images/{i}.png,{site}{p}\n" for i, p in enumerate(patients))
        (tmp_path / site / "patients.csv").write_text("image,patient\n" + rows)
    dataset, issues = survey(tmp_path, Data(layout="images"))
    assert groups(dataset) == ["ax", "ax", "ay", "by", "bz", "bz"]
    assert not issues


def test_spellings_of_one_patient_are_one_patient(tmp_path):
    pairs(tmp_path, count=8)
    names = ["1", "1.0", "007", "7", "Ann  Lee", "ann lee", "2", "2"]
    rows = "".join(f"c{i},{name}\n" for i, name in enumerate(names))
    (tmp_path / "patients.csv").write_text("image,patient\n" + rows)
    dataset, issues = survey(tmp_path)
    assert groups(dataset) == ["1", "1", "007", "007", "Ann  Lee", "Ann  Lee", "2", "2"]
    (issue,) = issues
    assert "spells 2 patients in several ways (007 and 7, Ann  Lee and ann lee)" in issue.problem


def test_where_nothing_names_patients_the_check_says_so(tmp_path):
    from rich.console import Console

    pairs(tmp_path, count=3)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(format_check(check_path(tmp_path, workers=0)))
    assert "3 (no patient information: each file counts as one)" in shown.get()
    (tmp_path / "patients.csv").write_text("image,patient\nc0,a\nc1,a\nc2,b\n")
    with console.capture() as shown:
        console.print(format_check(check_path(tmp_path, workers=0)))
    assert "nothing names" not in shown.get()


# -------------------------------------------------------------------------------------- tables


TEXT = "image,label,patient\nbild/Zähne 0.png,maske/a.png,Müller\nbild/b.png,maske/b.png,Müller\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.encode("latin-1"),
        TEXT.encode("cp1252"),
        TEXT.replace(",", ";").encode(),
        ("sep=;\r\n" + TEXT.replace(",", ";").replace("\n", "\r\n")).encode("cp1252"),
        TEXT.replace(",", "\t").encode("utf-16"),
        ("\n\n" + TEXT.replace("\n", "\r") + ",,\r").encode(),
        TEXT.replace("image", ' "IMAGE" ').replace("label", "Label ").encode(),
        TEXT.replace("\n", ",,\n").encode(),  # two columns without a name
        TEXT.replace("/", "\\").encode("latin-1"),
        TEXT.replace("bild", "BILD").replace("b.png", "B.PNG").encode(),
        TEXT.replace("ä", "a\u0308").encode(),  # as macOS takes letters apart
    ],
)
def test_tables_of_any_editor_are_read(tmp_path, content):
    for image, mask in (("Zähne 0", "a"), ("b", "b")):
        film(tmp_path / "bild" / f"{image}.png")
        film_label(tmp_path / "maske" / f"{mask}.png")
    (tmp_path / "data.csv").write_bytes(content)
    dataset, issues = survey(tmp_path)
    assert (dataset.layout, groups(dataset)) == ("table", ["Müller", "Müller"])
    assert [case.name for case in dataset.labelled] == ["bild__Zähne 0", "bild__b"]
    assert not issues


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,label\nD:\\films\\a.png,D:\\masks\\a.png\n", "names no image that is there"),
        ("image,label\n/other/img/a.png,/other/msk/a.png\n", "names no image that is there"),
        ("image,label,Label\nimg/a.png,msk/a.png,1\n", r"two columns of the same name \(label\)"),
        ("Image,image\nimg/a.png,msk/a.png\n", r"two columns of the same name \(image\)"),
        ("image,label\nimg/a.png,msk/a.png,3\n", "has 3 fields"),
        ("image,label\n", "holds no rows"),
    ],
)
def test_a_table_of_images_that_cannot_be_used_is_never_passed_over(tmp_path, text, problem):
    for name in "ab":
        film(tmp_path / "img" / f"{name}.png")
        film_label(tmp_path / "msk" / f"{name}.png")
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(InputError, match=problem):
        open_dataset(tmp_path, Data(skip_bad=True))
    film(tmp_path / "alone" / "a.png")
    shutil.copy(tmp_path / "data.csv", tmp_path / "alone")
    with pytest.raises(InputError, match=problem):
        open_dataset(tmp_path / "alone")


def test_what_a_table_states_is_not_lost_to_names_of_folders(tmp_path):
    pairs(tmp_path, count=2)
    table = tmp_path / "data.csv"
    table.write_text("image,label,patient\nimages/c0.png,labels/c0.png,1\n")
    with pytest.raises(InputError, match=r"layout pairs, without its label and patient"):
        open_dataset(tmp_path)
    assert open_dataset(table).layout == "table"
    assert "names images, but" in problems(tmp_path, layout="pairs")[0]
    table.write_text("image,age\nimages/c0.png,7\n")  # states nothing that matters
    assert "names images, but" in problems(tmp_path)[0]


def test_tables_without_a_column_image(tmp_path):
    film(tmp_path / "a.png")
    film_label(tmp_path / "m.png")
    (tmp_path / "notes.csv").write_text("who,when\nme,today\n")
    (tmp_path / "ragged.csv").write_text("a\nb,c,d\n")
    (tmp_path / "empty.csv").touch()
    assert not problems(tmp_path)
    (tmp_path / "films.csv").write_text("file,mask_path\na.png,m.png\n")
    assert problems(tmp_path) == [
        "names files in the column 'file', which is not read",
        "names files in the column 'mask_path', which is not read",
    ]
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    assert any("passed over" in problem for problem in problems(tmp_path))


def test_columns_of_a_data_table_that_are_not_read(tmp_path):
    film(tmp_path / "a.png")
    film_label(tmp_path / "m.png")
    (tmp_path / "data.csv").write_text("image,mask,Patient ID,age\na.png,m.png,7,60\n")
    assert problems(tmp_path) == [
        "has the column 'patient id', which is not read",
        "names files in the column 'mask', which is not read",
    ]


def test_a_workbook_of_images_is_said(tmp_path):
    film(tmp_path / "a.png")
    for name, cells in (("data.xlsx", ("Image", "label")), ("notes.xlsx", ("who", "images"))):
        with zipfile.ZipFile(tmp_path / name, "w") as book:
            texts = "".join(f"<si><t>{cell}</t></si>" for cell in cells)
            book.writestr("xl/sharedStrings.xml", f"<sst>{texts}</sst>")
    (tmp_path / "broken.xlsx").write_bytes(b"PK")
    assert problems(tmp_path) == ["is a workbook, which is not read"]


def test_empty_cells_of_a_parquet_file_are_empty(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({" Image": ["a", "b"], "patient": [1.0, float("nan")]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == [
        {"image": "a", "patient": "1.0"},
        {"image": "b", "patient": ""},
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_json_of_any_editor_is_read(tmp_path, encoding):
    from layout_files import coco

    path = coco(tmp_path)
    path.write_bytes(path.read_text().encode(encoding))
    assert open_dataset(tmp_path).layout == "coco"
    path.write_bytes(path.read_text(encoding).replace("tooth", "Zähne").encode("latin-1"))
    with pytest.raises(InputError, match="is not readable JSON"):
        open_dataset(tmp_path)


# --------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}.png", "{}_mask.png"),
        ("case_{}.png", "case_{}_Mask.png"),
        ("{}.png", "{}-gt.png"),
        ("a b ({}).png", "a b ({})_segmentation.png"),
        ("{}/image.png", "{}/mask.png"),
        ("{}/scan.png", "{}/label.png"),
        ("images/{}.png", "annotations/{}.png"),
        ("Original/{}.png", "Ground Truth/{}.png"),
        ("images/{}.png", "GT/{}.png"),
        ("Images/{}.png", "MASKS/{}.png"),
        ("img/{}.png", "Segmentation/{}_seg.png"),
        ("images/{}.png", "masks/{}_mask.png"),
        ("images/{}_image.png", "ground-truth/{}.png"),
    ],
)
def test_masks_with_clear_names_are_paired(tmp_path, image, mask):
    for i in range(3):
        film(tmp_path / image.format(i), seed=i)
        film_label(tmp_path / mask.format(i))
    dataset, issues = survey(tmp_path)
    assert not issues
    assert len(dataset.labelled) == len(dataset) == 3
    assert dataset.channels == ("image",) or image == "{}/scan.png"
    for i, case in enumerate(dataset):
        assert case.images == (tmp_path / image.format(i),)
        assert case.label == tmp_path / mask.format(i)


def test_an_image_without_its_mask_is_named(tmp_path):
    for i in range(5):
        film(tmp_path / f"c_{i}.png", seed=i)
        if i:
            film_label(tmp_path / f"c_{i}_mask.png")
    dataset, issues = survey(tmp_path)
    assert (len(dataset), len(dataset.labelled)) == (5, 4)
    assert [(os.path.basename(i.where), i.problem) for i in issues] == [("c_0.png", "has no label")]


@pytest.mark.parametrize(
    "mask", ["x/{}_Lesion-Mask1.png", "lesionMasks/{}.png", "x/gt {}.png", "x/Ground truth/{}.png"]
)
def test_masks_by_name_that_pair_with_nothing_are_said_in_every_act(tmp_path, capsys, mask):
    for i in range(6):
        film(tmp_path / "x" / "y" / f"{i}.png", seed=i)
        film(tmp_path / mask.format(i), seed=10 + i)
    (problem,) = problems(tmp_path)
    assert problem.startswith("holds 6 unlabelled images that are masks by their names: ")
    open_dataset(tmp_path)
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("name", ["labels", "labelsTr", "Ground Truth"])
def test_a_folder_of_masks_given_by_itself_is_said(tmp_path, name):
    volume_label(tmp_path / name / "a.nii.gz")
    volume_label(tmp_path / name / "inner" / "b.nii.gz", values=range(100))
    (problem,) = problems(tmp_path / name)
    assert problem.startswith("holds 2 unlabelled images that are masks by their names")


def test_images_of_few_values_are_said_before_anything_is_trained(tmp_path, capsys):
    from radiffuse.config import Machine, PlanSettings
    from radiffuse.data.plan import make_plan
    from radiffuse.train.cases import prepare_dataset

    for i in range(4):
        film(tmp_path / f"{i}.png", seed=i)
        film_label(tmp_path / f"m{i}.png", values=(0, 10 + i))
    found = [issue.problem for issue in check_path(tmp_path, workers=0).issues]
    wanted = "holds 4 unlabelled images that hold no more than 16 values, as masks do"
    assert [problem for problem in found if wanted in problem]
    dataset = open_dataset(tmp_path)
    plan = make_plan(dataset, PlanSettings(size=(16, 16)), labelled=False)
    assert "masks do" not in capsys.readouterr().err
    reader = Data(cache=str(tmp_path / "cache"))
    prepare_dataset(dataset, plan, reader, Machine(), labelled=False)
    assert f"{wanted}: m0.png, m1.png, m2.png, m3.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    "layout", ["{}.png", "case-{}/film.png", "train/segment {}.png", "unlabelled/{}_t1.png"]
)
def test_images_are_not_suspected(tmp_path, layout):
    for i in range(6):
        film(tmp_path / layout.format(i), seed=i)
    assert not [i for i in check_path(tmp_path, workers=0).issues if "masks" in i.problem]


# --------------------------------------------------------------------------------------- links


def linked(place, target):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target, target_is_directory=True)


NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}, "numTraining": 1}


def _tree(root, layout):
    """A data set, and the folder in it that will be a link."""
    if layout == "pairs":
        return pairs(root) / "labels"
    if layout == "split":
        pairs(root / "train")
        return root / "train" / "images"
    if layout == "annotated":
        film(root / "train" / "a.png")
        return film_label(root / "trainannot" / "a.png").parent
    if layout == "nnunet":
        volume(root / "imagesTr" / "a_0000.nii.gz")
        volume_label(root / "labelsTr" / "a.nii.gz")
        write_json(root / "dataset.json", NNUNET | {"file_ending": ".nii.gz"})
        return root / "imagesTr"
    if layout == "msd":
        volume(root / "imagesTr" / "a.nii.gz")
        volume_label(root / "labelsTr" / "a.nii.gz")
        entry = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
        write_json(root / "dataset.json", {"training": [entry], "labels": {"0": "b", "1": "x"}})
        return root / "imagesTr"
    if layout == "totalsegmentator":
        volume(root / "s1" / "ct.nii.gz")
        volume_label(root / "s1" / "segmentations" / "liver.nii.gz")
        return root / "s1"
    if layout == "table":
        film(root / "films" / "a.png")
        (root / "data.csv").write_text("image,label\nfilms/a.png,\n")
        return root / "films"
    if layout == "coco":
        from layout_files import coco

        coco(root)
        return root / "images"
    for i in range(2):
        film(root / "in" / layout / f"{i}.png", seed=i)
        film(root / "in" / "other" / f"{i}.png", seed=2 + i)
    return root / "in" / layout


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    "layout",
    [
        *("pairs", "split", "annotated", "nnunet", "msd", "totalsegmentator", "table", "coco"),
        "images",
    ],
)
def test_a_linked_folder_is_refused_in_every_layout(tmp_path, layout, inside):
    root = tmp_path / "set"
    folder = _tree(root, layout)
    open_dataset(root)
    target = (root / ".store" if inside else tmp_path) / "target"
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    linked(folder, target)
    with pytest.raises(InputError, match=r"is a link (to another folder|that leads out)"):
        open_dataset(root)
    linked(tmp_path / "way in", root)
    with pytest.raises(InputError, match=r"is a link (to another folder|that leads out)"):
        open_dataset(tmp_path / "way in")


def test_a_file_may_be_a_link_to_anywhere_in_the_data_folder_and_nowhere_else(tmp_path):
    root = pairs(tmp_path / "set")
    (root / ".store").mkdir()
    label = root / "labels" / "c0.png"
    label.rename(root / ".store" / "l.png")
    label.symlink_to("../.store/l.png")
    linked(tmp_path / "way in", root)
    for path in (root, tmp_path / "way in"):
        assert len(open_dataset(path).labelled) == 3
    shutil.move(root / ".store" / "l.png", tmp_path)
    label.unlink()
    label.symlink_to(tmp_path / "l.png")
    with pytest.raises(InputError, match="leads out of the data folder"):
        open_dataset(root)


@pytest.mark.parametrize("name", ["patients.csv", "data.csv", "classes.json", "dataset.json"])
def test_tables_and_lists_are_no_links_out(tmp_path, name):
    root = pairs(tmp_path / "set")
    texts = {"patients.csv": "image,patient\nc0,1\n", "data.csv": "image\nimages/c0.png\n"}
    (tmp_path / name).write_text(texts.get(name, '{"0": "background", "1": "x"}'))
    (root / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match="leads out of the data folder"):
        open_dataset(root)


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_voxels_behind_a_header_are_no_link_out(tmp_path, suffix):
    folder = tmp_path / "set"
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 255, (4, 5, 6), dtype=np.uint8)
    array.tofile(tmp_path / "a.raw")
    if suffix == "mhd":
        header = "NDims = 3\nDimSize = 6 5 4\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n"
        header += "ElementDataFile = a.raw\n"
    else:
        header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 6 5 4\nspacings: 1 1 1\n"
        header += "encoding: raw\ndata file: a.raw\n\n"
    (folder / f"a.{suffix}").write_text(header)
    (folder / "a.raw").symlink_to(tmp_path / "a.raw")
    (issue,) = check_path(folder, workers=0).errors
    assert issue.where == str(folder / f"a.{suffix}")
    assert "its voxels are in a.raw, which is a link that leads out" in issue.problem
    (folder / "a.raw").unlink()
    shutil.move(tmp_path / "a.raw", folder / "b.raw")
    (folder / "a.raw").symlink_to("b.raw")
    assert not check_path(folder, workers=0).errors


def test_loops_of_links_end(tmp_path):
    root = pairs(tmp_path / "set")
    linked(root / "images" / "again", root)
    linked(tmp_path / "a", tmp_path / "b")
    linked(tmp_path / "b", tmp_path / "a")
    with pytest.raises(InputError, match="again: is a link to another folder"):
        open_dataset(root)
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(Path(tmp_path / "a"))


def test_pixels_are_those_of_the_pair(tmp_path):
    """The label that is read is the mask of that image."""
    from radiffuse.data.cases import read_case_label

    for i in range(3):
        film(tmp_path / f"{i}.png", seed=i)
        mask = np.zeros((24, 20), np.uint8)
        mask[i, i] = 1
        Image.fromarray(mask).save(tmp_path / f"{i}_mask.png")
    for i, case in enumerate(open_dataset(tmp_path)):
        assert np.argwhere(read_case_label(case).array[0]).tolist() == [[i, i]]


# ------------------------------------------------------------------------------------ labels that were not found


@pytest.mark.parametrize(
    ("written", "given", "said"),
    [
        ("lables", ".", "If lables holds the label maps, call it labels"),
        ("Maskes", ".", "If Maskes holds the label maps, call it masks"),
        ("labels", "images", "Give the folder that holds both images and labels: .*films"),
        ("lateral", ".", "docs/reference/layouts.md"),
    ],
)
def test_where_labels_are_missing_the_folder_that_may_hold_them_is_named(
    tmp_path, written, given, said
):
    pairs(tmp_path / "films", count=2)
    (tmp_path / "films" / "labels").rename(tmp_path / "films" / written)
    with pytest.raises(InputError, match=said):
        read_labels(Fit(data=str(tmp_path / "films" / given), out="x"), write=False)
    remedies = " ".join(one.remedy for one in check_path(tmp_path / "films", workers=0).issues)
    assert ("They count as images: if" in remedies) == (written in ("lables", "Maskes"))
