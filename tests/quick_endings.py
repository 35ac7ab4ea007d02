"""A tiny run takes longer over what it leaves for its readers than over training: here is what makes that short."""

from __future__ import annotations

from typing import Any


def quick_endings() -> list[tuple[Any, str, Any]]:
    """Module, name and value of what is set: figures of reports stay blank, samples take two steps."""
    from radiffuse.inference import draw
    from radiffuse.reports import html, style
    from radiffuse.synthesis import training

    return [
        (html, "_svg", lambda *_: "<svg></svg>"),
        (style, "SETTINGS", style.SETTINGS | {"figure.constrained_layout.use": False}),
        (draw, "SAMPLE_STEPS", 2),
        (training, "SAMPLE_STEPS", 2),
    ]
