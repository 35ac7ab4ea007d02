"""Corrections: what is saved and what it says, what is refused, and that fit learns from it as it is."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

pytest.importorskip("fastapi", reason="needs the extra 'view': pip install 'radiffuse[view]'")
from fastapi.testclient import TestClient

import viewer_files as files
from radiffuse.config import Data
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.data.layouts.corrections import FILE
from radiffuse.data.readers import read_label, write_label
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError
from radiffuse.train.cases import with_more
from radiffuse.viewer.app import make_app
from radiffuse.viewer.serve import make_state

ROOT = f"/{files.TOKEN}/api/"
CLASSES = ["background", "lung", "heart"]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two films, a volume in an odd orientation, and masks of the films with what to expect of them."""
    scans, masks = tmp_path / "films", tmp_path / "masks"
    (tmp_path / "volumes").mkdir()
    scans.mkdir()
    masks.mkdir()
    for i, name in enumerate("ab"):
        (scans / f"{name}.png").write_bytes(files.film_bytes(tmp_path, (6, 5), seed=i))
        write_label(masks / f"{name}.png", np.full((6, 5), i, np.uint8), Scan(np.zeros((1, 6, 5))))
    (masks / "classes.json").write_text(json.dumps(dict(enumerate(CLASSES))))
    affine = np.array([[0, 2.0, 0, -10], [0, 0, -1.5, 7], [3.0, 0, 0, 4], [0, 0, 0, 1]])
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "volumes" / "ct.nii.gz")
    return tmp_path


@pytest.fixture
def opened(pool: Path) -> Iterator[Any]:
    """Opens a page on what is in the pool."""
    states = []

    def open_page(*names: str, **settings: Any) -> TestClient:
        home = Path(tempfile.mkdtemp(dir=pool))
        given = {"corrections": str(pool / "out")} | settings
        state = make_state(files.settings_of(*(pool / name for name in names), **given), home)
        states.append(state)
        app = make_app(state, files.TOKEN, files.PORT)
        return TestClient(app, base_url=files.ADDRESS, raise_server_exceptions=False)

    yield open_page
    for state in states:
        state.jobs.stop()


def listed(client: TestClient) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in client.get(f"{ROOT}state").json()["scans"]}


def save(client: TestClient, name: str, mask: np.ndarray, **more: Any) -> Any:
    one = listed(client)[name]
    wanted = {"classes": CLASSES, "before": one["corrected"]} | more
    body = more.pop("body", zlib.compress(mask.astype(np.uint8).tobytes()))
    wanted.pop("body", None)
    return client.post(f"{ROOT}scans/{one['id']}/correction", params=wanted, content=body)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------ what is saved


def test_a_correction_lies_beside_its_scan_and_says_whose_it_is(pool: Path, opened: Any) -> None:
    before = snapshot(pool / "films") | snapshot(pool / "masks")
    client = opened("films", masks=str(pool / "masks"))
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1:3], mask[0, 0], mask[5, 4] = 1, 255, 2
    answer = save(client, "b", mask, start="given")
    assert answer.status_code == 200, answer.text
    assert answer.json()["corrected"] == 1
    out = pool / "out"
    assert np.array_equal(read_label(out / "b" / "label-1.png").array[0], mask)
    assert (out / "b" / "scan.png").read_bytes() == (pool / "films" / "b.png").read_bytes()
    assert json.loads((out / "classes.json").read_text()) == {
        str(value): name for value, name in enumerate(CLASSES)
    }
    (line,) = map(json.loads, (out / FILE).read_text().splitlines())
    assert (line["state"], line["case"], line["label"]) == ("corrected", "b", "b/label-1.png")
    assert (line["start"]["name"], line["start"]["kind"]) == ("prediction", "mask")
    assert line["changed"] == 30 - 4  # it was all ones
    assert line["by"]
    assert line["time"].endswith("+00:00")
    assert line["scan"]["sha256"]
    assert snapshot(pool / "films") | snapshot(pool / "masks") == before


