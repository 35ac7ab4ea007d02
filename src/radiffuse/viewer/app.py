"""What the server answers. Every route lies behind ``Guard``; bodies are read in pieces and up to a limit."""

from __future__ import annotations

import functools
from dataclasses import replace
from importlib import resources
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from .. import __version__
from ..errors import RadiffuseError
from . import display, editing, exports, runs
from .answers import BINARY, Held, OneItem, OneLayer, Printable, listed
from .editing import corrections_of
from .guard import App, Guard
from .jobs import Job
from .refusal import Refused, known, unknown
from .requests import Generation, Segmentation, body_of, chunks
from .scans import DIFFERENCE, MAP, Layer, counts, overlap
from .state import State

MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Types of the page's own files; others are not handed out."""


router = APIRouter(default_response_class=Printable)


def make_app(state: State, token: str, port: int) -> App:
    """The server's application, with the secret part of its address and the port that it is bound to."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.held = state
    app.include_router(editing.router)
    app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RadiffuseError, _refused)
    return Guard(app, token, port)


# ------------------------------------------------------------------------------------------------ scans


@router.get("/api/state")
def everything(state: Held) -> dict[str, Any]:
    """What the page shows at first."""
    return {
        "version": __version__,
        "scans": [listed(item) for item in state.scans.all()],
        "runs": [entry.view() for entry in state.runs.all()],
        "upload_limit": state.intake.limit,
        "corrections": corrections_of(state),
        "dicom_seg": exports.dicom_seg_available(),
    }


@router.post("/api/scans")
async def drop(state: Held, request: Request, name: str = "file") -> list[dict[str, Any]]:
    """Take a dropped file."""
    text = request.headers.get("content-length", "")
    announced = int(text) if text.isdecimal() and text.isascii() else None
    path = await state.intake.receive(name, chunks(request), announced)
    try:
        cases = await run_in_threadpool(state.intake.cases, path)
        items = state.scans.add(cases, dropped=path)
        state.take(items)
    except RadiffuseError as error:
        state.intake.remove(path)
        raise Refused(415, _about(error, path.name)) from None
    except Refused:
        state.intake.remove(path)
        raise
    return [listed(item) for item in items]


@router.delete("/api/scans/{id}")
def remove(state: Held, item: OneItem) -> dict[str, bool]:
    """Take a scan off the list, and its file off the disk where it was dropped."""
    if state.scans.remove(item) and item.dropped is not None:
        state.intake.remove(item.dropped)
    return {"removed": True}


@router.get("/api/scans/{id}")
def describe_scan(state: Held, item: OneItem) -> dict[str, Any]:
    """A scan and its layers."""
    layers = [
        {
            "id": layer.id,
            "name": layer.name,
            "kind": layer.kind,
            "parts": layer.parts,
            "classes": _as_named(state, layer).classes,
        }
        for layer in list(item.layers.values())  # a job may add some meanwhile
    ]
    return listed(item) | display.described(state.scans.scan(item)) | {"layers": layers}


@router.get("/api/scans/{id}/image")
def image(state: Held, item: OneItem, channel: int = 0) -> Response:
    """The pixels of a scan."""
    scan = state.scans.scan(item)
    if not 0 <= channel < len(scan.array):
        raise unknown("channel")
    return Response(display.image(scan, channel, display.stride(scan)), media_type=BINARY)


# ------------------------------------------------------------------------------------------------ layers


@router.get("/api/scans/{id}/layers/{layer_id}")
def describe_layer(state: Held, item: OneItem, layer: OneLayer) -> dict[str, Any]:
    """Steps, classes, sizes and scores of a layer."""
    scan, array = state.scans.scan(item), state.scans.array(item, layer)
    layer = _as_named(state, layer)
    shown = display.shown_steps(scan, len(array))
    result: dict[str, Any] = {
        "id": layer.id,
        "name": layer.name,
        "kind": layer.kind,
        "steps": len(shown),
        "timesteps": [layer.steps[i] if i < len(layer.steps) else None for i in shown],
        "formats": exports.formats(item, scan, layer),
        "note": layer.note,
    }
    if layer.kind == MAP:
        return result | {"span": display.span_of(array)}
    found = counts(array[shown])
    size, unit = display.unit(scan)
    names = [layer.class_name(value) for value in range(max(len(layer.classes), len(found[0])))]
    result |= {"classes": names, "counts": found, "voxel": size, "unit": unit}
    if layer.kind == DIFFERENCE and layer.parts is not None:
        mask, truth = (_as_named(state, item.layer(part)) for part in layer.parts)
        named = mask if mask.classes else truth
        scores = overlap(state.scans.array(item, mask)[-1], state.scans.array(item, truth)[-1])
        result["scores"] = [
            row | {"name": named.class_name(int(row["value"] or 0))} for row in scores
        ]
    return result


@router.get("/api/scans/{id}/layers/{layer_id}/data")
def layer_pixels(state: Held, item: OneItem, layer: OneLayer) -> Response:
    """The values of a layer."""
    scan, array = state.scans.scan(item), state.scans.array(item, layer)
    array = array[display.shown_steps(scan, len(array))]
    span = display.span_of(array) if array.dtype.kind == "f" else (0.0, 255.0)
    return Response(display.layer(array, scan, display.stride(scan), span), media_type=BINARY)


@router.get("/api/scans/{id}/layers/{layer_id}/file")
def layer_file(state: Held, item: OneItem, layer: OneLayer, format: str) -> Response:
    """A layer as a file to download."""
    return _download(*exports.export(state, item, _as_named(state, layer), format))


def _as_named(state: State, layer: Layer) -> Layer:
    """A layer with its classes as they are called on the page; those of a difference are words of its own."""
    if layer.kind == DIFFERENCE:
        return layer
    return replace(layer, classes=state.corrections.named(layer.classes))


# ------------------------------------------------------------------------------------------------ runs and jobs


@router.get("/api/runs/{id}")
def describe_run(state: Held, id: str) -> dict[str, Any]:
    """Curves, tables and settings of a run."""
    return runs.described(state.runs.get(id))


@router.post("/api/segment")
async def segment(
    state: Held, asked: Annotated[Segmentation, Depends(body_of(Segmentation))]
) -> dict[str, Any]:
    """Queue the segmentation of a scan."""
    item, entry = state.scans.get(asked.scan), state.runs.get(asked.run)
    if entry.use != "segment":
        raise Refused(400, "This run does not segment.")

    def work(job: Job) -> dict[str, Any]:
        from .segmenting import segment

        return {"scan": item.id, "layers": segment(state, item, entry, asked, job)}

    return state.jobs.add(f"{entry.name} on {item.name}", work).view()


@router.post("/api/generate")
async def generate(
    state: Held, asked: Annotated[Generation, Depends(body_of(Generation))]
) -> dict[str, Any]:
    """Queue the drawing of films."""
    entry = state.runs.get(asked.run)
    if entry.use != "generate":
        raise Refused(400, "This run does not draw films.")
    needed = 2 if asked.kind == "interpolate" else 1
    if len(asked.films) != needed:
        raise Refused(400, f"films must name {needed}.")
    items = [state.scans.get(film) for film in asked.films]

    def work(job: Job) -> dict[str, Any]:
        from .generating import generate

        return {"images": generate(state, items, entry, asked, job)}

    title = f"{entry.name}: {asked.kind} of {' and '.join(item.name for item in items)}"
    return state.jobs.add(title, work).view()


@router.get("/api/made/{id}")
def made(state: Held, id: str, save: bool = False) -> Response:
    """An image that was drawn here."""
    path = state.made(id)
    if path is None:
        raise unknown("image")
    if save:
        return _download(f"synthetic-{id}", path.read_bytes())
    return Response(path.read_bytes(), media_type="image/png")


@router.get("/api/jobs/{id}")
def job(state: Held, id: str) -> dict[str, Any]:
    """How far a job is."""
    return state.jobs.get(id).view()


@router.delete("/api/jobs/{id}")
def cancel(state: Held, id: str) -> dict[str, Any]:
    """Stop a job."""
    return state.jobs.cancel(id).view()


# ------------------------------------------------------------------------------------------------ the page itself


@functools.cache
def page_files() -> dict[str, bytes]:
    """The page's own files by their path, from inside the package."""
    found: dict[str, bytes] = {}

    def gather(folder: Any, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                gather(entry, f"{prefix}{entry.name}/")
            elif PurePosixPath(entry.name).suffix in MEDIA:
                found[f"{prefix}{entry.name}"] = entry.read_bytes()

    gather(resources.files(__package__).joinpath("static"), "")
    return found


@router.get("/")
def page() -> Response:
    """The page."""
    return page_file("index.html")


@router.get("/{path:path}")
def page_file(path: str) -> Response:
    """A file of the page."""
    content = known(page_files(), path, "page")
    return Response(content, media_type=MEDIA[PurePosixPath(path).suffix])


# ------------------------------------------------------------------------------------------------ answers


def _download(name: str, content: bytes) -> Response:
    """A file to be saved, never shown by the browser itself."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, media_type=BINARY, headers={"content-disposition": disposition})


def _about(error: RadiffuseError, name: str) -> str:
    """An error about a dropped file, under the name it was dropped with and without the server's own paths."""
    problem, remedy = getattr(error, "problem", str(error)), getattr(error, "remedy", "")
    return f"{name} {problem}. {remedy}." if remedy else f"{name}: {problem}"


async def _refused(request: Request, error: Exception) -> Response:
    status, message = 422, str(error)
    if isinstance(error, Refused):
        status, message = error.status, error.message
    elif message.startswith(str(request.app.state.held.folder)):
        place, _, problem = message.partition(": ")  # the name it was dropped with says enough
        message = f"{PurePosixPath(place).name}: {problem}"
    headers = {"connection": "close"} if request.method == "POST" else None  # the rest is not read
    return Printable({"error": message}, status, headers)
