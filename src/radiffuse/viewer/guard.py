"""Who may speak to the server: this user's browser, on this page. Everything else is refused before it is read.

Four checks, on every request: the ``Host`` header names this server, so that another site's name pointed here (DNS
rebinding) is of no use; the first part of the path is the token, compared in constant time; a browser that says where
the request comes from must name this page, unless it opens the page itself, which holds no data (``serve.way_to``
leads there from a file); and the method is one of four. No CORS header is ever sent.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content-Security-Policy: code and style from the package's files alone; no markup from strings (trusted types)."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",  # the address holds the token
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=()",
    "cache-control": "no-store",  # patients' images do not stay in the browser's cache
}
METHODS = ("GET", "HEAD", "POST", "DELETE")


class Guard:
    """The outermost layer of the server (ASGI).

    Args:
        app: What answers a request that may pass; it sees the path without the token.
        token: Secret part of the address.
        port: Port that the server is bound to.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self.app = app
        self.token = token.encode()
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a WebSocket is never accepted
        path, refusal = self._judge(scope)
        if refusal:
            await _refuse(send, *refusal)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_sealing()]
            await send(message)

        await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, sealed)

    def _judge(self, scope: Scope) -> tuple[str, tuple[int, str] | None]:
        """Path without the token, and why the request is refused."""
        headers = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in scope["headers"]]
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "", (421, "The address of this page is not the one it was opened under.")
        first, _, rest = str(scope["path"]).removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode("utf-8", "replace"), self.token):
            return "", (403, "The address lacks the token that radiffuse view printed.")
        if scope["method"] not in METHODS:
            return "", (405, "This method is not used here.")
        sent = dict(headers)
        origin = sent.get("origin", f"http://{hosts[0]}")
        if origin != f"http://{hosts[0]}":
            return "", (403, "The request comes from another page.")
        opened = (rest, scope["method"], sent.get("sec-fetch-dest")) == ("", "GET", "document")
        if sent.get("sec-fetch-site", "none") not in ("none", "same-origin") and not opened:
            return "", (403, "The request comes from another page.")
        return f"/{rest}", None


def _sealing() -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in HEADERS.items()]


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what else was sent is not read
        *_sealing(),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
