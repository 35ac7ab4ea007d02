"""The page in a browser: a film is dropped, segmented, its steps are moved through, its mask is saved; and refusals."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra 'view': pip install 'radiffuse[view]'")
pytest.importorskip(
    "playwright", reason="needs the extra 'browser': pip install 'radiffuse[browser]'"
)
import uvicorn
from playwright.sync_api import Page, expect, sync_playwright

import viewer_files as files
from radiffuse.data.readers import read_label
from radiffuse.viewer.app import make_app
from radiffuse.viewer.serve import bind, make_state

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt-get install chromium", allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 120_000
"""Milliseconds: a busy machine draws slowly."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a port of its own, with three runs, a film and a volume."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [
        files.make_run(folder / "runs" / "flat"),
        files.make_run(folder / "runs" / "diffusion", diffusion=True),
        files.make_run(folder / "runs" / "solid", dims=3),
        files.make_choice(folder / "runs" / "chosen"),
    ]
    (folder / "scans").mkdir()
    files.volume_bytes(folder / "scans")
    (folder / "scans" / "a.png").write_bytes(files.film_bytes(folder))
    (folder / "server").mkdir()
    settings = files.settings_of(*runs, folder / "scans", upload_limit=1)
    state = make_state(settings, folder / "server")
    with bind(0) as bound:
        port = bound.getsockname()[1]
        app = make_app(state, files.TOKEN, port)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/{files.TOKEN}/"
        server.should_exit = True
        thread.join(20)
        state.jobs.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    """The page; at the end it must have asked nobody else for anything, and have logged no error."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None,
    )
    page.goto(address)
    yield page
    context.close()
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not faults


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file as the mouse does."""
    data = page.evaluate_handle(
        """([name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name));
            return data;
        }""",
        [name, list(content)],
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": data})


def pixels(page: Page) -> np.ndarray:
    """What the film's canvas shows, ``(rows, columns, 4)``."""
    found = page.evaluate(
        """() => {
            const c = document.querySelector('canvas.screen');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height);
            return [c.height, c.width, Array.from(d.data)];
        }"""
    )
    return np.array(found[2], np.uint8).reshape(found[0], found[1], 4)


def colored(page: Page) -> int:
    """Pixels that are not gray: those of an overlay."""
    shown = pixels(page)[..., :3].astype(int)
    return int((np.ptp(shown, axis=-1) > 12).sum())


def test_drop_segment_step_and_save(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 1000, "height": 640})
    page.click("#tab-segment")
    page.locator(".scan[aria-current=true]").wait_for()
    drop(page, "<i>name.png", files.film_bytes(tmp_path))
    expect(page.locator(".layers h2")).to_contain_text("name")
    assert page.locator(".layers h2 i, .scans i").count() == 0
    assert colored(page) == 0
    page.select_option(".form select >> nth=0", label="diffusion (2D)")
    page.click("button.main")
    row = page.locator(".layer.mask").first
    expect(row.locator(".classes li")).to_have_count(len(files.CLASSES) - 1)
    assert files.CLASSES[1] in row.inner_text()  # as text, though it looks like markup
    expect(row.locator(".step")).to_have_count(1)
    assert colored(page) > 0
    before, sizes = pixels(page), row.locator(".classes").inner_text()
    slider = row.locator(".step")
    slider.focus()
    page.keyboard.press("Home")
    expect(row.locator("output")).to_contain_text(f"step 1 of {files.STEPS}")
    assert (pixels(page) != before).any()
    assert row.locator(".classes").inner_text() != sizes
    page.keyboard.press("End")
    assert (pixels(page) == before).all()
    opacity = row.locator("input[type=range]").first
    opacity.focus()
    page.keyboard.press("Home")
    assert colored(page) == 0
    page.keyboard.press("End")
    with page.expect_download() as caught:
        row.locator("text=PNG").click()
    path = tmp_path / "mask.png"
    caught.value.save_as(path)
    assert caught.value.suggested_filename.endswith(".png")
    mask = read_label(path).array
    counts = [
        int(text.split()[0].replace(",", "")) for text in row.locator(".size").all_inner_texts()
    ]
    assert counts == np.bincount(mask.ravel(), minlength=3)[1:].tolist()


