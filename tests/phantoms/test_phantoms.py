"""Drawn anatomy: reproducible, exact at every resolution, and plausible in numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.ndimage import binary_erosion, uniform_filter

from radiffuse.data.cases import read_case_image
from radiffuse.data.layouts import open_dataset
from radiffuse.errors import InputError
from radiffuse.phantoms import ANATOMIES, Drawing, draw, write_dataset

FILMS = {"bitewing": (64, 64), "chest": (64, 64)}
SIZES: dict[str, tuple[int, ...]] = {**FILMS, "abdomen": (48, 48, 40)}
CASES = {"bitewing": 24, "chest": 24, "abdomen": 10}


@pytest.fixture(scope="module")
def drawings() -> dict[str, list[Drawing]]:
    return {name: [draw(name, 5, i, SIZES[name]) for i in range(CASES[name])] for name in SIZES}


@pytest.mark.parametrize("anatomy", SIZES)
def test_same_arguments_give_the_same_bytes(
    anatomy: str, drawings: dict[str, list[Drawing]]
) -> None:
    first, again = drawings[anatomy][3], draw(anatomy, 5, 3, SIZES[anatomy])
    assert first.image.tobytes() == again.image.tobytes()
    assert first.label.tobytes() == again.label.tobytes()
    assert first.landmarks == again.landmarks
    for seed, index in ((5, 4), (6, 3)):
        other = draw(anatomy, seed, index, SIZES[anatomy])
        assert np.mean(other.label != first.label) > 0.02
        assert not np.array_equal(other.image, first.image)


@pytest.mark.parametrize("anatomy", SIZES)
def test_types_ranges_and_classes(anatomy: str, drawings: dict[str, list[Drawing]]) -> None:
    for drawing in drawings[anatomy]:
        assert drawing.image.dtype == np.float32
        assert drawing.label.dtype == np.uint8
        assert drawing.image.shape == drawing.label.shape == SIZES[anatomy]
        assert drawing.classes == ANATOMIES[anatomy].classes
        assert drawing.label.max() < len(drawing.classes)
        low, high = (0, 1) if anatomy in FILMS else (-1024, 3071)
        assert low <= drawing.image.min() < drawing.image.max() <= high


@pytest.mark.parametrize("anatomy", SIZES)
def test_size_changes_resolution_only(anatomy: str) -> None:
    # With three times as many pixels, every third pixel center is where a coarse one was.
    size = (24, 24, 20) if anatomy == "abdomen" else (40, 40)
    middle = tuple(slice(1, None, 3) for _ in size)
    for index in range(3):
        coarse = draw(anatomy, 2, index, size)
        fine = draw(anatomy, 2, index, tuple(3 * n for n in size))
        assert np.mean(fine.label[middle] != coarse.label) < 2e-3
        assert_allclose(np.array(fine.spacing) * 3, coarse.spacing)


@pytest.mark.parametrize("anatomy", SIZES)
def test_twice_the_size_agrees_mostly(anatomy: str, drawings: dict[str, list[Drawing]]) -> None:
    # Pixel centers move by a quarter of a pixel, so only edges may differ.
    coarse = drawings[anatomy][0]
    fine = draw(anatomy, 5, 0, tuple(2 * n for n in SIZES[anatomy]))
    every_second = tuple(slice(None, None, 2) for _ in SIZES[anatomy])
    assert np.mean(fine.label[every_second] == coarse.label) > 0.85


def test_texture_changes_no_label_and_varies_as_in_real_ct() -> None:
    """11 to 20 HU within the liver, little of it shared by neighbors 4 mm apart, where plain drawings have less."""
    size, spacing = (72, 72, 48), (4.0, 4.0, 4.0)
    spread, shared = [], []
    for index in range(4):
        plain, real = (draw("abdomen", 5, index, size, spacing, textured=t) for t in (False, True))
        assert_array_equal(plain.label, real.label)
        assert real.landmarks == plain.landmarks
        inside = binary_erosion(real.label == plain.classes.index("spleen"))
        values = np.where(inside, real.image - real.image[inside].mean(), np.nan)
        spread.append(real.image[inside].std())
        shared.append(np.nanmean(values[1:] * values[:-1]) / np.nanvar(values))
        again = draw("abdomen", 5, index, size, spacing, textured=True)
        assert again.image.tobytes() == real.image.tobytes()
    assert 10 < np.mean(spread) < 20
    assert np.mean(shared) < 0.3
    fine = draw("abdomen", 5, 0, (160, 64, 32), (1.0, 1.0, 1.0), textured=True)
    inside = binary_erosion(fine.label == fine.classes.index("liver"), iterations=3)
    rest = np.where(inside, fine.image - uniform_filter(fine.image, 7), np.nan)
    assert inside.sum() > 500
    assert np.nanmean(rest[1:] * rest[:-1]) / np.nanvar(rest) > 0.4  # 1 mm apart
    with pytest.raises(InputError, match="not for chest, but for abdomen"):
        draw("chest", 0, 0, (32, 32), textured=True)


def test_field_of_view_does_not_change_the_scene() -> None:
    small = draw("bitewing", 1, 7, (41, 41), (0.5, 0.5))
    large = draw("bitewing", 1, 7, (41, 91), (0.5, 0.5))
    assert_array_equal(small.label, large.label[:, 25:66])


@pytest.mark.parametrize("anatomy", SIZES)
def test_every_class_is_in_most_images(anatomy: str, drawings: dict[str, list[Drawing]]) -> None:
    cases = drawings[anatomy]
    for value, name in enumerate(ANATOMIES[anatomy].classes):
        share = np.mean([np.any(d.label == value) for d in cases])
        assert share >= 0.7, f"{name} is in {share:.0%} of the images"


@pytest.mark.parametrize("anatomy", FILMS)
def test_exposure_and_contrast_vary(anatomy: str, drawings: dict[str, list[Drawing]]) -> None:
    means = [float(d.image.mean()) for d in drawings[anatomy]]
    spreads = [float(d.image.std()) for d in drawings[anatomy]]
    assert np.std(means) > 0.05
    assert max(spreads) > 1.4 * min(spreads)


def test_films_are_bright_where_tissue_is_dense(drawings: dict[str, list[Drawing]]) -> None:
    def level(drawing: Drawing, name: str) -> float:
        inside = drawing.label == drawing.classes.index(name)
        return float(drawing.image[inside].mean()) if inside.any() else np.nan

    teeth, chests = drawings["bitewing"], drawings["chest"]
    order = ["pulp", "dentine", "enamel"]
    levels = np.nanmean([[level(d, name) for name in order] for d in teeth], axis=0)
    assert np.all(np.diff(levels) > 0.03)
    assert np.nanmean([level(d, "caries") - level(d, "enamel") for d in teeth]) < -0.03
    assert np.mean([level(d, "heart") - level(d, "lungs") for d in chests]) > 0.1
    assert np.mean([level(d, "ribs") - level(d, "lungs") for d in chests]) > 0.02


def test_heart_points_to_the_right_side_of_the_film() -> None:
    # That is the patient's left.
    offsets = []
    for index in range(12):
        drawing = draw("chest", 8, index, (64, 64))
        offsets.append(drawing.landmarks["heart"][1] - drawing.landmarks["lungs"][1])
    assert np.mean(np.array(offsets) > 0) >= 0.9


@pytest.mark.parametrize(
    ("organ", "low", "high"),
    [
        ("spleen", 35, 150),
        ("right kidney", 20, 215),
        ("left kidney", 20, 215),
        ("gallbladder", -25, 45),
        ("liver", 5, 150),
        ("aorta", 25, 380),
        ("inferior vena cava", 20, 180),
        ("pancreas", 10, 140),
    ],
)
def test_organs_have_plausible_hu(
    organ: str, low: float, high: float, drawings: dict[str, list[Drawing]]
) -> None:
    for drawing in drawings["abdomen"]:
        inside = drawing.label == drawing.classes.index(organ)
        if np.count_nonzero(inside) > 20:
            assert low < float(np.median(drawing.image[inside])) < high


def test_organs_have_plausible_volumes() -> None:
    volumes: dict[str, list[float]] = {}
    for index in range(5):
        drawing = draw("abdomen", 11, index, (64, 64, 48))
        milliliters = float(np.prod(drawing.spacing)) / 1000
        count = np.bincount(drawing.label.ravel(), minlength=14)
        for name, n in zip(drawing.classes, count, strict=True):
            volumes.setdefault(name, []).append(n * milliliters)
    expected = {
        "liver": (900, 2400),
        "spleen": (80, 500),
        "right kidney": (90, 320),
        "left kidney": (90, 320),
        "pancreas": (25, 130),
        "left adrenal": (1, 12),
    }
    for name, (low, high) in expected.items():
        assert low < np.median(volumes[name]) < high, name


def test_world_coordinates_are_right_anterior_superior(
    drawings: dict[str, list[Drawing]],
) -> None:
    for drawing in drawings["abdomen"]:
        at = drawing.landmarks
        assert drawing.affine is not None
        assert np.all(np.diag(drawing.affine) > 0)
        assert at["liver"][0] > 20 > -20 > at["spleen"][0]
        assert at["right kidney"][0] > at["aorta"][0] > at["left kidney"][0]
        assert at["inferior vena cava"][0] > at["aorta"][0]
        assert at["aorta"][1] > at["vertebra L1"][1]  # the spine is behind the aorta
        assert at["vertebra T12"][2] > at["vertebra L1"][2] > at["vertebra L2"][2]


def test_landmarks_are_the_centers_of_the_labels(drawings: dict[str, list[Drawing]]) -> None:
    volume = drawings["abdomen"][0]
    assert volume.affine is not None
    voxels = np.argwhere(volume.label == volume.classes.index("liver")).mean(axis=0)
    expected = (volume.affine @ [*voxels, 1])[:3]
    assert_allclose(volume.landmarks["liver"], expected, atol=1e-6)
    film = drawings["chest"][0]
    pixels = np.argwhere(film.label == 2).mean(axis=0)
    assert_allclose(film.landmarks["heart"], (pixels + 0.5) * film.spacing, atol=1e-6)


def test_vertebra_landmark_lies_in_bone() -> None:
    hits = []
    for index in range(4):
        volume = draw("abdomen", 3, index, (96, 96, 60), (4.0, 4.0, 4.0))
        assert volume.affine is not None
        for name in ("vertebra T12", "vertebra L1", "vertebra L2"):
            voxel = np.linalg.solve(volume.affine, [*volume.landmarks[name], 1])[:3].tolist()
            around = tuple(slice(round(v) - 1, round(v) + 2) for v in voxel)
            hits.append(float(volume.image[around].mean()))
    assert np.median(hits) > 80


def test_body_is_surrounded_by_air(drawings: dict[str, list[Drawing]]) -> None:
    for drawing in drawings["abdomen"]:
        corners = drawing.image[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert np.median(corners) < -900


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"anatomy": "knee"}, "anatomy"),
        ({"seed": -1}, "seed"),
        ({"index": True}, "index"),
        ({"index": 1.5}, "index"),
        ({"size": (64,)}, "size"),
        ({"size": (64, 8)}, "size"),
        ({"size": (64, 64, 64)}, "size"),
        ({"spacing": (1.0,)}, "spacing"),
        ({"spacing": (1.0, 0.0)}, "spacing"),
        ({"spacing": (1.0, float("nan"))}, "spacing"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, object], where: str) -> None:
    arguments: dict[str, object] = {"anatomy": "chest", "seed": 0, "index": 0, "size": (64, 64)}
    with pytest.raises(InputError) as caught:
        draw(**(arguments | changes))  # type: ignore[arg-type]
    assert caught.value.where == where


def test_films_on_disk(tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    calls: list[tuple[int, int]] = []
    drawn = write_dataset(
        "bitewing",
        out,
        count=3,
        labelled=True,
        seed=4,
        size=(48, 56),
        start_index=10,
        progress=lambda done, count: calls.append((done, count)),
    )
    assert drawn == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]
    names = [f"bitewing-{i:06d}.png" for i in (10, 11, 12)]
    assert sorted(p.name for p in (out / "images").iterdir()) == names
    assert sorted(p.name for p in (out / "labels").iterdir()) == names
    assert json.loads((out / "classes.json").read_text())["5"] == "caries"
    expected = draw("bitewing", 4, 11, (48, 56))
    assert_array_equal(np.asarray(Image.open(out / "labels" / names[1])), expected.label)
    image = np.asarray(Image.open(out / "images" / names[1]))
    assert image.dtype == np.uint8
    assert_allclose(image / 255, expected.image, atol=0.5 / 255 + 1e-6)


def test_unlabelled_films_are_a_flat_folder(tmp_path: Path) -> None:
    write_dataset("chest", tmp_path, count=2, labelled=False, seed=0, size=(32, 32))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chest-000000.png", "chest-000001.png"]


def test_volumes_on_disk(tmp_path: Path) -> None:
    import nibabel as nib

    size, spacing = (24, 24, 20), (15.0, 15.0, 10.0)
    write_dataset("abdomen", tmp_path, count=1, labelled=True, seed=0, size=size, spacing=spacing)
    expected = draw("abdomen", 0, 0, size, spacing)
    assert expected.affine is not None
    image = nib.load(tmp_path / "images" / "abdomen-000000.nii.gz")
    label = nib.load(tmp_path / "labels" / "abdomen-000000.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert_allclose(image.affine, expected.affine)
    assert_allclose(label.affine, expected.affine)
    assert_allclose(image.get_fdata(), expected.image, atol=0.5)
    assert_array_equal(np.asarray(label.dataobj), expected.label)


def test_writing_again_completes_what_is_missing(tmp_path: Path) -> None:
    def write(count: int, seed: int = 0) -> int:
        return write_dataset(
            "bitewing", tmp_path, count=count, labelled=True, seed=seed, size=(32, 32)
        )

    assert write(4) == 4
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.png")}
    kept = tmp_path / "images" / "bitewing-000000.png"
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "labels" / "bitewing-000002.png").unlink()
    (tmp_path / "images" / "bitewing-000003.png").unlink()
    assert write(5) == 3
    after = {p: p.read_bytes() for p in tmp_path.rglob("*.png")}
    assert kept.stat().st_mtime_ns == stamp
    assert {p: after[p] for p in before} == before
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    with pytest.raises(InputError, match="other settings"):
        write(5, seed=1)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_dataset("chest", blocked, count=1, labelled=False, seed=0, size=(32, 32))
    with pytest.raises(InputError, match="count"):
        write_dataset("chest", tmp_path, count=0, labelled=False, seed=0, size=(32, 32))


@pytest.mark.parametrize("anatomy", ANATOMIES)
def test_a_set_without_a_size_has_the_usual_one(anatomy: str, tmp_path: Path) -> None:
    write_dataset(anatomy, tmp_path, count=1, labelled=False, seed=0)
    (case,) = open_dataset(tmp_path)
    sides = ANATOMIES[anatomy].size
    assert read_case_image(case).array.shape[1:] == sides
    field = [mm for mm in ANATOMIES[anatomy].field if mm]
    spacing = ANATOMIES[anatomy].spacing(sides)
    assert max(spacing) == pytest.approx(min(spacing), rel=0.02)
    assert [n * mm for n, mm in zip(sides, spacing, strict=True)][: len(field)] == pytest.approx(
        field
    )


def test_illegal_drawings_leave_no_folder(tmp_path: Path) -> None:
    for anatomy, changes in (("abdomen", {"size": (64, 64)}), ("chest", {"textured": True})):
        with pytest.raises(InputError, match=f"for {anatomy}"):
            write_dataset(anatomy, tmp_path / "out", count=1, labelled=True, seed=0, **changes)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("anatomy", ["bitewing", "abdomen"])
def test_one_number_is_the_size_along_every_axis(anatomy: str, tmp_path: Path) -> None:
    dims = ANATOMIES[anatomy].spatial_dims
    for out, size in ((tmp_path / "one", (20,)), (tmp_path / "all", (20,) * dims)):
        write_dataset(anatomy, out, count=1, labelled=False, seed=0, size=size)
    one, each = (sorted((tmp_path / name).iterdir()) for name in ("one", "all"))
    assert [p.name for p in one] == [p.name for p in each]
    assert one[0].read_bytes() == each[0].read_bytes()
    with pytest.raises(InputError, match="size: 20,20,20,20 is not legal"):
        write_dataset(anatomy, tmp_path / "no", count=1, labelled=False, seed=0, size=(20,) * 4)
