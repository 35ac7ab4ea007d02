"""The check finds every fault at once, names the file, and survives whatever it meets."""

import os
import re
import subprocess
import sys
import textwrap
import zlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from layout_files import coco, dicom, film, film_label, pairs, volume, volume_label, write_json
from PIL import Image

from radiffuse.config import Data
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.checking.check import check_path
from radiffuse.data.checking.text import format_check
from radiffuse.data.dataset import Case
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.transform import image_to_plan
from radiffuse.errors import InputError


def text_of(result, root=None):
    from rich.console import Console

    console = Console(width=300)
    with console.capture() as capture:
        console.print(format_check(result, root))
    return capture.get()


def problems(result, path):
    return [issue.problem for issue in result.issues if issue.where == str(path)]


def only_problem(result, path):
    (problem,) = problems(result, path)
    return problem


def test_a_sound_data_set(tmp_path):
    pairs(tmp_path)
    write_json(tmp_path / "classes.json", ["background", "lung"])
    result = check_path(tmp_path, workers=0)
    assert result.issues == ()
    summary = result.summary
    assert (summary["cases"], summary["labelled"], summary["patients"]) == (3, 3, 3)
    assert summary["size"]["median"] == [24, 20]
    assert summary["spatial_dims"] == {"2": 3}
    assert summary["classes"]["lung"] == {"value": 1, "share": 0.5, "cases": 3}
    assert 0 <= summary["intensity"]["lowest"] < summary["intensity"]["highest"] <= 255
    text = text_of(result)
    assert "No errors, no warnings." in text
    assert "24 x 20 px" in text
    assert "Pixels" in text
    assert "Voxels" not in text
    assert "patients.csv (columns image and patient)" in " ".join(text.split())
    assert "classes.json" not in text


def test_what_only_a_person_knows_is_asked(tmp_path):
    pairs(tmp_path)
    assert 'What is class-1? classes.json beside the images can name it: {"1": "..."}' in words_of(
        check_path(tmp_path, workers=0)
    )
    (tmp_path / "patients.csv").write_text("image,patient\n" + "".join(
        f"{path.stem},p{i // 2}\n" for i, path in enumerate(sorted((tmp_path / "images").iterdir()))
    ))  # fmt: skip
    write_json(tmp_path / "classes.json", {"1": "lung"})
    text = words_of(check_path(tmp_path, workers=0))
    assert "To decide" not in text
    assert "No errors, no warnings." in text


def words_of(result):
    return " ".join(text_of(result).split())


