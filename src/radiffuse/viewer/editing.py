"""What the server answers where a mask is corrected: slices, labels, and what is saved."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from ..errors import RadiffuseError
from . import display
from .answers import BINARY, Held, OneItem, OneLayer, Printable, listed
from .corrections import most_bytes
from .refusal import Refused, unknown
from .requests import Renaming, body_of, chunks
from .scans import MASK, TRUTH
from .state import State

router = APIRouter(default_response_class=Printable)


@router.get("/api/scans/{id}/layers/{layer_id}/labels")
def layer_labels(state: Held, item: OneItem, layer: OneLayer) -> Response:
    """The labels of a mask on the scan's own grid, to begin a correction with."""
    if layer.kind not in (MASK, TRUTH):
        raise Refused(400, "Only a mask can be corrected.")
    content = display.packed(state.scans.array(item, layer)[-1])
    return Response(content, media_type=BINARY, headers={"content-encoding": "gzip"})


@router.get("/api/scans/{id}/slices/{axis}/{index}")
def one_slice(state: Held, item: OneItem, axis: int, index: int, channel: int = 0) -> Response:
    """One slice of a volume across an axis of its array."""
    scan = state.scans.scan(item)
    inside = scan.spatial_dims == 3 and 0 <= axis < 3 and 0 <= index < scan.spatial_shape[axis]
    if not (inside and 0 <= channel < len(scan.array)):
        raise unknown("slice")
    return Response(display.plane(scan, channel, axis, index), media_type=BINARY)


@router.post("/api/scans/{id}/correction")
async def correct(
    state: Held,
    item: OneItem,
    request: Request,
    classes: Annotated[list[str], Query()],
    before: int = 0,
    start: str = "",
) -> dict[str, Any]:
    """Save a corrected mask, sent as deflated labels; what was there stays."""
    layer = item.layer(start) if start else None
    scan = await run_in_threadpool(state.scans.scan, item)
    limit, body = most_bytes(scan), bytearray()
    async for chunk in chunks(request):
        body += chunk
        if len(body) > limit:
            raise Refused(413, "The mask is larger than the scan.")
    save = state.corrections.save
    await run_in_threadpool(save, state.scans, item, bytes(body), layer, classes, before)
    return listed(item) | {"corrections": corrections_of(state)}


@router.post("/api/corrections/classes")
def rename(state: Held, wanted: Annotated[Renaming, Depends(body_of(Renaming))]) -> dict[str, Any]:
    """Give a class another name, in the folder of corrections and in all that the page shows."""
    names = state.corrections.rename(state.scans, wanted.classes, wanted.value, wanted.name)
    return {"classes": names, "corrections": corrections_of(state)}


def corrections_of(state: State) -> dict[str, Any]:
    """Where corrections go, what stands in the way, and the command that learns from them."""
    found = state.corrections
    try:
        found.refuse_foreign()
        problem = ""
    except RadiffuseError as error:
        problem = str(error)
    return {
        "folder": str(found.folder),
        "problem": problem,
        "classes": state.known_classes(),
        "next": state.next_fit(),
    }
