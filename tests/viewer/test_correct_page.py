"""Correcting a mask in a browser: with the mouse and with keys alone, in three planes, down a list of work."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, label

pytest.importorskip("fastapi", reason="needs the extra 'view': pip install 'radiffuse[view]'")
pytest.importorskip(
    "playwright", reason="needs the extra 'browser': pip install 'radiffuse[browser]'"
)
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright
from test_browser import CHROMIUM, FLAGS, PATIENCE, drop

import viewer_files as files
from radiffuse.data.layouts import open_dataset
from radiffuse.data.readers import read_label, write_label
from radiffuse.data.scan import Scan
from radiffuse.viewer.app import make_app
from radiffuse.viewer.serve import bind, make_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SHAPE = (10, 12, 8)
AFFINE = np.array([[0, 2.0, 0, -10], [0, 0, -1.5, 7], [3.0, 0, 0, 4], [0, 0, 0, 1]])
"""Its first axis runs up, its second to the right, its third to the back."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three films with masks of different quality, and a volume."""
    for name in ("films", "masks", "volumes"):
        (tmp_path / name).mkdir()
    lines = []
    for i, name in enumerate("abc"):
        (tmp_path / "films" / f"{name}.png").write_bytes(files.film_bytes(tmp_path, (20, 20), i))
        path = tmp_path / "masks" / f"{name}.png"
        write_label(path, np.zeros((20, 20), np.uint8), Scan(np.zeros((1, 20, 20))))
        lines.append(record_of(tmp_path / "films" / f"{name}.png", path, (0.9, 0.4, 0.7)[i]))
    header = {
        "radiffuse": "1", "command": "predict", "settings": {},
        "runs": [{"run": "runs/seg", "model": "0" * 64, "plan": "0" * 64}],
        "classes": {"0": "background", "1": "lung", "2": "heart"},
    }  # fmt: skip
    (tmp_path / "masks" / "prediction.json").write_text(json.dumps(header))
    (tmp_path / "masks" / "classes.json").write_text(json.dumps(header["classes"]))
    (tmp_path / "masks" / "masks.jsonl").write_text(
        "".join(f"{json.dumps(one)}\n" for one in lines)
    )
    values = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / "volumes" / "ct.nii.gz")
    return tmp_path


def record_of(scan: Path, mask: Path, dice: float) -> dict[str, Any]:
    from radiffuse.data.cases import hash_of_files
    from radiffuse.data.dataset import Case
    from radiffuse.inference.records import scan_of
    from radiffuse.system.files import sha256

    case = Case(mask.stem, (scan,))
    return {
        "case": mask.stem,
        "scan": scan_of(case) | {"sha256": hash_of_files(case)},
        "files": {"mask": {mask.name: sha256(mask)}},
        "expected": {"all": {"dice": dice, "low": dice - 0.1, "high": 0.95, "level": 0.9}},
    }