def test_every_bad_file_is_named_at_once(tmp_path):
    for i in range(4):
        film(tmp_path / f"good{i}.png", seed=i)
    paths = {name: tmp_path / name for name in (
        "truncated.png", "empty.png", "constant.png", "pixel.png", "lying.png", "noise.png",
        "enormous.png", "short.nii.gz", "nan.nii.gz",
    )}  # fmt: skip
    whole = film(tmp_path / "truncated.png", seed=9, size=(200, 200)).read_bytes()
    paths["truncated.png"].write_bytes(whole[: len(whole) // 2])
    paths["empty.png"].touch()
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(paths["constant.png"])
    Image.fromarray(np.full((1, 1), 7, np.uint8)).save(paths["pixel.png"])
    volume(tmp_path / "v.nii.gz").rename(paths["lying.png"])
    paths["noise.png"].write_bytes(np.random.default_rng(0).bytes(500))
    header = bytearray(whole)
    header[16:24] = (70000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    paths["enormous.png"].write_bytes(bytes(header))
    content = volume(paths["short.nii.gz"]).read_bytes()
    paths["short.nii.gz"].write_bytes(content[:-40])
    array = np.full((5, 5, 5), 1, np.float32)
    array[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(array, np.eye(4)), paths["nan.nii.gz"])

    result = check_path(tmp_path, workers=0)
    expected = {
        "truncated.png": "truncated",
        "empty.png": "empty (0 bytes)",
        "constant.png": "constant",
        "pixel.png": "single pixel",
        "lying.png": "is named .png but holds nifti",
        "noise.png": "holds none of the known formats",
        "enormous.png": "too large",
        "nan.nii.gz": "not finite",
    }
    for name, part in expected.items():
        assert part in only_problem(result, paths[name]).lower(), name
    assert len(problems(result, paths["short.nii.gz"])) == 1
    assert {issue.severity for issue in result.issues} == {"error"}
    assert len(result.errors) == 9
    assert result.summary["readable"] == 6
    text = text_of(result, tmp_path)
    assert all(name in text for name in paths)
    assert str(tmp_path) not in text


def test_headers_alone_are_quick_and_say_less(tmp_path):
    pairs(tmp_path)
    (tmp_path / "images" / "c0.png").write_bytes(b"")
    film_label(tmp_path / "labels" / "c1.png", size=(9, 9))
    result = check_path(tmp_path, decode=False, workers=0)
    assert "empty" in only_problem(result, tmp_path / "images" / "c0.png")
    assert "another size" in only_problem(result, tmp_path / "labels" / "c1.png")
    assert result.summary["intensity"] is None
    assert result.summary["size"]["largest"] == [24, 20]


def test_labels_that_do_not_fit(tmp_path):
    for i, name in enumerate(("size", "place", "values", "empty", "ignored", "damaged", "good")):
        volume(tmp_path / "images" / f"{name}.nii.gz", seed=i)
        volume_label(tmp_path / "labels" / f"{name}.nii.gz")
    labels = tmp_path / "labels"
    volume_label(labels / "size.nii.gz", size=(8, 7, 5))
    volume_label(labels / "place.nii.gz", spacing=(1.0, 1.5, 2.0))
    volume_label(labels / "values.nii.gz", values=(0, 1, 5, 255))
    volume_label(labels / "empty.nii.gz", values=(0,))
    volume_label(labels / "ignored.nii.gz", values=(255,))
    (labels / "damaged.nii.gz").write_bytes((labels / "damaged.nii.gz").read_bytes()[:60])
    write_json(tmp_path / "classes.json", ["background", "tumor"])
    result = check_path(tmp_path, workers=0)
    size = only_problem(result, labels / "size.nii.gz")
    assert size == "has another size (8 x 7 x 5, not 8 x 7 x 6) than size.nii.gz"
    assert "lies elsewhere (corners differ by up to 3.00 mm)" in only_problem(
        result, labels / "place.nii.gz"
    )
    values = only_problem(result, labels / "values.nii.gz")
    assert values == "has label values outside the classes (5; 84 voxels)"
    assert only_problem(result, labels / "empty.nii.gz") == "is all background"
    assert only_problem(result, labels / "ignored.nii.gz") == "is to be ignored everywhere"
    assert len(problems(result, labels / "damaged.nii.gz")) == 1
    assert [i.severity for i in result.issues] == ["error"] * 4 + ["warning"] * 2
    assert result.summary["classes"]["(ignored, of all)"]["cases"] == 2


def test_pairs_that_are_none_and_files_that_are_left_over(tmp_path):
    pairs(tmp_path)
    (tmp_path / "labels" / "c0.png").unlink()
    film_label(tmp_path / "labels" / "extra.png")
    film(tmp_path / "preview.png")
    (tmp_path / "images" / "notes.docx").touch()
    result = check_path(tmp_path, workers=0)
    assert only_problem(result, tmp_path / "images" / "c0.png") == "has no label"
    assert only_problem(result, tmp_path / "labels" / "extra.png") == "is a label without an image"
    left = problems(result, tmp_path)
    assert "holds an image that belongs to no case: preview.png" in left
    assert "holds 1 file of unknown kind (1 of .docx)" in left
    assert len(result.issues) == 4


def test_the_same_image_twice(tmp_path):
    for i in range(4):
        film(tmp_path / f"p{i}_x.png", seed=i)
    film(tmp_path / "p0_y.png", seed=0)
    Image.open(tmp_path / "p1_x.png").save(tmp_path / "p2_y.tif")  # equal pixels, other bytes
    result = check_path(tmp_path, Data(group=r"(p\d)_"), workers=0)
    assert only_problem(result, tmp_path / "p0_y.png") == "is the same image as p0_x"
    leak = only_problem(result, tmp_path / "p2_y.tif")
    assert leak == "is the same image as p1_x, under another patient (p2 and p1)"
    by_bytes = check_path(tmp_path, Data(group=r"(p\d)_"), decode=False, workers=0)
    assert [os.path.basename(issue.where) for issue in by_bytes.issues] == ["p0_y.png"]


def test_mixtures(tmp_path):
    for i in range(3):
        film(tmp_path / f"{i}.png", seed=i)
    film(tmp_path / "colored.png", mode="RGB")
    volume(tmp_path / "v.nii.gz")
    result = check_path(tmp_path, workers=0)
    dims, channels = problems(result, tmp_path)
    assert dims == "mixes films and volumes: 4 2D and 1 3D images; 3D are v.nii.gz"
    assert "4 1-channel and 1 3-channel images; 3-channel are colored.png" in channels


@pytest.mark.parametrize("declared", [1, 3])
def test_a_gray_film_that_is_stored_as_rgb_fits_films_in_color(tmp_path, declared):
    """Where color is declared the network sees it in three channels, else all films in gray."""
    folder = tmp_path / "imagesTr" if declared == 3 else tmp_path
    for i in range(3):
        path = film(folder / f"f{i}_0000.png", seed=i, mode="RGB")
        if declared == 3:
            film_label(tmp_path / "labelsTr" / f"f{i}.png")
    gray = np.array(Image.open(path).convert("L"))
    Image.fromarray(np.stack([gray] * 3, axis=-1)).save(path)
    if declared == 3:
        names = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
        write_json(tmp_path / "dataset.json", names | {"labels": {"background": 0, "x": 1}})
    result = check_path(tmp_path, workers=0)
    assert [issue for issue in result.issues if issue.severity == "error"] == []
    dataset = open_dataset(tmp_path)
    plan = Plan(2, dataset.channels, (), (16, 16))
    made = [image_to_plan(read_case_image(case), plan)[0] for case in dataset]
    assert [len(image) for image in made] == [declared] * 3
    if declared == 3:
        assert np.array_equal(made[2][0], made[2][1])
        assert np.array_equal(made[2][0], made[2][2])


def test_films_that_are_all_gray_and_stored_as_rgb_are_gray(tmp_path):
    for i in range(2):
        gray = np.array(Image.open(film(tmp_path / f"{i}.png", seed=i)))
        Image.fromarray(np.stack([gray] * 3, axis=-1)).save(tmp_path / f"{i}.png")
    result = check_path(tmp_path, workers=0)
    assert result.issues == ()
    assert {record.channels for record in result.cases} == {1}


def test_a_patient_in_two_splits_and_one_patient_for_all(tmp_path):
    for i in range(4):
        film(tmp_path / ("train" if i < 2 else "test") / f"p{i % 3}_{i}.png", seed=i)
    result = check_path(tmp_path, Data(group=r"(p\d)_"), workers=0)
    assert only_problem(result, tmp_path) == "parts 1 patients between splits: p0 (test, train)"
    result = check_path(tmp_path, Data(group=r"(p)\d_"), workers=0)
    assert "gives all 4 cases the same patient (p)" in problems(result, tmp_path)


def test_channels_that_do_not_fit(tmp_path):
    for c, size in enumerate([(8, 7, 6), (8, 7, 5)]):
        volume(tmp_path / "imagesTr" / f"a_{c:04d}.nii.gz", size=size)
    volume_label(tmp_path / "labelsTr" / "a.nii.gz")
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "x": 1}}
    write_json(tmp_path / "dataset.json", content | {"file_ending": ".nii.gz"})
    result = check_path(tmp_path, workers=0)
    problem = only_problem(result, tmp_path / "imagesTr" / "a_0001.nii.gz")
    assert problem == "has another size (8 x 7 x 5, not 8 x 7 x 6) than a_0000.nii.gz"


def test_channels_are_stacked_in_order(tmp_path):
    paths = tuple(volume(tmp_path / f"{i}.nii.gz", seed=i) for i in range(2))
    scan = read_case_image(Case("a", paths))
    assert scan.array.shape == (2, 8, 7, 6)
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(scan.array[i], np.asarray(nib.load(path).dataobj))
    colored = film(tmp_path / "c.png", mode="RGB")
    with pytest.raises(InputError, match="3 channels where it is one of 2"):
        read_case_image(Case("a", (film(tmp_path / "g.png"), colored)))
    with pytest.raises(InputError, match="has no label"):
        read_case_label(Case("a", paths))


def test_dicom_never_shows_a_patient(tmp_path):
    for i in range(3):
        dicom(tmp_path / f"{i}.dcm", series=1, instance=i, position=2.0 * i)
    for i in range(3, 6):
        dicom(tmp_path / f"{i}.dcm", series=2, instance=i, position=2.0 * i, patient="ROE^RON")
    content = (tmp_path / "4.dcm").read_bytes()
    (tmp_path / "4.dcm").write_bytes(content[:-30])
    result = check_path(tmp_path, workers=0)
    assert result.summary["readable"] == 1
    assert result.summary["intensity"]["unit"] == "HU"
    assert len(result.errors) == 1
    text = (text_of(result) + repr(result)).upper()
    assert "4.DCM" in text
    assert not any(word in text for word in ("DOE", "JANE", "ROE", "RON^"))


@pytest.mark.parametrize("decode", [True, False])
def test_volumes_that_are_no_upright_volume(tmp_path, decode):
    """Time series, missing slices, mixed spacing and a tilted gantry: a line each."""
    root = tmp_path / "films"
    several = np.arange(8 * 7 * 6 * 5, dtype=np.int16).reshape(8, 7, 6, 5)
    root.mkdir()
    nib.save(nib.Nifti1Image(several, np.eye(4)), root / "perfusion.nii.gz")
    tilted = np.eye(4)
    tilted[1, 2] = np.tan(np.deg2rad(12))
    nib.save(nib.Nifti1Image(several[..., 0], tilted), root / "tilted.nii.gz")
    upright = np.eye(4)
    upright[1, 2] = 0.01  # as rounding leaves it
    nib.save(nib.Nifti1Image(several[..., 0] + 1, upright), root / "upright.nii.gz")
    result = check_path(root, workers=0, decode=decode)
    found = {Path(issue.where).name: (issue.severity, issue.problem) for issue in result.issues}
    assert found == {
        "perfusion.nii.gz": ("error", "has 4 dimensions (8 x 7 x 6 x 5), not two or three"),
        "tilted.nii.gz": (
            "warning", "has axes that are 12.0 degrees off a right angle (a tilted gantry)",
        ),
    }  # fmt: skip

    root = tmp_path / "series"
    for first, heights in ((0, (0, 2, 4, 8, 10)), (10, (0, 2, 4, 6, 8))):
        for number, height in enumerate(heights):
            path = root / f"s{first}" / f"{number}.dcm"
            dicom(path, series=f"1.2.{first}", instance=first + number, position=height)
    mixed = pydicom.dcmread(root / "s10" / "3.dcm")
    mixed.PixelSpacing = [1, 1.5]
    mixed.save_as(root / "s10" / "3.dcm")
    lines = sorted(issue.problem for issue in check_path(root, workers=0, decode=decode).errors)
    assert lines == [
        "has another pixel spacing than the rest of its series",
        "lacks about 1 slice between 2.dcm and 3.dcm",
    ]


def test_coco_labels_are_checked(tmp_path):
    path = coco(tmp_path)
    film(tmp_path / "images" / "a.png", size=(12, 10))
    result = check_path(path, workers=0)
    assert "but has 12 x 10" in only_problem(result, f"{path}, image 0 (a.png)")
    assert only_problem(result, f"{path}, image 1") == "is all background"


def test_nested_lists_of_classes_are_pointed_out(tmp_path):
    write_json(pairs(tmp_path) / "labels.json", {"a": {"1": "x"}, "b": {"1": "y"}})
    result = check_path(tmp_path, workers=0)
    problem = only_problem(result, tmp_path / "labels.json")
    assert problem == "holds 2 lists of classes instead of one: no name is used"
    assert result.errors == ()


def test_names_cannot_write_to_the_terminal(tmp_path):
    film(tmp_path / "[bold]x[/bold].png")
    (tmp_path / "evil\x1b[2Jname.png").write_bytes(b"")
    text = text_of(check_path(tmp_path, workers=0), tmp_path)
    assert "\x1b[2J" not in text
    assert "evil\\x1b[2Jname.png" in text


# ------------------------------------------------------------------------------------ processes


@pytest.mark.usefixtures("drawn")
def test_processes_find_the_same_as_this_one(tmp_path):
    for i in range(40):
        film(tmp_path / f"{i:02d}.png", seed=i)
    (tmp_path / "17.png").write_bytes(b"")
    assert check_path(tmp_path, workers=2) == check_path(tmp_path, workers=0)


@pytest.mark.usefixtures("drawn")
def test_a_worker_that_dies_is_blamed_on_its_file(tmp_path, monkeypatch):
    root = tmp_path / "set"
    for i in range(24):
        film(root / f"{i:02d}.png", seed=i)
    film(root / "07-deadly.png", seed=99)
    hook = tmp_path / "hook"
    hook.mkdir()
    # Stands for a decoder that crashes: only the workers import it, at their start.
    (hook / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import os, pathlib
            plain = pathlib.Path.open
            def deadly(self, *arguments, **more):
                if "deadly" in self.name:
                    os._exit(9)
                return plain(self, *arguments, **more)
            pathlib.Path.open = deadly
        """)
    )
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    result = check_path(root, workers=2)
    assert [os.path.basename(issue.where) for issue in result.issues] == ["07-deadly.png"]
    assert "ended the process that read it" in result.issues[0].problem
    assert result.summary["readable"] == 24


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    for i in range(3):
        film(tmp_path / "set" / f"{i}.png", seed=i)
    script = tmp_path / "script.py"
    script.write_text(
        "from radiffuse.data.checking.check import check_path\n"
        f"print(len(check_path({str(tmp_path / 'set')!r}).cases), 'cases')\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stdout == "3 cases\n"


def test_the_check_needs_no_torch():
    code = "import sys, radiffuse.data.checking.check, radiffuse.data.checking.text; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


def test_of_many_classes_without_names_few_are_listed(tmp_path):
    pairs(tmp_path)
    result = check_path(tmp_path, workers=0)
    names = ["background", *(f"class-{value}" for value in range(1, 79))]
    known = dict.fromkeys(names, next(iter(result.summary["classes"].values())))
    text = words_of(replace(result, summary=dict(result.summary) | {"classes": known}))
    asked = "What are class-1, class-2, class-3, class-4, class-5 and 73 more? classes.json beside the images can name "
    assert asked + 'them: {"1": "...", "2": "...", ...}' in text


def test_lines_stay_indented_where_they_wrap(tmp_path):
    from rich.console import Console

    pairs(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "lables")
    console = Console(width=60)
    with console.capture() as capture:
        console.print(format_check(check_path(tmp_path, workers=0), tmp_path))
    issues, decide = re.split("warnings?\n", capture.get())[1].split("To decide\n")
    for lines in (issues, decide):
        assert len(lines.strip("\n").splitlines()) > 2
        assert all(line.startswith("  ") for line in lines.splitlines() if line)


@pytest.mark.parametrize("decode", [True, False])
def test_sizes_of_volumes_are_along_the_axes_of_the_body(tmp_path, decode):
    """A median over axes that differ from file to file would be the size of no scan."""
    generator = np.random.default_rng(0)
    for name, order in (("a", (0, 1, 2)), ("b", (1, 2, 0)), ("c", (2, 0, 1))):
        array = generator.integers(0, 99, (8, 10, 12)).astype(np.int16).transpose(order)
        affine = np.diag([-1.0, 2.0, 5.0, 1.0])[:, [*order, 3]]
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    result = check_path(tmp_path, workers=0, decode=decode)
    assert {row.spatial_shape for row in result.cases} == {(8, 10, 12)}
    assert (
        result.summary["spacing"]["smallest"] == result.summary["spacing"]["largest"] == [1, 2, 5]
    )
    assert re.search(r"Size, R x A x S +8 x 10 x 12 voxels", text_of(result))
