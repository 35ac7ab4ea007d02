"""What the routes of the server share: what they depend on, and how they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from ..errors import printable
from . import exports
from .scans import Item, Layer
from .state import State

BINARY = "application/octet-stream"


class Printable(JSONResponse):
    """JSON whose texts cannot turn around what is read on the page."""

    def render(self, content: Any) -> bytes:
        """The bytes of the answer."""
        return super().render(_printable(content))


async def _held(request: Request) -> State:
    state: State = request.app.state.held
    return state


Held = Annotated[State, Depends(_held)]


async def _item(id: str, state: Held) -> Item:
    return state.scans.get(id)


OneItem = Annotated[Item, Depends(_item)]


async def _layer(layer_id: str, item: OneItem) -> Layer:
    return item.layer(layer_id)


OneLayer = Annotated[Layer, Depends(_layer)]


def listed(item: Item) -> dict[str, Any]:
    """A scan in the list of the page."""
    return {
        "id": item.id,
        "name": item.name,
        "dropped": item.dropped is not None,
        "labelled": "truth" in item.layers,
        "dicom": exports.is_dicom_scan(item),
        "place": item.place,
        "why": item.why,
        "corrected": item.corrected,
        "expected": item.expected,
    }


# ------------------------------------------------------------------------------------------------ internal


def _printable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_printable(k): _printable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(v) for v in value]
    return printable(value, "\n\t") if isinstance(value, str) else value
