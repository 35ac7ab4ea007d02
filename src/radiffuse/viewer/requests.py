"""What the page asks for in JSON: every field is checked, nothing unknown is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from .jobs import Job
from .refusal import Refused
from .state import State

MAX_SAMPLES, MAX_IMAGES, MAX_STEPS, MAX_SEED = 64, 32, 1000, 2**31 - 1


def segmenting(state: State, body: Mapping[str, Any]) -> tuple[Callable[[Job], Any], str]:
    """The work of ``POST /api/segment``, and its title.

    Raises:
        Refused: A field is wrong (400), or names what is not there (404).
    """
    _known(body, "scan", "run", "samples", "steps", "sampler", "keep_steps", "uncertainty", "seed")
    item = state.scans.get(_text(body, "scan"))
    entry = state.runs.get(_text(body, "run"))
    if entry.use != "segment":
        raise Refused(400, "This run does not segment.")
    values = {
        "samples": _whole(body, "samples", 1, 1, MAX_SAMPLES),
        "steps": _whole(body, "steps", None, 1, MAX_STEPS),
        "sampler": _choice(body, "sampler", ("ddpm", "ddim")),
        "keep_steps": _flag(body, "keep_steps", True),
        "uncertainty": _flag(body, "uncertainty", False),
        "seed": _whole(body, "seed", 0, 0, MAX_SEED),
    }

    def work(job: Job) -> dict[str, Any]:
        from .segmenting import Wanted, segment

        return {"scan": item.id, "layers": segment(state, item, entry, Wanted(**values), job)}

    return work, f"{entry.name} on {item.name}"


def generating(state: State, body: Mapping[str, Any]) -> tuple[Callable[[Job], Any], str]:
    """The work of ``POST /api/generate``, and its title.

    Raises:
        Refused: As ``segmenting``.
    """
    _known(body, "run", "kind", "films", "count", "steps", "guidance", "strength", "seed")
    entry = state.runs.get(_text(body, "run"))
    if entry.use != "generate":
        raise Refused(400, "This run does not draw films.")
    kind = _choice(body, "kind", ("variation", "from-image", "interpolate")) or "variation"
    films = body.get("films")
    needed = 2 if kind == "interpolate" else 1
    if not isinstance(films, list) or len(films) != needed:
        raise Refused(400, f"films must name {needed}.")
    items = [state.scans.get(_text({"film": film}, "film")) for film in films]
    values: dict[str, Any] = {
        "kind": kind,
        "count": _whole(body, "count", 8, 1, MAX_IMAGES),
        "steps": _whole(body, "steps", 50, 1, MAX_STEPS),
        "guidance": _real(body, "guidance", 1.5, 0, 20),
        "strength": _real(body, "strength", 0.5, 0.01, 1),
        "seed": _whole(body, "seed", 0, 0, MAX_SEED),
    }

    def work(job: Job) -> dict[str, Any]:
        from .generating import Wanted, generate

        return {"images": generate(state, items, entry, Wanted(**values), job)}

    return work, f"{entry.name}: {kind} of {' and '.join(item.name for item in items)}"


def _known(body: Mapping[str, Any], *names: str) -> None:
    if strange := sorted(set(body) - set(names)):
        raise Refused(400, f"{strange[0]!r} is not known here."[:120])


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(400, f"{name} is missing.")
    return value


def _whole(body: Mapping[str, Any], name: str, default: int | None, low: int, high: int) -> Any:
    value = body.get(name, default)
    if value is None and default is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Refused(400, f"{name} must be a whole number from {low} to {high}.")
    return value


def _real(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise Refused(400, f"{name} must be a number from {low:g} to {high:g}.")
    return float(value)


def _flag(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise Refused(400, f"{name} must be true or false.")
    return value


def _choice(body: Mapping[str, Any], name: str, legal: tuple[str, ...]) -> str | None:
    value = body.get(name)
    if value is not None and value not in legal:
        raise Refused(400, f"{name} must be one of {', '.join(legal)}.")
    return cast("str | None", value)
