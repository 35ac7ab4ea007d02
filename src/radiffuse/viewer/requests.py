"""What the page asks for in JSON: read up to a limit, every field checked, nothing unknown taken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from .refusal import Refused

MAX_BODY = 16 * 1024
"""Longest JSON body, in bytes."""
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Steps = Annotated[int, Field(ge=1, le=1000)]
Name = Annotated[str, Field(min_length=1)]


class Asked(BaseModel):
    """A JSON object with these fields alone, each of exactly its type."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Segmentation(Asked):
    """How to segment.

    Attributes:
        scan: Number of the scan.
        run: Number of the run.
        samples: Masks drawn, for a run of mask diffusion.
        steps: Inference steps of mask diffusion; None: as the run was trained to be used.
        sampler: None: as the run was trained to be used.
        keep_steps: Keep what every step predicts, which takes a sampling of its own where several masks are drawn.
        uncertainty: Make the maps of ``radiffuse predict --uncertainty``.
        seed: Of the noise.
    """

    scan: Name
    run: str = ""
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    steps: Steps | None = None
    sampler: Literal["ddpm", "ddim"] | None = None
    keep_steps: bool = True
    uncertainty: bool = False
    seed: Seed = 0


class Generation(Asked):
    """What to draw; the words are those of ``config.Generate``.

    Attributes:
        run: Number of the run.
        films: Numbers of the films: two for ``interpolate``, else one.
        kind: ``interpolate`` goes from one film's embedding to the other's in even steps, with one noise.
        count: Images.
        steps: Inference steps.
        guidance: Classifier-free guidance.
        strength: Of ``from-image``.
        seed: Of the noise.
    """

    run: Name
    films: list[Name]
    kind: Literal["variation", "from-image", "interpolate"] = "variation"
    count: Annotated[int, Field(ge=1, le=32)] = 8
    steps: Steps = 50
    guidance: Annotated[float, Field(ge=0, le=20)] = 1.5
    strength: Annotated[float, Field(ge=0.01, le=1)] = 0.5
    seed: Seed = 0


class Renaming(Asked):
    """A class of the masks that are corrected, and its new name.

    Attributes:
        classes: Names by label value, background first, as the page has them.
        value: Of the class.
        name: New.
    """

    classes: list[str]
    value: int
    name: str


Kind = TypeVar("Kind", bound=Asked)


def body_of(kind: type[Kind]) -> Callable[[Request], Awaitable[Kind]]:
    """A dependency that reads a request's body.

    It refuses what is no small JSON object of this kind, sent under the type that a plain form of another page cannot
    send.
    """

    async def read(request: Request) -> Kind:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused(415, "Only JSON is read here.")
        body = b""
        async for chunk in chunks(request):
            body += chunk
            if len(body) > MAX_BODY:
                raise Refused(413, "The request is too long.")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise Refused(400, "The request is no JSON object.")
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise Refused(400, f"{place}: {first['msg']}."[:200]) from None

    return read


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes in.

    Raises:
        Refused: The browser went away (400).
    """
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise Refused(400, "The file did not arrive whole; drop it again.") from None
