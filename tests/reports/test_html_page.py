"""The page: nothing can execute, nothing is loaded, everything that was given is there."""

from __future__ import annotations

import errno
import html
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiffuse.errors import InputError
from radiffuse.reports.figures import class_bars
from radiffuse.reports.html import Report, format_interval, format_mean, format_p, format_value

pytestmark = pytest.mark.usefixtures("drawn")

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>\' onload="x" $\\frac{'


class Page(HTMLParser):
    """Tags and attributes as a browser meets them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_page() -> str:
    report = Report(HOSTILE, HOSTILE)
    for _ in range(2):
        report.section(HOSTILE)
    report.text(HOSTILE, HOSTILE)
    report.facts({HOSTILE: HOSTILE})
    report.table(pd.DataFrame({HOSTILE: [HOSTILE]}), HOSTILE)
    report.images([np.zeros((4, 4), np.uint8)], HOSTILE, [HOSTILE])
    report.details(HOSTILE, HOSTILE)
    summary = pd.DataFrame(
        {"class": [HOSTILE, "lung"], "metric": "dice", "mean": [0.5, 0.6], "low": 0.4, "high": 0.7}
    )
    report.figure(class_bars(summary), HOSTILE)
    return report.render()


def test_hostile_names_stay_text() -> None:
    page = Page(hostile_page())
    assert page.open == []
    assert not {"script", "iframe", "object", "link"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert page.text.count(HOSTILE) >= 12


def test_page_loads_nothing() -> None:
    text = hostile_page()
    for tag, attributes in Page(text).tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, name, value)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert "default-src 'none'" in html.unescape(text)


def test_ids_are_unique_and_links_lead_somewhere() -> None:
    tags = Page(hostile_page()).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in tags if tag == "a"]
    assert len(links) == 2
    assert {str(link)[1:] for link in links} <= set(ids)


def test_figures_follow_the_page_from_light_to_dark() -> None:
    text = hostile_page()
    drawing = text[text.index("<svg") : text.index("</svg>")]
    assert "var(--ink)" in drawing
    assert "var(--c0)" in drawing
    assert "#0072b2" not in drawing.lower()
    assert "prefers-color-scheme: dark" in text


def test_table_aligns_numbers_and_shows_missing_ones() -> None:
    report = Report("t")
    report.table(pd.DataFrame({"case": ["a"], "dice": [np.nan], "counted": [True]}))
    text = report.render()
    assert '<td class="number">–</td>' in text  # noqa: RUF001
    assert "<td>a</td>" in text
    assert "<td>yes</td>" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.12345, "0.123"), (12.3456, "12.346"), (123.456, "123.5"), (0.0, "0.000"),
        (1e-5, "1.00e-05"),
        (2_700_000, "2,700,000"), (2100, "2100"), (np.int64(3), "3"), (True, "yes"),
        (None, "–"),  # noqa: RUF001
        ("x", "x"), (np.float32(0.5), "0.500"), (123456.7, "123,457"),
    ],
)  # fmt: skip
def test_values_are_shown_as_a_reader_wants_them(value: object, shown: str) -> None:
    assert format_value(value) == shown


def test_intervals_and_p_values() -> None:
    assert format_interval(0.12345, 0.5) == "0.123 to 0.500"
    assert (
        format_mean(2.04, 1.0, 3.06, digits=1).replace("\N{NO-BREAK SPACE}", " ")
        == "2.0 [1.0, 3.1]"
    )
    assert format_mean(0.5, np.nan, np.nan) == "0.500"
    assert format_p(1e-9) == "< 0.001"
    assert format_p(0.0123) == "0.012"
    assert {format_p(np.nan), format_interval(np.nan, 1), format_mean(np.nan, 0, 1)} == {"–"}  # noqa: RUF001


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    report = Report("new \udcff name")
    assert report.save(path) == path
    assert "new \\udcff name" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_full_disk_names_the_file_and_keeps_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left") as caught:
        Report("t").save(path)
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_images_must_be_bytes() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Report("t").images([np.zeros((2, 2))])