def test_every_correction_stays(pool: Path, opened: Any) -> None:
    client = opened("films")
    first, second = (np.full((6, 5), value, np.uint8) for value in (1, 2))
    assert save(client, "a", first).status_code == 200
    again = opened("films")  # another server sees it, and shows it
    (layer,) = again.get(f"{ROOT}scans/{listed(again)['a']['id']}").json()["layers"]
    assert layer["id"] == "correction"
    content = again.get(f"{ROOT}scans/{listed(again)['a']['id']}/layers/correction/labels").content
    assert content == first.tobytes()
    assert save(again, "a", second, start="correction").status_code == 200
    refused = save(client, "a", first)  # this page knows of one, and there are two
    assert refused.status_code == 409
    assert "meanwhile" in refused.json()["error"]
    assert read_label(pool / "out/a/label-1.png").array.max() == 1
    (case,) = open_dataset(pool / "out")
    assert case.label == pool / "out/a/label-2.png"


def test_a_volume_keeps_its_place(pool: Path, opened: Any) -> None:
    client = opened("volumes")
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[3, 0, 2] = 1
    assert save(client, "ct", mask).status_code == 200
    saved = nibabel.load(pool / "out/ct/label-1.nii.gz")
    source = nibabel.load(pool / "volumes/ct.nii.gz")
    assert np.array_equal(saved.affine, source.affine)
    assert np.array_equal(np.asarray(saved.dataobj), mask)


def test_slices_and_axes_of_a_volume(opened: Any) -> None:
    client = opened("volumes")
    base = f"{ROOT}scans/{listed(client)['ct']['id']}"
    info = client.get(base).json()
    # Its first axis runs up, its second to the right, its third to the back.
    assert info["axes"] == [[1, False], [2, True], [0, False]]
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    for axis, index in ((0, 3), (1, 0), (2, 5)):
        content = client.get(f"{base}/slices/{axis}/{index}").content
        assert content == values.take(index, axis).tobytes()
    for place in ("3/0", "0/4", "0/-1", "-1/0"):
        assert client.get(f"{base}/slices/{place}").status_code == 404
    assert client.get(f"{base}/slices/0/0", params={"channel": 1}).status_code == 404


def test_a_dropped_series_is_kept_with_its_correction(pool: Path, opened: Any) -> None:
    client = opened()
    dropped = client.post(
        f"{ROOT}scans", params={"name": "disc.zip"}, content=files.series_zip()
    ).json()[0]
    mask = np.ones((10, 12, 6), np.uint8)
    assert save(client, dropped["name"], mask).status_code == 200
    (case,) = open_dataset(pool / "out")
    image = read_case_image(case)
    assert image.unit == "HU"
    assert np.array_equal(read_case_label(case, image).array[0], mask)
    assert {str(pydicom.dcmread(file).PatientName) for file in case.series} == {"Doe^Jane"}


# ------------------------------------------------------------------------------------------------ names of classes


def rename(client: TestClient, value: int, name: str, classes: list[str] = CLASSES) -> Any:
    wanted = {"classes": classes, "value": value, "name": name}
    return client.post(f"{ROOT}corrections/classes", json=wanted)


def shown(client: TestClient, name: str, layer: str) -> tuple[list[str], list[str]]:
    """The classes of a layer as the list of layers has them, and as its details do."""
    base = f"{ROOT}scans/{listed(client)[name]['id']}"
    (found,) = (one for one in client.get(base).json()["layers"] if one["id"] == layer)
    return found["classes"], client.get(f"{base}/layers/{layer}").json()["classes"]


def test_a_class_is_renamed_everywhere_at_once(pool: Path, opened: Any) -> None:
    before = snapshot(pool / "films") | snapshot(pool / "masks")
    client = opened("films", masks=str(pool / "masks"))
    assert save(client, "a", np.ones((6, 5)), start="given").status_code == 200
    answer = rename(client, 2, " left heart ")
    assert answer.status_code == 200, answer.text
    named = ["background", "lung", "left heart"]
    assert answer.json()["classes"] == answer.json()["corrections"]["classes"] == named
    assert open_dataset(pool / "out").classes == tuple(named)
    for one in (client, opened("films", masks=str(pool / "masks"))):  # another server knows it too
        assert one.get(f"{ROOT}state").json()["corrections"]["classes"] == named
        for name, layer in (("a", "correction"), ("a", "given"), ("b", "given")):
            assert shown(one, name, layer) == (named, named)
    # Whoever has the old name on the screen still saves, and under the new one.
    assert save(client, "b", np.ones((6, 5)), start="given", classes=CLASSES).status_code == 200
    assert open_dataset(pool / "out").classes == tuple(named)
    assert snapshot(pool / "films") | snapshot(pool / "masks") == before


