"""The data sets of the recycling paper, small, in exactly the layouts in which they are downloaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_files import film, film_label, volume, volume_label, write_json

from radiffuse.cli.settings import from_arguments, from_values
from radiffuse.config import Data, Fit, PlanSettings, Split
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.checking.check import check_path
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.plan import Plan, make_plan
from radiffuse.data.prepare import prepare
from radiffuse.data.splits import Splits, load_splits
from radiffuse.errors import InputError


def amos(root: Path) -> Path:
    numbers = {"Tr": [1, 4, 500, 507], "Va": [8, 13, 18, 22, 590], "Ts": [2, 3]}
    for part, all_ in numbers.items():
        for n in all_:
            volume(root / f"images{part}" / f"amos_{n:04d}.nii.gz", seed=n)
            if part != "Ts":
                volume_label(root / f"labels{part}" / f"amos_{n:04d}.nii.gz", values=range(16))

    def listed(part: str) -> list[dict[str, str]]:
        entry = {
            "image": f"./images{part}/amos_%s.nii.gz",
            "label": f"./labels{part}/amos_%s.nii.gz",
        }
        return [{k: v % f"{n:04d}" for k, v in entry.items()} for n in numbers[part]]

    organs = ["background", "spleen", "right kidney", "left kidney", "gall bladder", "esophagus",
              "liver", "stomach", "arota", "postcava", "pancreas", "right adrenal gland",
              "left adrenal gland", "duodenum", "bladder", "prostate/uterus"]  # fmt: skip
    content = {
        "name": "AMOS", "modality": {"0": "CT"}, "labels": {str(i): o for i, o in enumerate(organs)},
        "numTraining": 4, "training": listed("Tr"), "validation": listed("Va"),
        "test": listed("Ts"),  # names labels that were never released
    }  # fmt: skip
    write_json(root / "dataset.json", content)
    return root


def pelvic(root: Path) -> Path:
    """The institutions are listed in an order that is not that of the names."""
    lines = []
    for i in reversed(range(24)):
        name = f"CMICProstate{i:03d}000"
        volume(root / "data" / f"{name}_img.nii", seed=i)
        volume_label(root / "data" / f"{name}_mask.nii", values=range(9))
        lines.append(f"{name} {1 if i < 16 else 2}")
    (root / "institution.txt").write_text("\n".join(lines) + "\n")
    return root


def brats(root: Path) -> Path:
    for i in (0, 2, 3, 5, 495):
        name = f"BraTS2021_{i:05d}"
        for j, modality in enumerate(("flair", "t1", "t1ce", "t2")):
            volume(root / name / f"{name}_{modality}.nii.gz", seed=10 * i + j)
        volume_label(root / name / f"{name}_seg.nii.gz", values=(0, 1, 2, 4))
    return root


def ultrasound(root: Path) -> Path:
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        for i in range(count):
            name = f"BB_anon_{part}{i}_3.png"
            film(root / part / name, seed=10 * count + i)
            film_label(root / f"{part}annot" / name, values=(0, 255))
    film(root / "train" / "TA_anon_1_1.png", seed=99)  # as in life, not every image has a mask
    film_label(root / "testannot" / "TA_anon_2_1.png")
    return root


def settings(name: str) -> Fit:
    given = {"data": "d", "out": "o", "config": f"recycling-{name}-paper"}
    found = from_values("fit", given)
    assert isinstance(found, Fit)
    return found


def prepared(root: Path, name: str, tmp_path: Path, **split: Any) -> tuple[Splits, Plan]:
    """Check, split, plan and prepare as ``fit`` does with the recipe; sizes are those of toys."""
    chosen = settings(name)
    assert chosen.reader.skip_bad or not check_path(root, chosen.reader).errors
    dataset = open_dataset(root, chosen.reader).labelled
    splits = load_splits(dataset, replace(chosen.split, **split), tmp_path / "cache")
    plan = make_plan(dataset, chosen.plan, labelled=True)
    arrays = prepare(dataset, plan, labelled=True, cache=tmp_path / "cache")
    assert len(arrays) == len(dataset)
    for i in range(len(arrays)):
        values = np.unique(arrays.label(i))
        assert set(values[values != 255]) <= set(range(len(plan.classes)))
    return splits, plan


def test_amos(tmp_path: Path) -> None:
    splits, plan = prepared(amos(tmp_path / "amos22"), "amos", tmp_path, validation_kept=1)
    assert splits.train == ("amos_0001", "amos_0004", "amos_0500")  # CT alone
    assert splits.validation == ("amos_0008",)
    assert splits.test == ("amos_0013", "amos_0018", "amos_0022")
    assert plan.spacing == (1.5, 1.5, 5.0)
    assert (plan.low, plan.high) == (-991, 362)
    assert len(plan.classes) == 16
    assert settings("amos").split.validation_kept == 10


def test_pelvic(tmp_path: Path) -> None:
    splits, plan = prepared(pelvic(tmp_path / "pelvic"), "pelvic", tmp_path)
    for numbers in (range(15, -1, -1), range(23, 15, -1)):  # as listed, of each institution
        names = [f"CMICProstate{i:03d}000" for i in numbers]
        last = int(0.75 * len(names)) - 2
        assert set(names) & set(splits.validation) == set(names[:2])
        assert set(names) & set(splits.train) == set(names[2:last])
        assert set(names) & set(splits.test) == set(names[last:])
    assert plan.channels == ("image",)
    assert plan.spacing == (0.75, 0.75, 2.5)
    assert plan.classes[8] == "neurovascular bundle"


def test_shares_are_taken_of_each_institution(tmp_path: Path) -> None:
    dataset = open_dataset(pelvic(tmp_path / "pelvic"), settings("pelvic").reader)
    splits = load_splits(dataset, Split(test=0.25, validation=2), tmp_path / "cache")
    first = {case.name for case in dataset if case.site == "1"}
    for part, counts in (
        (splits.test, (4, 2)),
        (splits.validation, (2, 2)),
        (splits.train, (10, 4)),
    ):
        assert len(set(part) & first) == counts[0]
        assert len(set(part) - first) == counts[1]


def of_sites(**counts: int) -> Dataset:
    cases = [
        Case(f"{site}{i:03d}", (Path("i"),), Path("l"), group=f"{site}{i}", site=site, place=i)
        for site, count in counts.items()
        for i in range(count)
    ]
    return Dataset(Path("data"), "suffixes", tuple(cases))


def test_the_pelvic_rule_refuses_what_is_too_small_or_has_no_sites(tmp_path: Path) -> None:
    rule = settings("pelvic").split
    splits = load_splits(of_sites(a=200, b=31), rule, tmp_path)
    assert len(splits.validation) == 4
    assert len(splits.train) == (148 - 2) + (21 - 2)
    for dataset in (of_sites(a=20, b=5), of_sites(**{"": 20})):
        with pytest.raises(InputError, match="site"):
            load_splits(dataset, rule, tmp_path)


def test_places_are_where_the_rule_of_the_released_code_puts_them(tmp_path: Path) -> None:
    """[code] of arXiv 2308.16355: validation up to 2, training up to int(0.75 n) - 2, in each institution."""
    rule = settings("pelvic").split
    for count in range(7, 140):
        splits = load_splits(of_sites(a=count), rule, tmp_path)
        last = int(0.75 * count) - 2
        parts = (splits.validation, splits.train, splits.test)
        assert [len(part) for part in parts] == [2, last - 2, count - last]


@pytest.mark.parametrize(
    "places", ["", "test", "train:5", "train,test", "train:x,test", "all:2,test"]
)
def test_places_that_say_nothing_are_refused(tmp_path: Path, places: str) -> None:
    rule = Split(places=tuple(places.split(",")))
    if places == "test":
        assert len(load_splits(of_sites(a=9), rule, tmp_path).test) == 9
        return
    with pytest.raises(InputError, match="does not say where each part ends"):
        load_splits(of_sites(a=9), rule, tmp_path)


def test_brats(tmp_path: Path) -> None:
    root = brats(tmp_path / "BraTS2021_Training_Data")
    splits, plan = prepared(root, "brats", tmp_path, validation=1, test=2)
    assert splits.train == ("BraTS2021_00000", "BraTS2021_00002")
    assert splits.validation == ("BraTS2021_00003",)
    assert splits.test == ("BraTS2021_00005", "BraTS2021_00495")
    assert plan.channels == ("flair", "t1", "t1ce", "t2")
    assert plan.classes == ("background", "whole tumor")
    assert plan.crop == "nonzero"
    own = settings("brats").split
    assert (own.order, own.validation, own.test) == ("name", 31, 282)


def test_ultrasound(tmp_path: Path) -> None:
    splits, plan = prepared(ultrasound(tmp_path / "MuscleCNN"), "ultrasound", tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [5, 2, 3]
    assert plan.size == (480, 512)
    assert (plan.intensity, plan.low, plan.high) == ("window", 0, 255)
    assert plan.postprocess[0] == plan.postprocess[-1] == "fill"
    assert plan.classes == ("background", "muscle")


@pytest.mark.parametrize("mode", ["L", "1"])
def test_masks_of_eight_bits_and_of_one_are_the_same(mode: str, tmp_path: Path) -> None:
    from PIL import Image

    root = ultrasound(tmp_path)
    for path in root.glob("*annot/*.png"):
        Image.open(path).convert(mode).save(path)
    problems = [issue.problem for issue in check_path(root, settings("ultrasound").reader).errors]
    assert sorted(problems) == ["has no label", "is a label without an image"]
    label = read_case_label(open_dataset(root, settings("ultrasound").reader).labelled.cases[0])
    assert label.array.ravel()[:4].tolist() == [0, 1, 0, 1]


# ------------------------------------------------------------------------------------- what makes them work


def test_a_case_that_lacks_a_channel_or_its_label_is_named(tmp_path: Path) -> None:
    root = brats(tmp_path)
    (root / "BraTS2021_00002" / "BraTS2021_00002_t1ce.nii.gz").unlink()
    (root / "BraTS2021_00003" / "BraTS2021_00003_seg.nii.gz").unlink()
    dataset, issues = survey(root)
    assert dataset.layout == "suffixes"
    assert len(dataset.labelled) == 3
    assert len(dataset) == 4
    problems = " ".join(f"{issue.where} {issue.problem}" for issue in issues)
    assert "has the images flair, t1, t2 where other cases have flair, t1, t1ce, t2" in problems
    assert "BraTS2021_00003" in problems
    assert "has no label" in problems


@pytest.mark.parametrize(
    "files",
    [
        (*(f"scan_{i}.png" for i in range(6)), "odd_mask.png"),
        ("a_left.png", "a_right.png", "b_left.png", "b_right.png"),
        ("a_t1.png", "b_t1.png"),
        ("a_t1.png", "a_t2.png", "notes.png"),
        ("a_mask.png", "b_mask.png"),
        ("a_seg.png", "a_mask.png"),
    ],
)
def test_a_folder_of_plain_images_is_not_taken_for_suffixes(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    for i, name in enumerate(files):
        film(tmp_path / name, seed=i)
    assert survey(tmp_path)[0].layout == "images"


def test_cases_to_predict_need_no_label(tmp_path: Path) -> None:
    root = brats(tmp_path / "BraTS2021_ValidationData")
    for path in root.glob("*/*_seg.nii.gz"):
        path.unlink()
    dataset = open_dataset(root)
    assert dataset.layout == "suffixes"
    assert dataset.channels == ("flair", "t1", "t1ce", "t2")
    assert len(dataset) == 5
    assert not check_path(root).issues
    one = open_dataset(root / "BraTS2021_00002")
    assert [case.name for case in one] == ["BraTS2021_00002"]


def test_other_words_are_channels_where_the_layout_is_named(tmp_path: Path) -> None:
    for name in ("a-left.png", "a-right.png", "b-left.png", "b-right.png"):
        film(tmp_path / name, seed=len(name) + ord(name[0]))
    assert open_dataset(tmp_path, Data(layout="suffixes")).channels == ("left", "right")
    film(tmp_path / "a-left.tif", seed=9)
    with pytest.raises(InputError, match="is the same part of the case as a-left"):
        open_dataset(tmp_path, Data(layout="suffixes"))


def test_label_values_become_classes_and_others_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        film(tmp_path / "images" / f"{i}.png", seed=i)
        film_label(tmp_path / "masks" / f"{i}.png", values=(0, 255))
    plain = open_dataset(tmp_path)
    assert set(np.unique(read_case_label(plain.cases[0]).array)) == {0, 255}
    chosen = open_dataset(tmp_path, Data(label_values=(0, 255), class_names=("background", "lung")))
    assert set(np.unique(read_case_label(chosen.cases[0]).array)) == {0, 1}
    assert chosen.classes == ("background", "lung")
    film_label(tmp_path / "masks" / "1.png", values=(0, 7, 255))
    with pytest.raises(InputError, match=r"1\.png: holds the value 7, which is none of 0, 255"):
        read_case_label(chosen.cases[1])
    with pytest.raises(InputError, match="2 names for 3 label values"):
        open_dataset(tmp_path, Data(label_values=(0, 1, 2), class_names=("a", "b")))
    with pytest.raises(InputError, match="names a value twice"):
        open_dataset(tmp_path, Data(label_values=(0, 1, 1)))


@pytest.mark.parametrize("values", [None, (0, 1, 2, 3), (0, 1, 2, 3, 4)])
def test_values_of_the_same_name_are_one_class(
    values: tuple[int, ...] | None, tmp_path: Path
) -> None:
    film(tmp_path / "images" / "a.png")
    film_label(tmp_path / "labels" / "a.png", values=(0, 1, 2, 3, 255))
    names = ("background", "core", "edema", "core", "other")[: len(values or range(4))]
    dataset = open_dataset(tmp_path, Data(label_values=values, class_names=names))
    assert dataset.classes == ("background", "core", "edema", "other")[: len(names) - 1]
    found = read_case_label(dataset.cases[0]).array.ravel()[:5]
    assert found.tolist() == [0, 1, 2, 1, 255]


def test_other_label_values_are_other_arrays(tmp_path: Path) -> None:
    for i in range(2):
        film(tmp_path / "images" / f"{i}.png", seed=i)
        film_label(tmp_path / "masks" / f"{i}.png", values=(0, 1, 2))
    found = []
    for values in ((0, 1, 2), (0, 2, 1)):
        dataset = open_dataset(tmp_path, Data(label_values=values))
        plan = Plan(2, ("image",), ("x", "y", "z"), (24, 20))
        found.append(prepare(dataset, plan, labelled=True, cache=tmp_path / "cache").label(0))
    assert np.array_equal(found[0] == 1, found[1] == 2)
    assert (found[0] == 1).any()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("CMICProstate000000 1 extra\n", "line 1 holds 3 words"),
        ("CMICProstate000000 1\n", "names no site of the case"),
        ("CMICProstate000000 1\nCMICProstate000000 2\n", "line 2 names CMICProstate000000 again"),
    ],
)
def test_a_table_of_sites_that_does_not_fit(tmp_path: Path, text: str, word: str) -> None:
    root = pelvic(tmp_path)
    (root / "institution.txt").write_text(text)
    with pytest.raises(InputError, match=word):
        open_dataset(root, Data(sites="institution.txt"))
    with pytest.raises(InputError, match="nowhere.txt"):
        open_dataset(root, Data(sites="nowhere.txt"))


def test_only_takes_the_cases_whose_path_matches(tmp_path: Path) -> None:
    root = amos(tmp_path)
    assert len(open_dataset(root)) == 11
    assert len(open_dataset(root, Data(only="imagesTs"))) == 2
    assert not check_path(root, settings("amos").reader).issues
    with pytest.raises(InputError, match="no case whose path matches"):
        open_dataset(root, Data(only="nothing"))
    with pytest.raises(InputError, match="no regular expression"):
        open_dataset(root, Data(only="("))


def decathlon(root: Path, declared: int = 4, held: int = 4) -> Path:
    """Task01 of the Decathlon: four modalities along the fourth axis."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    (root / "imagesTr").mkdir(parents=True)
    entries = []
    for i in range(3):
        array = rng.normal(size=(8, 7, 6, held)).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1])), root / "imagesTr" / f"B_{i}.nii.gz")
        volume_label(root / "labelsTr" / f"B_{i}.nii.gz", values=(0, 1, 2, 3))
        entries.append({"image": f"./imagesTr/B_{i}.nii.gz", "label": f"./labelsTr/B_{i}.nii.gz"})
    names = ["FLAIR", "T1w", "t1gd", "T2w"][:declared]
    content = {"modality": {str(i): n for i, n in enumerate(names)}, "training": entries, "test": [],
               "labels": {"0": "background", "1": "edema", "2": "core", "3": "enhancing"}}  # fmt: skip
    write_json(root / "dataset.json", content)
    return root