@pytest.fixture
def opened(browser: Any, scans: Path, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens the page on some of the scans; at the end it must have logged no error."""
    ends: list[Callable[[], None]] = []
    faults: list[str] = []

    def open_page(*names: str, **settings: Any) -> Page:
        (tmp_path / "server").mkdir()
        given = {"corrections": str(tmp_path / "out")} | settings
        state = make_state(
            files.settings_of(*(scans / n for n in names), **given), tmp_path / "server"
        )
        with bind(0) as bound:
            bound_to = bound.dup()
        port = bound_to.getsockname()[1]
        config = uvicorn.Config(
            make_app(state, files.TOKEN, port), log_level="error", access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound_to]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        context = browser.new_context(viewport={"width": 1200, "height": 800})
        page: Page = context.new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page.on("pageerror", lambda error: faults.append(str(error)))

        def end() -> None:
            context.close()
            server.should_exit = True
            thread.join(20)
            state.jobs.stop()

        ends.append(end)
        page.goto(f"http://127.0.0.1:{port}/{files.TOKEN}/")
        page.click("#tab-correct")
        page.locator(".plane canvas").first.wait_for()
        return page

    yield open_page
    for end in ends:
        end()
    assert not faults


def saved(page: Page, path: Path) -> np.ndarray:
    """What pressing s writes."""
    page.keyboard.press("s")
    deadline = time.monotonic() + PATIENCE / 1000
    while not path.is_file():
        page.wait_for_timeout(50)
        assert time.monotonic() < deadline
    expect(page.locator("#message")).to_contain_text("is saved as corrected")
    expect(page.locator(".layers .main")).to_have_text("Saved")
    return read_label(path).array[0]


def pixel(page: Page, plane: str, place: tuple[float, float]) -> tuple[float, float]:
    """Where a place of a plane, as fractions of its canvas, is on the screen."""
    box = page.locator(f".plane.{plane} canvas").bounding_box()
    assert box
    return box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]


def test_a_film_is_corrected_with_the_mouse(opened: Any, tmp_path: Path) -> None:
    page = opened("films")
    expect(page.locator(".layers h2").first).to_have_text("a")
    for _ in range(4):
        page.keyboard.press("[")
    expect(page.locator(".radius output")).to_have_text("0 px")
    side = page.evaluate(
        "Math.min(...['clientWidth', 'clientHeight'].map((k) => document.querySelector('.plane')[k])) / 20"
    )
    middle = pixel(page, "film", (0.5, 0.5))

    def at(row: int, column: int) -> tuple[float, float]:
        return middle[0] + (column - 9.5) * side, middle[1] + (row - 9.5) * side

    ring = [(5, 5), (5, 10), (12, 10), (12, 5), (5, 5)]
    page.mouse.move(*at(*ring[0]))
    page.mouse.down()
    for place in ring[1:]:
        page.mouse.move(*at(*place))  # one event for a whole side: no gap may stay
    page.mouse.up()
    outline = np.zeros((20, 20), np.uint8)
    outline[[5, 12], 5:11], outline[5:13, [5]], outline[5:13, [10]] = 1, 1, 1
    page.keyboard.press("f")
    page.mouse.click(*at(8, 7))
    filled = outline.copy()
    filled[5:13, 5:11] = 1
    page.keyboard.press("e")
    page.mouse.click(*at(5, 5))
    filled[5, 5] = 0
    page.keyboard.press("z")
    page.keyboard.press("z")
    assert np.array_equal(saved(page, tmp_path / "out/a/label-1.png"), outline)
    page.keyboard.press("y")
    page.keyboard.press("Control+y")
    assert np.array_equal(saved(page, tmp_path / "out/a/label-2.png"), filled)


def swept(begin: tuple[int, int], end: tuple[int, int], radius: float) -> np.ndarray:
    """Pixels of a film of 20 x 20 whose middle lies so near to the way between two of them."""
    at = np.stack(np.mgrid[:20, :20], -1) - np.array(begin)
    way = np.array(end) - begin
    along = np.clip(at @ way / max(1, way @ way), 0, 1)
    return np.asarray(np.linalg.norm(at - along[..., None] * way, axis=-1) <= radius)


def test_a_stroke_has_an_even_edge_and_what_it_encloses_is_filled_without_a_hole(
    opened: Any, tmp_path: Path
) -> None:
    page = opened("films")
    for _ in range(2):
        page.keyboard.press("[")
    expect(page.locator(".radius output")).to_have_text("2 px")
    side = page.evaluate(
        "Math.min(...['clientWidth', 'clientHeight'].map((k) => document.querySelector('.plane')[k])) / 20"
    )
    middle = pixel(page, "film", (0.5, 0.5))
    ring = [(4, 4), (3, 15), (15, 16), (16, 3), (4, 4)]
    expected = np.zeros((20, 20), bool)
    for begin, end in itertools.pairwise(ring):
        expected |= swept(begin, end, 2.5)  # what the ring around the pointer holds
    for i, (row, column) in enumerate(ring):
        page.mouse.move(middle[0] + (column - 9.5) * side, middle[1] + (row - 9.5) * side)
        if not i:
            page.mouse.down()
    page.mouse.up()
    assert np.array_equal(saved(page, tmp_path / "out/a/label-1.png"), expected)
    page.keyboard.press("f")
    page.mouse.click(*middle)
    assert np.array_equal(saved(page, tmp_path / "out/a/label-2.png"), binary_fill_holes(expected))


def test_a_brush_that_a_key_holds_down_makes_one_change(opened: Any, tmp_path: Path) -> None:
    page = opened("films")
    page.locator(".plane canvas").focus()
    page.keyboard.down("Space")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.up("Space")
    page.keyboard.press("ArrowDown")  # nothing is painted any more
    expected = swept((10, 10), (10, 12), 4.5) | swept((10, 12), (11, 12), 4.5)
    assert np.array_equal(saved(page, tmp_path / "out/a/label-1.png"), expected)
    page.keyboard.press("z")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    assert not saved(page, tmp_path / "out/a/label-2.png").any()
    page.click("#tab-view")
    expect(
        page.locator(".layer", has_text="correction").get_by_role("checkbox").first
    ).to_be_checked()


@pytest.mark.parametrize(
    ("plane", "axes"),
    # Right stands on the left, front and top stand above; page up goes to the top, the front, the right.
    [
        ("axial", {"ArrowLeft": (1, 1), "ArrowUp": (2, -1), "PageUp": (0, 1)}),
        ("coronal", {"ArrowLeft": (1, 1), "ArrowUp": (0, 1), "PageUp": (2, -1)}),
        ("sagittal", {"ArrowLeft": (2, -1), "ArrowUp": (0, 1), "PageUp": (1, 1)}),
    ],
)
def test_a_volume_is_corrected_with_keys_alone(
    opened: Any, tmp_path: Path, plane: str, axes: dict[str, tuple[int, int]]
) -> None:
    page = opened("volumes")
    place = [n // 2 for n in SHAPE]
    page.locator(f".plane.{plane} canvas").focus()
    for _ in range(4):
        page.keyboard.press("[")
    page.keyboard.press("i")
    page.keyboard.press("Space")
    expected = np.zeros(SHAPE, np.uint8)
    expected[tuple(place)] = 255
    page.keyboard.press("1")
    for key, (axis, by) in axes.items():
        page.keyboard.press(key)
        place[axis] += by
        page.keyboard.down("Space")
        expected[tuple(place)] = 1
        page.keyboard.press(key)
        place[axis] += by
        if key != "PageUp":
            expected[tuple(place)] = 1
        page.keyboard.up("Space")
    found = saved(page, tmp_path / "out/ct/label-1.nii.gz")
    assert np.argwhere(found).tolist() == np.argwhere(expected).tolist()
    assert np.array_equal(found, expected)
    assert np.array_equal(nibabel.load(tmp_path / "out/ct/label-1.nii.gz").affine, AFFINE)


def test_down_the_list_of_work_by_keys(opened: Any, scans: Path, tmp_path: Path) -> None:
    (scans / "next.csv").write_text(
        "place,case,file,why\n1,c,c.png,typical\n2,a,a.png,typical\n3,b,b.png,typical\n"
    )
    page = opened("films", masks=str(scans / "masks"), worklist=str(scans / "next.csv"))
    names = page.locator(".scan")
    assert names.all_inner_texts() == ["c", "a", "b"]
    page.locator("select[aria-label='Order of the scans']").select_option("expected")
    assert names.all_inner_texts() == ["b", "c", "a"]
    expect(page.locator(".layers h2").first).to_have_text("c")
    page.locator(".plane canvas").focus()
    page.keyboard.press("Space")
    saved(page, tmp_path / "out/c/label-1.png")
    page.keyboard.press("n")
    expect(page.locator(".layers h2").first).to_have_text("a")
    page.keyboard.press("p")
    expect(page.locator(".layers h2").first).to_have_text("c")
    expect(page.locator(".layers pre")).to_contain_text("radiffuse fit")
    page.keyboard.press("n")
    expect(page.locator(".layers h2").first).to_have_text("a")
    page.keyboard.press("Space")
    page.keyboard.press("n")
    page.locator("dialog").wait_for()
    page.keyboard.press("Enter")  # Save, which has the focus
    expect(page.locator(".layers h2").first).to_have_text("b")
    assert [case.name for case in open_dataset(tmp_path / "out")] == ["a", "c"]
    entry = json.loads((tmp_path / "out/corrections.jsonl").read_text().splitlines()[0])
    assert entry["start"]["model"] == "0" * 16
    expect(page.locator(".tick")).to_have_count(2)


def specks(shape: tuple[int, ...], share: float) -> np.ndarray:
    """A mask of two classes in many pieces."""
    rng = np.random.default_rng(7)
    return np.where(rng.random(shape) < share, rng.integers(1, 3, shape), 0).astype(np.uint8)


def piece(labels: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    """Where the piece is that holds a place."""
    found = label(labels == labels[place])[0]
    return np.asarray(found == found[place])


def test_a_piece_of_a_film_is_removed_or_kept_with_the_mouse(
    opened: Any, scans: Path, tmp_path: Path
) -> None:
    given = specks((20, 20), 0.6)
    write_label(scans / "masks" / "a.png", given, Scan(np.zeros((1, 20, 20))))
    (scans / "masks" / "prediction.json").unlink()
    page = opened("films", masks=str(scans / "masks"))
    side = page.evaluate(
        "Math.min(...['clientWidth', 'clientHeight'].map((k) => document.querySelector('.plane')[k])) / 20"
    )
    middle = pixel(page, "film", (0.5, 0.5))

    def click(place: tuple[int, ...]) -> None:
        row, column = place
        page.mouse.click(middle[0] + (column - 9.5) * side, middle[1] + (row - 9.5) * side)

    one, two = (tuple(np.argwhere(given == value)[40]) for value in (1, 2))
    empty = tuple(np.argwhere(given == 0)[9])
    expected = given.copy()
    expected[piece(given, one)] = 0
    page.keyboard.press("r")
    click(empty)
    expect(page.locator(".status")).to_contain_text("Nothing to remove")
    click(one)
    assert 0 < (expected == 1).sum() < (given == 1).sum()
    assert np.array_equal(saved(page, tmp_path / "out/a/label-1.png"), expected)
    page.click("text=Keep piece only")
    click(two)
    alone = expected.copy()
    alone[(given == 2) & ~piece(given, two)] = 0
    assert np.array_equal(saved(page, tmp_path / "out/a/label-2.png"), alone)
    page.keyboard.press("z")
    assert np.array_equal(saved(page, tmp_path / "out/a/label-3.png"), expected)
    page.keyboard.press("y")
    assert np.array_equal(saved(page, tmp_path / "out/a/label-4.png"), alone)


def test_a_piece_of_a_volume_is_one_through_all_slices(
    opened: Any, scans: Path, tmp_path: Path
) -> None:
    given = specks(SHAPE, 0.4)
    place = tuple(n // 2 for n in SHAPE)
    given[place[0] - 2 : place[0] + 2, place[1], place[2]] = 1
    (scans / "masks-3d").mkdir()
    nibabel.save(nibabel.Nifti1Image(given, AFFINE), scans / "masks-3d" / "ct.nii.gz")
    page = opened("volumes", masks=str(scans / "masks-3d"))
    page.locator(".plane.coronal canvas").focus()
    at = page.evaluate("document.querySelector('.status').textContent")
    place = tuple(map(int, at.split("voxel ")[1].split(" ·")[0].split(", ")))
    while not given[place]:
        page.keyboard.press("ArrowLeft")
        place = (place[0], place[1] + 1, place[2])
    page.keyboard.press("k")
    page.keyboard.press("Space")
    own = piece(given, place)
    expected = np.where((given == given[place]) & ~own, 0, given)
    assert len(np.unique(np.argwhere(own)[:, 0])) > 1
    assert np.array_equal(saved(page, tmp_path / "out/ct/label-1.nii.gz"), expected)
    page.keyboard.press("r")
    page.keyboard.press("Space")
    expected[own] = 0
    assert np.array_equal(saved(page, tmp_path / "out/ct/label-2.nii.gz"), expected)


def test_a_large_brush_grows_by_larger_steps(opened: Any) -> None:
    page = opened("films")
    size = page.locator(".radius output")
    page.keyboard.press("]")
    expect(size).to_have_text("5 px")  # from 4
    for _ in range(10):
        page.keyboard.press("]")
    assert 40 <= int(size.inner_text().split()[0]) <= 60
    for _ in range(20):
        page.keyboard.press("[")
    expect(size).to_have_text("0 px")


def test_the_list_of_keys_opens_at_its_top(opened: Any) -> None:
    page = opened("films")
    page.set_viewport_size({"width": 900, "height": 420})  # too low for all keys
    page.keyboard.press("?")
    box = page.locator("dialog.help")
    expect(box.locator("h2").first).to_be_in_viewport()
    assert box.evaluate("(one) => [one.scrollTop, one.scrollHeight > one.clientHeight]") == [0, 1]
    page.click("dialog >> text=Close")
    expect(page.locator("dialog")).to_have_count(0)


def test_a_note_moves_nothing_and_goes(opened: Any, tmp_path: Path) -> None:
    page = opened("films")
    page.clock.install()
    page.locator(".plane canvas").focus()
    before = page.locator("main").bounding_box()
    page.keyboard.press("Space")
    saved(page, tmp_path / "out/a/label-1.png")
    assert page.locator("main").bounding_box() == before
    page.clock.run_for(9000)
    expect(page.locator("#message")).to_be_hidden()


def test_all_keys_are_listed_and_everything_has_a_name(opened: Any) -> None:
    page = opened("volumes")
    page.keyboard.press("?")
    expect(page.locator("dialog.help")).to_contain_text("use the tool at the cursor")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas')].filter((one) => {
            const labels = [...(one.labels || [])].map((label) => label.textContent).join('');
            return !(one.getAttribute('aria-label') || labels || one.textContent.trim() || one.placeholder);
        }).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.locator("#tab-correct").focus()
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                "document.activeElement.className + document.activeElement.textContent.slice(0, 9)"
            )
        )
    assert {"screen", "mainAccept", "Brush"} <= seen


def test_changes_are_not_lost_by_another_tab(opened: Any) -> None:
    page = opened("films")
    page.locator(".plane canvas").focus()
    page.keyboard.press("Space")
    expect(page.locator(".layers .main")).to_have_text("Save")
    page.click("#tab-view")
    page.click(".scan >> text=b")
    page.click("#tab-correct")
    expect(page.locator(".layers h2").first).to_have_text("a")
    expect(page.locator(".layers .main")).to_have_text("Save")
    page.click(".scan >> text=b")
    page.click("dialog >> text=Stay")
    expect(page.locator(".layers h2").first).to_have_text("a")
    page.click(".scan >> text=b")
    page.click("dialog >> text=Discard")
    expect(page.locator(".layers h2").first).to_have_text("b")


def test_a_scan_is_not_removed_with_changes_that_are_not_saved(opened: Any, tmp_path: Path) -> None:
    page = opened("films")
    drop(page, "new.png", files.film_bytes(tmp_path, (20, 20), 7))
    expect(page.locator(".layers h2").first).to_have_text("new")
    page.locator(".plane canvas").focus()
    page.keyboard.press("Space")
    page.click("[aria-label='Remove new']")
    page.click("dialog >> text=Stay")
    expect(page.locator(".layers .main")).to_have_text("Save")
    page.click("[aria-label='Remove new']")
    page.click("dialog >> text=Discard")
    expect(page.locator(".scan >> text=new")).to_have_count(0)


def test_a_class_is_renamed_where_masks_are_corrected(opened: Any, tmp_path: Path) -> None:
    page = opened("films", masks=str(tmp_path / "masks"))
    names = page.locator(".classes .name")
    expect(names).to_have_text(["lung", "heart", "not counted"])
    field, message = page.get_by_label("Name of a class"), page.locator("#message")
    page.locator(".plane canvas").first.focus()
    page.keyboard.press("2")
    for wrong in ("lung", ""):
        field.fill(wrong)
        page.get_by_role("button", name="Rename").click()
        expect(message).to_contain_text("Classes have different names")
    expect(names).to_have_text(["lung", "heart", "not counted"])
    field.fill("left heart")
    page.get_by_role("button", name="Rename").click()
    expect(message).to_contain_text("heart is called left heart now")
    expect(names).to_have_text(["lung", "left heart", "not counted"])
    expect(field).to_have_value("")
    written = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert written == {"0": "background", "1": "lung", "2": "left heart"}
    page.click("#tab-view")
    expect(page.locator(".layer .classes .name").first).to_have_text("lung")
    expect(page.locator(".layer .classes .name").nth(1)).to_have_text("left heart")
    page.click("#tab-correct")
    page.click(".scan >> text=b")  # another scan, with a mask of its own
    expect(page.locator(".layers h2").first).to_have_text("b")
    expect(names).to_have_text(["lung", "left heart", "not counted"])
    saved(page, tmp_path / "out/b/label-1.png")
    assert open_dataset(tmp_path / "out").classes == ("background", "lung", "left heart")
    page.keyboard.press("i")
    field.fill("nothing")
    page.get_by_role("button", name="Rename").click()
    expect(message).to_contain_text("What is not counted has no name")
