"""What the server answers. Every route lies behind ``Guard``; bodies are read in pieces and up to a limit."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from .. import __version__
from ..errors import RadiffuseError
from . import display, exports, requests, runs
from .guard import App, Guard
from .refusal import Refused, unknown
from .scans import DIFFERENCE, MAP, Item, Layer, counts, overlap
from .state import State

MAX_BODY = 16 * 1024
"""Longest JSON body, in bytes."""
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Types of the page's own files; others are not handed out."""
BINARY = "application/octet-stream"


def make_app(state: State, token: str, port: int) -> App:
    """The server's application.

    Args:
        state: What it holds.
        token: Secret part of the address.
        port: That it is bound to.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _scan_routes(app, state)
    _layer_routes(app, state)
    _work_routes(app, state)
    _page_routes(app)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RadiffuseError, functools.partial(_refused, inside=str(state.folder)))
    return Guard(app, token, port)


def _page_routes(app: FastAPI) -> None:
    files = page_files()

    @app.get("/{path:path}.{suffix}")
    def file(path: str, suffix: str) -> Response:
        return _file(files, f"{path}.{suffix}")

    @app.get("/")
    def page() -> Response:
        return _file(files, "index.html")


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


def _file(files: dict[str, bytes], path: str) -> Response:
    if path not in files:
        raise unknown("page")
    return Response(files[path], media_type=MEDIA[PurePosixPath(path).suffix])


def _scan_routes(app: FastAPI, state: State) -> None:
    scans = state.scans

    @app.get("/api/state")
    def everything() -> dict[str, Any]:
        return {
            "version": __version__,
            "scans": [_listed(item) for item in scans.all()],
            "runs": [entry.view() for entry in state.runs.all()],
            "upload_limit": state.intake.limit,
            "dicom_seg": exports.dicom_seg_available(),
        }

    @app.post("/api/scans")
    async def drop(request: Request, name: str = "file") -> list[dict[str, Any]]:
        path = await state.intake.receive(name, _chunks(request), _length(request))
        try:
            cases = await run_in_threadpool(state.intake.cases, path)
            items = scans.add(cases, dropped=path)
        except RadiffuseError as error:
            state.intake.remove(path)
            raise Refused(415, _about(error, path.name)) from None
        except Refused:
            state.intake.remove(path)
            raise
        return [_listed(item) for item in items]

    @app.delete("/api/scans/{id}")
    def remove(id: str) -> dict[str, bool]:
        item = scans.get(id)
        if scans.remove(item) and item.dropped is not None:
            state.intake.remove(item.dropped)
        return {"removed": True}

    @app.get("/api/scans/{id}")
    def scan(id: str) -> dict[str, Any]:
        item = scans.get(id)
        layers = [
            {"id": layer.id, "name": layer.name, "kind": layer.kind, "parts": layer.parts}
            for layer in item.layers.values()
        ]
        return _listed(item) | display.described(scans.scan(item)) | {"layers": layers}

    @app.get("/api/scans/{id}/image")
    def image(id: str, channel: int = 0) -> Response:
        scan = scans.scan(scans.get(id))
        if not 0 <= channel < len(scan.array):
            raise unknown("channel")
        return Response(display.image(scan, channel, display.stride(scan)), media_type=BINARY)


def _layer_routes(app: FastAPI, state: State) -> None:
    scans = state.scans

    @app.get("/api/scans/{id}/layers/{layer_id}")
    def layer(id: str, layer_id: str) -> dict[str, Any]:
        item = scans.get(id)
        return _described(state, item, item.layer(layer_id))

    @app.get("/api/scans/{id}/layers/{layer_id}/data")
    def data(id: str, layer_id: str) -> Response:
        item = scans.get(id)
        scan, array = scans.scan(item), scans.array(item, item.layer(layer_id))
        array = array[display.shown_steps(scan, len(array))]
        span = display.span_of(array) if array.dtype.kind == "f" else (0.0, 255.0)
        content = display.layer(array, scan, display.stride(scan), span)
        return Response(content, media_type=BINARY)

    @app.get("/api/scans/{id}/layers/{layer_id}/file")
    def file(id: str, layer_id: str, format: str) -> Response:
        item = scans.get(id)
        name, content = exports.export(state, item, item.layer(layer_id), format)
        return _download(name, content)


def _work_routes(app: FastAPI, state: State) -> None:
    @app.get("/api/runs/{id}")
    def run(id: str) -> dict[str, Any]:
        return runs.described(state.runs.get(id))

    @app.post("/api/segment")
    async def segment(request: Request) -> dict[str, Any]:
        work, title = requests.segmenting(state, await _json(request))
        return state.jobs.add(title, work).view()

    @app.post("/api/generate")
    async def generate(request: Request) -> dict[str, Any]:
        work, title = requests.generating(state, await _json(request))
        return state.jobs.add(title, work).view()

    @app.get("/api/made/{id}")
    def made(id: str, save: bool = False) -> Response:
        path = state.made(id)
        if path is None:
            raise unknown("image")
        if save:
            return _download(f"synthetic-{id}", path.read_bytes())
        return Response(path.read_bytes(), media_type="image/png")

    @app.get("/api/jobs/{id}")
    def job(id: str) -> dict[str, Any]:
        return state.jobs.get(id).view()

    @app.delete("/api/jobs/{id}")
    def cancel(id: str) -> dict[str, Any]:
        return state.jobs.cancel(id).view()


# ------------------------------------------------------------------------------------------------ internal


def _listed(item: Item) -> dict[str, Any]:
    return {
        "id": item.id,
        "name": item.name,
        "dropped": item.dropped is not None,
        "labelled": "truth" in item.layers,
        "dicom": exports.is_dicom_scan(item),
    }


def _described(state: State, item: Item, layer: Layer) -> dict[str, Any]:
    scan, array = state.scans.scan(item), state.scans.array(item, layer)
    shown = display.shown_steps(scan, len(array))
    result: dict[str, Any] = {
        "id": layer.id,
        "name": layer.name,
        "kind": layer.kind,
        "steps": len(shown),
        "timesteps": [layer.steps[i] if i < len(layer.steps) else None for i in shown],
        "formats": exports.formats(item, scan, layer),
    }
    if layer.kind == MAP:
        return result | {"span": display.span_of(array)}
    found = counts(array[shown])
    size, unit = display.unit(scan)
    names = [*layer.classes, *(f"class-{i}" for i in range(len(layer.classes), len(found[0])))]
    result |= {"classes": names, "counts": found, "voxel": size, "unit": unit}
    if layer.kind == DIFFERENCE and layer.parts is not None:
        mask, truth = (item.layer(part) for part in layer.parts)
        scores = overlap(state.scans.array(item, mask)[-1], state.scans.array(item, truth)[-1])
        known = mask.classes or truth.classes
        for row in scores:
            value = int(row["value"] or 0)
            row["name"] = known[value] if value < len(known) else f"class-{value}"  # type: ignore[assignment]
        result["scores"] = scores
    return result


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise Refused(400, "The file did not arrive whole; drop it again.") from None


def _length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() and text.isascii() else None


async def _json(request: Request) -> dict[str, Any]:
    """A small JSON object; only under the type that a plain form of another page cannot send."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "Only JSON is read here.")
    body = b""
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > MAX_BODY:
            raise Refused(413, "The request is too long.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Refused(400, "The request is no JSON object.")
    return content


def _download(name: str, content: bytes) -> Response:
    """A file to be saved, never shown by the browser itself."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, media_type=BINARY, headers={"content-disposition": disposition})


def _about(error: RadiffuseError, name: str) -> str:
    """An error about a dropped file, under the name it was dropped with and without the server's own paths."""
    problem, remedy = getattr(error, "problem", str(error)), getattr(error, "remedy", "")
    return f"{name} {problem}. {remedy}." if remedy else f"{name}: {problem}"


async def _refused(request: Request, error: Exception, inside: str = "") -> Response:
    status, message = 422, str(error)
    if isinstance(error, Refused):
        status, message = error.status, error.message
    elif inside and message.startswith(inside):  # the name it was dropped with says enough
        message = PurePosixPath(message.partition(": ")[0]).name + ": " + message.partition(": ")[2]
    headers = {"connection": "close"} if request.method == "POST" else None  # the rest is not read
    return JSONResponse({"error": message}, status, headers)
