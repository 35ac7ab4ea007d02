"""One self-contained HTML page: text, tables, figures and images, readable anywhere and forever.

The page loads nothing and runs nothing: styles and pictures are inside it, there is no script, and
a content security policy forbids both, so a hostile file name can at worst be read. The templates escape
every string.
"""

from __future__ import annotations

import base64
import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..data.scan import Array
from ..errors import printable
from ..system.files import write_atomic
from .style import PAGE_COLORS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


DASH = "\N{EN DASH}"
"""In place of a number that is missing."""


class Report:
    """A page that is filled from top to bottom and then saved.

    Args:
        title: Heading of the page.
        subtitle: One line below it; empty for none.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._sections: list[str] = []
        self._body: list[tuple[str, dict[str, Any]]] = []

    def section(self, title: str) -> None:
        """Start a section; it appears in the contents at the top."""
        self._sections.append(title)
        self._add("section", title=title, number=len(self._sections))

    def fill(self, sections: Mapping[str, Callable[[], None]]) -> None:
        """Add sections: title to what writes it; one into which nothing is written is left out."""
        for title, write in sections.items():
            self.section(title)
            empty = len(self._body)
            write()
            if len(self._body) == empty:
                self._sections.pop()
                self._body.pop()

    def text(self, *paragraphs: str) -> None:
        """Add plain paragraphs."""
        self._add("text", paragraphs=paragraphs)

    def facts(self, facts: Mapping[str, object]) -> None:
        """Add the numbers that matter most, as a row of tiles: name to value."""
        self._add("facts", values=[(name, format_value(value)) for name, value in facts.items()])

    def table(self, table: pd.DataFrame, caption: str = "") -> None:
        """Add a table; numbers to three significant decimals, NaN as a dash.

        Args:
            table: Columns and rows as shown; the index is not.
            caption: What the table says, with units.
        """
        from pandas.api.types import is_bool_dtype, is_numeric_dtype

        numeric = [is_numeric_dtype(kind) and not is_bool_dtype(kind) for kind in table.dtypes]
        rows = [[format_value(v) for v in row] for row in table.itertuples(index=False, name=None)]
        columns = list(zip(map(str, table.columns), numeric, strict=True))
        self._add("table", columns=columns, rows=rows, caption=caption)

    def figure(self, figure: Figure, caption: str = "") -> None:
        """Add a figure as SVG whose colors follow the light or dark page.

        Args:
            figure: A matplotlib figure, drawn in the colors of ``palette``.
            caption: What it shows; also its description for screen readers.
        """
        number = 1 + sum(kind == "figure" for kind, _ in self._body)
        drawing = Markup(_svg(figure, number, caption or "Figure"))
        self._add("figure", drawing=drawing, caption=caption)

    def images(
        self, images: Iterable[Array], caption: str = "", names: Sequence[str] | None = None
    ) -> None:
        """Add a grid of images.

        Args:
            images: uint8 arrays, ``(H, W)`` or ``(H, W, 3)``.
            caption: What they are.
            names: A label below each image; None for none.
        """
        urls = [_data_url(image) for image in images]
        labels = list(names) if names is not None else [""] * len(urls)
        self._add("images", pictures=list(zip(urls, labels, strict=True)), caption=caption)

    def details(self, title: str, text: str) -> None:
        """Add preformatted text that opens on a click, such as the settings of a run."""
        self._add("details", title=title, text=text)

    def render(self) -> str:
        """The whole page as a string."""
        page = _templates().get_template("page.html")
        return page.render(
            title=self.title, subtitle=self.subtitle, sections=self._sections, body=self._body
        )

    def save(self, path: Path) -> Path:
        """Write the page; a reader sees the old file or the whole new one, never a part.

        Args:
            path: The HTML file.

        Raises:
            InputError: The folder is missing, full or not writable.
        """
        # File names from the disk may hold bytes that are no text; they are shown escaped.
        write_atomic(path, self.render().encode("utf-8", errors="backslashreplace"))
        return path

    def _add(self, kind: str, **values: Any) -> None:
        self._body.append((kind, values))


@functools.cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("radiffuse.reports"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _shown(value: object) -> object:
    """Texts of files cannot turn around what is read."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return printable(str(value), "\n\t") if plain else value


def format_value(value: Any) -> str:
    """A cell as a reader wants it: three decimals, commas in big counts, a dash for nothing."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None:
        return DASH
    if isinstance(value, int | np.integer):
        return f"{int(value):,}" if abs(int(value)) >= 10_000 else str(int(value))
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return DASH
        if number == 0 or 1e-3 <= abs(number) < 1e4:
            return f"{number:.3f}" if abs(number) < 100 else f"{number:.1f}"
        return f"{number:.2e}" if abs(number) < 1e-3 else f"{number:,.0f}"
    return str(value)


def format_p(p_value: float) -> str:
    """A p-value as journals print it."""
    if math.isnan(p_value):
        return DASH
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def format_interval(low: float, high: float) -> str:
    """``low to high``, or a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return DASH
    return f"{low:.3f} to {high:.3f}"


def format_mean(mean: float, low: float, high: float, digits: int = 3) -> str:
    """``mean [low, high]``, the interval left out where there is none, a dash without a mean."""
    if math.isnan(mean):
        return DASH
    if math.isnan(low) or math.isnan(high):
        return f"{mean:.{digits}f}"
    # A narrow cell breaks before the bracket, never inside it.
    return f"{mean:.{digits}f} [{low:.{digits}f},\N{NO-BREAK SPACE}{high:.{digits}f}]"


def _data_url(image: Array) -> str:
    from PIL import Image

    if image.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {image.dtype}")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _svg(figure: Figure, number: int, description: str) -> str:
    """Inline SVG: colors become the page's, ids are unique in the page, text stays text."""
    import matplotlib

    buffer = io.StringIO()
    salt = f"figure-{number}"
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = printable(buffer.getvalue(), "\n\t")
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<style[^>]*>.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<!--.*?-->", "", drawing, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:url\(|href=")#([^)"]+)', drawing))
    drawing = re.sub(
        r' id="([^"]*)"', lambda m: m.group(0) if m.group(1) in referenced else "", drawing
    )
    for color, variable in PAGE_COLORS.items():
        drawing = re.sub(re.escape(color), f"var({variable})", drawing, flags=re.IGNORECASE)
    label = escape(description)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
