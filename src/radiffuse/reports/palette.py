"""Colors of figures, told apart by color-blind readers too, and how they turn with a dark page.

Series are drawn in darkened tones of Okabe and Ito's set (Color Universal Design, 2008), dark
enough for text on white. Each exact value below is a key: the HTML page replaces it by a variable
of its style sheet, which has a second set of values for dark pages.
"""

from __future__ import annotations

INK = "#1b2129"
"""Text and axes."""
SOFT = "#5b6672"
"""Secondary text."""
GRID = "#e3e8ed"
"""Grid lines."""
PAPER = "#fefefe"
"""The page behind the drawing."""

SERIES = ("#0072b2", "#c44e00", "#00805f", "#a8488a", "#8a6a00", "#5f6b78")
"""Series in order: blue, vermilion, green, purple, ocher, gray."""

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Markers of the series, so that none is told by color alone."""

TRUTH, PREDICTION = "#35d0ff", "#ffb000"
"""Outlines on images, the same on light and dark pages: truth cyan, prediction amber."""

PAGE_COLORS = {
    INK: "--ink",
    SOFT: "--soft",
    GRID: "--grid",
    PAPER: "--paper",
    **{color: f"--c{i}" for i, color in enumerate(SERIES)},
}
"""Color of a figure to variable of ``templates/page.css``."""
