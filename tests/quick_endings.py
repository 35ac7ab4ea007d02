"""A tiny run takes longer over what it leaves for its readers than over training: here is what makes that short."""

from __future__ import annotations

from typing import Any


def quick_endings() -> list[tuple[Any, str, Any]]:
    """Module, name and value of what is set: figures stay blank, samples and what is timed take two steps."""
    from radiffuse.inference import draw
    from radiffuse.reports import exports, html, style
    from radiffuse.synthesis import training
    from radiffuse.train import measuring

    return [
        (html, "_svg", lambda *_: "<svg></svg>"),
        (exports, "_drawn", lambda figure, name, kind: kind.encode()),
        (style, "SETTINGS", style.SETTINGS | {"figure.constrained_layout.use": False}),
        (measuring, "SECONDS", 0.0),
        (draw, "SAMPLE_STEPS", 2),
        (training, "SAMPLE_STEPS", 2),
    ]