def test_names_that_are_swapped_and_given_back(pool: Path, opened: Any) -> None:
    client = opened("films", masks=str(pool / "masks"))
    steps = [(1, "x", "x heart"), (2, "lung", "x lung"), (1, "heart", "heart lung")]
    steps += [(1, "x", "x lung"), (2, "heart", "x heart"), (1, "lung", "lung heart")]
    names = CLASSES
    for value, name, after in steps:
        answer = rename(client, value, name, names)
        assert answer.status_code == 200, answer.text
        names = answer.json()["classes"]
        assert " ".join(names[1:]) == after
        assert shown(client, "b", "given") == (names, names)
    assert json.loads((pool / "out" / "renamed.json").read_text()) == {}


@pytest.mark.parametrize(
    ("value", "name", "classes", "status", "words"),
    [
        (1, "heart", CLASSES, 400, "different names"),
        (1, "", CLASSES, 400, "different names"),
        (1, "  ", CLASSES, 400, "different names"),
        (1, "a\nb", CLASSES, 400, "different names"),
        (1, "background", CLASSES, 400, "different names"),
        (0, "air", CLASSES, 400, "Choose the class"),
        (3, "more", CLASSES, 400, "Choose the class"),
        (-1, "more", CLASSES, 400, "Choose the class"),
        (1, "more", ["background", "bone"], 409, "has the classes background, lung, heart"),
        (1, "more", [], 400, "Choose the class"),
    ],
)
def test_a_name_that_cannot_be_is_not_written(
    pool: Path, opened: Any, value: int, name: str, classes: list[str], status: int, words: str
) -> None:
    client = opened("films")
    assert save(client, "a", np.ones((6, 5))).status_code == 200
    before = snapshot(pool / "out")
    answer = rename(client, value, name, classes)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert snapshot(pool / "out") == before


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"body": b"no zlib"}, 400, "whole"),
        ({"body": zlib.compress(bytes(29))}, 400, "another size"),
        ({"body": zlib.compress(bytes(31))}, 400, "another size"),
        ({"body": zlib.compress(bytes(30)) + b"more"}, 400, "another size"),
        ({"body": zlib.compress(bytes(10**8))}, 413, "larger"),
        ({"body": zlib.compress(bytes(30))[:-5]}, 400, ""),
        ({"body": zlib.compress(bytes([3] * 30))}, 400, "label 3"),
        ({"classes": ["background"]}, 400, "Classes"),
        ({"classes": ["background", "a", "a"]}, 400, "Classes"),
        ({"classes": ["background", "a\nb"]}, 400, "Classes"),
        ({"classes": ["background", "a" * 101]}, 400, "Classes"),
        ({"classes": ["background"] + [str(i) for i in range(64)]}, 400, "Classes"),
        ({"start": "../../x"}, 404, ""),
        ({"before": 1}, 409, "meanwhile"),
        ({"before": "many"}, 422, ""),
    ],
    ids=str,
)
def test_what_does_not_fit_is_not_written(
    pool: Path, opened: Any, change: dict[str, Any], status: int, words: str
) -> None:
    client = opened("films")
    answer = save(client, "a", np.zeros((6, 5)), **change)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert not [p for p in (pool / "out").rglob("*") if p.is_file() and p.stat().st_size]