def test_four_dimensional_files_of_the_decathlon_are_channels(tmp_path: Path) -> None:
    import nibabel as nib

    root = decathlon(tmp_path / "Task01_BrainTumour")
    assert not check_path(root, Data()).errors
    dataset = open_dataset(root)
    scan = read_case_image(dataset.cases[1])
    source = nib.load(root / "imagesTr" / "B_1.nii.gz")
    np.testing.assert_array_equal(scan.array, np.moveaxis(np.asarray(source.dataobj), -1, 0))
    np.testing.assert_allclose(scan.affine, source.affine)
    plan = make_plan(dataset, PlanSettings(size=(8, 8, 8)), labelled=True)
    assert plan.channels == ("FLAIR", "T1w", "t1gd", "T2w")
    arrays = prepare(dataset, plan, labelled=True, cache=tmp_path / "cache")
    assert arrays.image(0).shape[0] == 4


def test_four_dimensional_files_elsewhere_may_be_time_and_are_refused(tmp_path: Path) -> None:
    root = decathlon(tmp_path / "a", declared=1)
    with pytest.raises(InputError, match="has 4 dimensions"):
        read_case_image(open_dataset(root).cases[0])
    root = decathlon(tmp_path / "b", held=3)
    with pytest.raises(InputError, match="holds 3 channels where the data set declares 4"):
        read_case_image(open_dataset(root).cases[0])


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "recycling-data.md"
CHECKS = [line.split() for line in PAGE.read_text().splitlines() if "radiffuse check" in line]