def test_a_volume_in_planes_and_3d(page: Page) -> None:
    """In software 3D is slow, so little is asked: that the volume is drawn, and drawn otherwise in 3D."""
    page.set_viewport_size({"width": 700, "height": 500})
    page.click(".scan >> text=volume")
    page.locator(".bar >> text=Axial").wait_for()
    shot = page.locator("canvas.screen").screenshot()
    page.click(".bar >> text=Axial")
    page.wait_for_function(
        "document.querySelector('.bar [aria-pressed=true]').textContent === 'axial'"
    )
    page.wait_for_timeout(500)
    assert page.locator("canvas.screen").screenshot() != shot


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("page.html", b"<script>alert(1)</script>", "none of the known formats"),
        ("big.png", bytes(1_100_000), "larger than 1 MB"),
        ("disc.zip", files.zip_of({"../../a.dcm": b"x"}), "leads out"),
        ("bomb.zip", files.zip_of({"a.dcm": bytes(128) + b"DICM" + bytes(9_000_000)}), "larger"),
        ("empty.png", b"", "empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refusals_are_said(page: Page, name: str, content: bytes, words: str) -> None:
    page.locator(".scan[aria-current=true]").wait_for()
    drop(page, name, content)
    expect(page.locator("#message")).to_contain_text(words)


def test_keyboard_alone_reaches_every_tab(page: Page) -> None:
    page.locator("#tab-view").focus()
    for tab in ("segment", "correct", "generate", "runs"):
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#tab-{tab}")).to_have_attribute("aria-selected", "true")
        expect(page.locator(f"#tab-{tab}")).to_be_focused()
    expect(page.locator(".chart path.curve")).to_have_count(3)
    expect(page.locator("#work")).to_contain_text("Settings that differ")


def test_an_automatic_run_is_explained(page: Page) -> None:
    page.click("#tab-runs")
    page.locator(".runs").wait_for()
    for name in ("flat", "diffusion", "solid"):
        page.locator(".choose label", has_text=name).locator("input").uncheck()
    expect(page.locator("h2").first).to_have_text("Choice of chosen")
    expect(page.locator(".reason").first).to_have_text("chosen: scratch with 50 steps")
    expect(page.locator("table caption", has_text="Tried on cases")).to_be_visible()
    expect(page.locator("td", has_text="a <b>imagenet</b> network")).to_have_count(1)
    expect(page.locator(".chart path.curve").first).to_be_visible()  # of its member
    # Its choice made the settings of its member.
    expect(page.locator("#work")).not_to_contain_text("Settings")
    page.locator(".choose label", has_text="chosen: scratch").locator("input").uncheck()
    expect(page.locator(".chart")).to_have_count(0)


def test_a_tab_shows_nothing_of_the_one_before_while_it_loads(page: Page) -> None:
    page.click("#tab-generate")
    expect(page.locator("#work")).to_contain_text("No run of radiffuse synthesize")
    waiting: list[Any] = []
    page.route("**/api/runs/*", lambda route: waiting.append(route))
    page.click("#tab-runs")
    expect(page.locator("#work")).to_have_text("Loading ...")
    page.click("#tab-view")  # what was asked for before comes later, and is not shown
    expect(page.locator(".bar")).to_be_visible()
    for one in waiting:
        one.continue_()
    page.wait_for_timeout(300)
    expect(page.locator(".runs")).to_have_count(0)


SMALL = """() => {
    const cut = [];
    for (const one of document.querySelectorAll('.chart text')) {
        const inner = one.getBoundingClientRect(), outer = one.ownerSVGElement.getBoundingClientRect();
        if (inner.left < outer.left - 1 || inner.right > outer.right + 1) cut.push(one.textContent);
    }
    for (const one of document.querySelectorAll('button')) {
        const lines = one.scrollWidth > one.clientWidth + 1 && !one.classList.contains('scan');
        if (lines || one.getBoundingClientRect().height > 60) cut.push(one.textContent);
    }
    return cut;
}"""
"""Texts of charts and buttons that are cut or broken."""


@pytest.mark.parametrize("width", [360, 420, 1000])
def test_no_label_of_a_chart_or_button_is_cut(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.click("#tab-runs")
    page.locator(".chart path.curve").first.wait_for()
    page.evaluate(
        """async () => {
            const { chart } = await import('./js/chart.js');
            const points = [[1, 0.000123], [99999, 0.000456]];
            document.getElementById('work').append(chart('loss', [{ name: 'a', points, order: 0 }], true));
            (await import('./js/dom.js')).say('many words '.repeat(40));
        }"""
    )
    assert page.evaluate(SMALL) == []
    assert page.locator("#message button").bounding_box()["height"] < 60  # type: ignore[index]


def test_nothing_is_wider_than_a_small_screen(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    page.locator(".scan[aria-current=true]").wait_for()
    for tab in ("segment", "correct", "generate", "runs"):
        page.click(f"#tab-{tab}")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, tab