def test_a_packed_mask_is_inflated_no_further_than_the_scan(opened: Any) -> None:
    """20 kB that would become 20 MB, in a request that is small enough."""
    import tracemalloc

    from radiffuse.viewer.corrections import unpacked
    from radiffuse.viewer.refusal import Refused

    bomb = zlib.compress(bytes(2 * 10**7), 9)
    tracemalloc.start()
    with pytest.raises(Refused):
        unpacked(bomb, (100, 200), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


@pytest.mark.parametrize("where", ["masks", "films", "file"])
def test_no_folder_of_something_else_is_written_into(pool: Path, opened: Any, where: str) -> None:
    (pool / "file").write_text("x")
    before = snapshot(pool)
    with pytest.raises(InputError, match="Choose another --corrections"):
        opened("films", corrections=str(pool / where))
    assert snapshot(pool) == before


def test_another_scan_of_the_same_name_is_another_scan(pool: Path, opened: Any) -> None:
    client = opened("films")
    assert save(client, "a", np.ones((6, 5))).status_code == 200
    (pool / "films/a.png").write_bytes(files.film_bytes(pool, (6, 5), seed=9))
    again = opened("films")
    assert listed(again)["a"]["corrected"] == 0
    assert save(again, "a", np.ones((6, 5))).status_code == 409


def test_a_scan_that_changed_while_it_was_shown(pool: Path, opened: Any) -> None:
    client = opened("films")
    client.get(f"{ROOT}scans/{listed(client)['a']['id']}")
    (pool / "films/a.png").write_bytes(files.film_bytes(pool, (6, 5), seed=9))
    answer = save(client, "a", np.ones((6, 5)))
    assert answer.status_code == 409
    assert "not the one that is shown" in answer.text


def test_other_classes_go_elsewhere_and_new_ones_are_added(pool: Path, opened: Any) -> None:
    client = opened("films")
    assert save(client, "a", np.ones((6, 5)), classes=CLASSES[:2]).status_code == 200
    assert save(client, "b", np.ones((6, 5)), classes=["background", "bone"]).status_code == 409
    assert save(client, "b", np.full((6, 5), 2)).status_code == 200
    assert open_dataset(pool / "out").classes == tuple(CLASSES)


@pytest.mark.parametrize(
    "line",
    ['{"case": "a"}', '["a"]', "{}", "not JSON at all"],
)
def test_a_record_that_was_altered_is_named(pool: Path, opened: Any, line: str) -> None:
    assert save(opened("films"), "a", np.ones((6, 5))).status_code == 200
    record = pool / "out" / FILE
    record.write_text(line + "\n")
    with pytest.raises(InputError, match="is no record of a correction"):
        open_dataset(pool / "out")


@pytest.mark.parametrize("key", ["images", "label", "series"])
def test_paths_in_a_record_stay_in_its_folder(pool: Path, opened: Any, key: str) -> None:
    assert save(opened("films"), "a", np.ones((6, 5))).status_code == 200
    record = pool / "out" / FILE
    entry = json.loads(record.read_text())
    entry[key] = "../films/a.png" if key == "label" else ["../films/a.png"]
    record.write_text(json.dumps(entry) + "\n")
    with pytest.raises(InputError, match="leads out"):
        open_dataset(pool / "out")


def test_a_kill_at_any_moment_leaves_what_was_saved_before(pool: Path, opened: Any) -> None:
    client = opened("films")
    assert save(client, "a", np.ones((6, 5))).status_code == 200
    out = pool / "out"
    with (out / FILE).open("a") as file:
        file.write('{"radiffuse": "1", "case": "b", "la')  # cut short
    shutil.copytree(out / "a", out / "b")  # its files were there, its line was not
    assert [case.name for case in open_dataset(out)] == ["a"]
    again = opened("films")
    assert save(again, "b", np.full((6, 5), 2)).status_code == 200
    found = {case.name: case for case in open_dataset(out)}
    assert sorted(found) == ["a", "b"]
    assert read_label(found["b"].label).array.max() == 2  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ what fit takes


def labelled(pool: Path) -> Path:
    data = pool / "labelled"
    for name, seed in (("a", 0), ("c", 5), ("held", 6)):
        for kind in ("images", "labels"):
            (data / kind).mkdir(parents=True, exist_ok=True)
        (data / "images" / f"{name}.png").write_bytes(files.film_bytes(pool, (6, 5), seed=seed))
        write_label(
            data / "labels" / f"{name}.png", np.ones((6, 5), np.uint8), Scan(np.zeros((1, 6, 5)))
        )
    (data / "classes.json").write_text(json.dumps(dict(enumerate(CLASSES))))
    return data


def test_fit_reads_corrections_beside_labels(pool: Path, opened: Any) -> None:
    """A corrected label replaces that of the same film; those of patients who are held out stay out."""
    data = labelled(pool)
    client = opened("labelled", "films")
    for one in client.get(f"{ROOT}state").json()["scans"]:
        if one["name"] in ("b", "held") or (one["name"] == "a" and one["labelled"]):
            body = zlib.compress(bytes([2] * 30))
            query = {"classes": CLASSES, "before": 0, "start": "truth" if one["labelled"] else ""}
            url = f"{ROOT}scans/{one['id']}/correction"
            assert client.post(url, params=query, content=body).status_code == 200
    reader = Data(
        layout="pairs", group="images/(.*)[.]png"
    )  # words for the labels, not for the corrections
    own = open_dataset(data, reader)
    held = own.filter(lambda case: case.name == "held")
    learned = with_more(own, [str(pool / "out")], reader, held=held, labelled=True)
    values = {case.name: int(read_case_label(case).array.max()) for case in learned}
    assert values == {"a": 2, "b": 2, "c": 1, "held": 1}
    assert np.array_equal(read_label(data / "labels/a.png").array, np.ones((1, 6, 5)))
    assert rename(client, 1, "right lung").status_code == 200
    again = with_more(open_dataset(data, reader), [str(pool / "out")], reader, labelled=True)
    assert again.classes == tuple(CLASSES)  # as the labels call them, which are more
    (data / "classes.json").write_text(json.dumps(dict(enumerate(["background", "rib", "heart"]))))
    with pytest.raises(InputError, match="has the classes background, right lung, heart"):
        with_more(open_dataset(data, reader), [str(pool / "out")], reader, labelled=True)


def test_the_page_says_the_next_command(pool: Path, opened: Any) -> None:
    data = labelled(pool)
    client = opened("labelled", "films")
    assert client.get(f"{ROOT}state").json()["corrections"]["next"] == ""
    answer = save(client, "b", np.ones((6, 5)))
    said = answer.json()["corrections"]["next"]
    assert said.split() == [
        *("radiffuse", "fit", str(data)),
        *("--with", str((pool / "out").resolve()), "--out", "runs/corrected"),
    ]


# ------------------------------------------------------------------------------------------------ the list of work


def test_the_list_of_work(pool: Path, opened: Any) -> None:
    (pool / "next.csv").write_text(
        'place,case,file,why\n1,b,b.png,"lung uncertain, entropy 0.4"\n2,a,a.png,typical\n'
    )
    client = opened("films", worklist=str(pool / "next.csv"))
    found = client.get(f"{ROOT}state").json()["scans"]
    assert [(one["name"], one["place"], one["why"]) for one in found] == [
        ("b", 1, "lung uncertain, entropy 0.4"),
        ("a", 2, "typical"),
    ]
    (pool / "next.csv").write_text("place,case,file,why\n1,z,z.png,typical\n")
    with pytest.raises(InputError, match="lists z.png, which is none of the given scans"):
        opened("films", worklist=str(pool / "next.csv"))
    (pool / "next.csv").write_text("image,label\na,b\n")
    with pytest.raises(InputError, match="lacks the columns"):
        opened("films", worklist=str(pool / "next.csv"))


def test_labels_are_sent_packed(pool: Path, opened: Any) -> None:
    client = opened("films", masks=str(pool / "masks"))
    url = f"{ROOT}scans/{listed(client)['b']['id']}/layers/given/labels"
    with client.stream("GET", url) as answer:
        raw = b"".join(answer.iter_raw())
    assert gzip.decompress(raw) == bytes([1] * 30)


def test_channels_and_headers_with_pixels_elsewhere(pool: Path, opened: Any) -> None:
    data = pool / "several"
    data.mkdir()
    values = np.arange(2 * 4 * 5 * 6, dtype=np.int16).reshape(2, 4, 5, 6)
    for word, array in zip(("t1", "t2"), values, strict=True):
        for case in ("x", "y"):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), data / f"{case}_{word}.nii.gz")
    mask = nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4))
    for case in ("x", "y"):
        nibabel.save(mask, data / f"{case}_seg.nii.gz")
    corrected = np.zeros((4, 5, 6), np.uint8)
    corrected[1, 2, 3] = 2
    assert save(opened("several"), "x", corrected, start="truth").status_code == 200
    found = open_dataset(pool / "out")
    assert found.channels == ("t1", "t2")
    assert np.array_equal(read_case_image(found.cases[0]).array, values)
    assert np.array_equal(read_case_label(found.cases[0]).array[0], corrected)
    (pool / "h.raw").write_bytes(values[0].tobytes(order="F"))
    head = "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_SHORT\nElementSpacing = 1 2 3\n"
    (pool / "h.mhd").write_text(f"{head}ElementDataFile = h.raw\n")
    client = opened("h.mhd", corrections=str(pool / "more"))
    assert save(client, "h", corrected).status_code == 200
    (case,) = open_dataset(pool / "more")
    assert case.images == (pool / "more/h/scan.nii.gz",)
    assert np.array_equal(read_case_label(case, read_case_image(case)).array[0], corrected)
