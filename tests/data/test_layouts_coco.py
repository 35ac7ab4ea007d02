"""COCO: cases, and label maps against areas that can be counted by hand."""

import json

import numpy as np
import pytest
from layout_files import coco, film, write_json

from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.readers.coco import decode_counts, fill_polygon, rasterize_coco
from radiffuse.errors import InputError


def encode_counts(runs):
    """COCO's compressed text, written from its description, to decode again."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            group, value = value & 31, value >> 5
            last = value == (-1 if group & 16 else 0)
            text += chr(48 + group + (0 if last else 32))
            if last:
                break
    return text


def runs_of(mask):
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.mark.parametrize("given", ["file", "folder"])
def test_coco(tmp_path, given):
    path = coco(tmp_path)
    dataset = open_dataset(path if given == "file" else tmp_path)
    assert dataset.layout == "coco"
    assert dataset.classes == ("background", "tooth", "caries")
    assert [(c.name, c.label_item) for c in dataset] == [("a", "0"), ("b", "1")]
    label = read_case_label(dataset.cases[0]).array
    expected = np.zeros((1, 10, 12), int)
    expected[0, 3:8, 2:6] = 1
    np.testing.assert_array_equal(label, expected)
    assert read_case_label(dataset.cases[1]).array.max() == 0
    assert read_case_image(dataset.cases[0]).spatial_shape == (10, 12)


def test_splits_of_a_roboflow_export(tmp_path):
    for split in ("train", "valid"):
        film(tmp_path / split / f"{split}.png", size=(10, 12))
        content = json.loads(coco(tmp_path / "scratch").read_text())
        content["images"] = [{"id": 0, "file_name": f"{split}.png", "height": 10, "width": 12}]
        write_json(tmp_path / split / "_annotations.coco.json", content)
    dataset = open_dataset(tmp_path)
    assert [(c.name, c.split) for c in dataset] == [("train", "train"), ("valid", "validation")]


def test_the_original_arrangement(tmp_path):
    film(tmp_path / "val2017" / "a.png", size=(10, 12))
    content = json.loads(coco(tmp_path / "scratch").read_text())
    content["images"] = content["images"][:1]
    path = write_json(tmp_path / "annotations" / "instances_val2017.json", content)
    for given in (path, tmp_path):
        assert [(c.name, c.split) for c in open_dataset(given)] == [("a", "validation")]


def test_boxes_unknown_categories_and_missing_images_are_listed(tmp_path):
    square = [[0, 0, 2, 0, 2, 2, 0, 2]]
    path = coco(
        tmp_path,
        files=("a.png", "b.png", "c.png", "d.png", "e.png", "f.png"),
        annotations=[
            {"id": 1, "image_id": 0, "category_id": 3, "bbox": [0, 0, 2, 2]},
            {"id": 2, "image_id": 1, "category_id": 99, "segmentation": square},
            {"id": 3, "image_id": 2, "category_id": 3, "segmentation": [[1, 2, 3]]},
        ],
    )
    (tmp_path / "images" / "d.png").unlink()
    content = json.loads(path.read_text())
    content["images"].append({"id": 9, "file_name": "../../x.png", "height": 10, "width": 12})
    content["images"].append({"id": 10, "file_name": "e.png", "height": 10, "width": 12})
    write_json(path, content)
    dataset, issues = survey(path)
    assert [case.name for case in dataset] == ["f"]  # which of e's outlines are right is unclear
    text = " | ".join(f"{issue.where} {issue.problem}" for issue in issues)
    assert "(a.png) annotation 1 has a box and no outline" in text
    assert "unknown category 99" in text
    assert "annotation 3 has a polygon" in text
    assert "'d.png' does not exist" in text
    assert "leads out of" in text
    assert "e.png a second time" in text
    with pytest.raises(InputError, match="box and no outline"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c["images"].append(c["images"][0]), "same id"),
        (lambda c: c["categories"].append({"id": 5, "name": "tooth"}), "same name"),
        (lambda c: c["images"].append({"id": 5}), "is not COCO"),
        (lambda c: c.update(annotations=[5]), "is not COCO"),
    ],
)
def test_files_that_contradict_themselves(tmp_path, change, problem):
    path = coco(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)
    with pytest.raises(InputError, match=problem):
        open_dataset(path)


def test_a_truncated_file_is_named(tmp_path):
    path = coco(tmp_path)
    path.write_text(path.read_text()[:-5])
    with pytest.raises(InputError, match=r"annotations\.json: is not readable JSON"):
        open_dataset(path)


def test_later_wins_and_crowds_are_ignored_where_nothing_lies_on_them(tmp_path):
    def box(x0, y0, x1, y1):
        return [[x0, y0, x1, y0, x1, y1, x0, y1]]

    crowd = np.zeros((10, 12), bool)
    crowd[:, :5] = True
    counts = {"counts": runs_of(crowd), "size": [10, 12]}
    path = coco(
        tmp_path,
        annotations=[
            {"id": 1, "image_id": 0, "category_id": 3, "segmentation": box(4, 0, 8, 4)},
            {"id": 2, "image_id": 0, "category_id": 7, "segmentation": box(6, 0, 10, 4)},
            {"id": 3, "image_id": 0, "category_id": 7, "segmentation": counts, "iscrowd": 1},
        ],
    )
    label = rasterize_coco(path, "0", (10, 12))
    expected = np.zeros((10, 12), int)
    expected[:, :5] = 255
    expected[:4, 4:8] = 1
    expected[:4, 6:10] = 2
    np.testing.assert_array_equal(label, expected)


def test_changed_files_are_read_again_and_sizes_must_agree(tmp_path):
    path = coco(tmp_path)
    assert rasterize_coco(path, "0", (10, 12)).sum() == 20
    with pytest.raises(InputError, match=r"10 x 12 pixels but has 12 x 10"):
        rasterize_coco(path, "0", (12, 10))
    with pytest.raises(InputError, match="is not in the file"):
        rasterize_coco(path, "77", (10, 12))
    write_json(path, json.loads(path.read_text()) | {"annotations": []})
    assert rasterize_coco(path, "0", (10, 12)).sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_both_ways(tmp_path, seed):
    mask = np.random.default_rng(seed).random((10, 12)) < 0.4
    runs = runs_of(mask)
    assert decode_counts(encode_counts(runs)) == runs
    for counts in (runs, encode_counts(runs)):
        segmentation = {"counts": counts, "size": [10, 12]}
        annotation = {"id": 1, "image_id": 0, "category_id": 3, "segmentation": segmentation}
        path = coco(tmp_path / str(type(counts)), annotations=[annotation])
        np.testing.assert_array_equal(rasterize_coco(path, "0", (10, 12)), mask)


def test_long_and_falling_runs():
    runs = [100000, 3, 7, 99999, 0, 16, 31, 32]
    assert decode_counts(encode_counts(runs)) == runs


@pytest.mark.parametrize("counts", ["abc\u00ff", "P", [5, 5], [-1, 121], [60.5, 59.5], [1e9]])
def test_damaged_run_lengths(tmp_path, counts):
    segmentation = {"counts": counts, "size": [10, 12]}
    annotation = {"id": 1, "image_id": 0, "category_id": 3, "segmentation": segmentation}
    path = coco(tmp_path, annotations=[annotation])
    with pytest.raises(InputError, match="run lengths"):
        rasterize_coco(path, "0", (10, 12))


def test_filled_polygons():
    square = fill_polygon(np.array([[1, 1], [5, 1], [5, 4], [1, 4]], float), (6, 7))
    expected = np.zeros((6, 7), bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(square, expected)
    outside = fill_polygon(np.array([[-5, -5], [50, -5], [50, 50], [-5, 50]], float), (6, 7))
    assert outside.all()
    assert not fill_polygon(np.array([[20, 1], [25, 1], [25, 4]], float), (6, 7)).any()
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = np.stack([100 + 80 * np.cos(angle), 100 + 80 * np.sin(angle)], axis=1)
    area = 0.5 * 200 * 80**2 * np.sin(2 * np.pi / 200)
    assert abs(fill_polygon(circle, (200, 200)).sum() - area) < 0.002 * area
    neighbor = fill_polygon(np.array([[5, 1], [7, 1], [7, 4], [5, 4]], float), (6, 7))
    assert not (square & neighbor).any()


def test_annotations_that_label_nothing_are_said(tmp_path):
    """Ids of another kind (1 and 000001) make every image background; a crowd is not scored."""
    square = {"category_id": 3, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
    mine = [{"id": n, "image_id": 0, "iscrowd": n % 2} | square for n in range(3)]
    strays = [{"id": 3, "image_id": "000000"} | square, {"id": 4, "image_id": 7} | square]
    problems = [issue.problem for issue in survey(coco(tmp_path, annotations=mine + strays))[1]]
    assert problems == [
        "has 2 of 5 annotations of images that it does not list: 000000, 7",
        "has no annotation for 1 of 2 images, which count as all background: b.png",
        "marks 1 of 5 annotations as crowds, which are neither learned nor scored",
    ]
    both = [mine[0], mine[2] | {"image_id": 1}]
    assert not survey(coco(tmp_path, annotations=both))[1]


def test_images_of_a_file_without_any_annotation_are_unlabelled(tmp_path):
    """As programs write a test part that nobody may score on, or a pool of films."""
    for split in ("train", "test"):
        coco(
            tmp_path / split, files=(f"{split}.png",), annotations=None if split == "train" else []
        )
    dataset, issues = survey(tmp_path)
    assert [(c.name, c.label is not None) for c in dataset] == [("test", False), ("train", True)]
    assert [issue.problem for issue in issues] == [
        "has no annotations: its images count as unlabelled"
    ]