@pytest.mark.parametrize("line", CHECKS, ids=[" ".join(words[2:]) for words in CHECKS])
def test_the_checks_of_the_docs_page_run(
    line: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shlex

    from radiffuse.cli import main

    make = {"amos22": amos, "pelvic": pelvic, "MuscleCNN": ultrasound}.get(line[2], brats)
    make(tmp_path / line[2])
    monkeypatch.chdir(tmp_path)
    code = main(shlex.split(" ".join(line[1:])))
    assert code == (2 if make is ultrasound else 0)  # it names what skip_bad leaves out
    assert "with a label map" in capsys.readouterr().out


def test_flags_win_over_the_recipes() -> None:
    names = "background,necrotic core,edema,enhancing tumor"
    words = ["d", "--out", "o", "--config", "recycling-brats-paper", "--class-names", names]
    assert from_arguments("fit", words).settings.reader.class_names == tuple(names.split(","))
    words = ["d", "--out", "o", "--config", "recycling-pelvic-paper", "--test", "0.25"]
    split = from_arguments(
        "fit", [*words, "--split.places", "none", "--validation", "2"]
    ).settings.split
    assert (split.order, split.test, split.validation) == ("random", 0.25, 2)


def test_there_are_such_checks() -> None:
    assert {words[2] for words in CHECKS} == {
        "amos22", "pelvic", "BraTS2021_Training_Data", "MuscleCNN",
    }  # fmt: skip
