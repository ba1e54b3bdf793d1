"""Who may reach the page in the browser, and what a visitor may send.

viser serves its page and a websocket on one port and checks nothing: any other page that is open
in the same browser could steer the simulation, and a message may set any attribute of a control.
It has no setting for that, so it is handed websockets' own `serve` with three of its documented
arguments: `process_request` (who), `create_connection` and `max_size` (what).
"""

from __future__ import annotations

import contextlib
import hmac
import http
import io
import ipaddress
import logging
import math
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import viser
import websockets.asyncio.server as websockets
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

MOST_BYTES = 2**16  # of a visitor's message
MOST_VISITORS = 32  # at a time
_swapped = threading.Lock()


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Door:
    """Lets in what was opened by the address printed, and nothing that another page began.

    token: None on a loopback address; elsewhere whoever comes must have been told it
    """

    host: str
    port: int
    token: str | None = field(default=None)

    @classmethod
    def of(cls, host: str, port: int) -> Door:
        return cls(host, port, None if is_loopback(host) else secrets.token_urlsafe(16))

    @property
    def address(self) -> str:
        """What to open in a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}" + (f"/?token={self.token}" if self.token else "")

    def answer(self, request: Request) -> Response | None:
        """A refusal, or a redirection that leaves the token with the browser; None: come in."""
        headers = request.headers
        host = _only(headers, "Host")
        name = _hostname(host)
        if name is None:
            return _refuse("a request must name its host")
        if self.token is None and not is_loopback(name):  # a foreign name that was bound to us
            return _refuse(f"{name} is not this machine, open {self.address}")
        if "Upgrade" in headers:
            origin = _only(headers, "Origin") or ""
            if origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
                return _refuse(f"a page of {origin or 'no origin'} may not steer this one")
        if self.token is None:
            return None
        given = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if "Upgrade" not in headers and self._is_token(given):
            cookie = f"{self._cookie}={self.token}; HttpOnly; SameSite=Lax; Path=/"
            found = Headers({"Location": "/", "Set-Cookie": cookie, "Content-Length": "0"})
            return Response(http.HTTPStatus.SEE_OTHER, "See Other", found, b"")
        cookies = ";".join(headers.get_all("Cookie")).split(";")
        held = (c.strip().partition("=") for c in cookies)
        if any(name == self._cookie and self._is_token(value) for name, _, value in held):
            return None
        return _refuse("open the address that was printed: it holds a token")

    @property
    def _cookie(self) -> str:
        return f"motoric_{self.port}"  # browsers keep one jar for all ports of a host

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


def _only(headers: Headers, name: str) -> str | None:
    """The one value of a header; None where it is missing or there twice."""
    values = headers.get_all(name)
    return values[0] if len(values) == 1 else None


def _hostname(host: str | None) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return None


def _refuse(text: str) -> Response:
    body = f"{text}\n".encode()
    headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
    return Response(http.HTTPStatus.FORBIDDEN, "Forbidden", Headers(headers), body)


# -- what they may send -----------------------------------------------------------------------


def is_welcome(data: Any) -> bool:
    """Whether a message moves the visitor's camera or gives a control a value; no other is taken:
    no uploads, no tunnel to a public address, no attribute but the value."""
    try:
        message = msgspec.msgpack.decode(data)
        kind = message.pop("type")
        if kind == "ViewerCameraMessage":
            return all(_is_plain(v) and not isinstance(v, str) for v in message.values())
        updates = message["updates"]
        return (
            kind == "GuiUpdateMessage"
            and isinstance(message["uuid"], str)
            and list(updates) == ["value"]
            and _is_plain(updates["value"])
        )
    except Exception:  # whatever a stranger's bytes make a parser do
        return False


def _is_plain(value: Any) -> bool:
    """A text, a finite number, or a few of those."""
    if isinstance(value, list):
        return len(value) <= 16 and all(_is_plain(v) and not isinstance(v, list) for v in value)
    is_number = isinstance(value, bool | int | float)
    return math.isfinite(value) if is_number else isinstance(value, str)


class Visitor(ServerConnection):
    """A connection on which only welcome messages arrive."""

    async def recv(self, *arguments: Any, **settings: Any) -> Any:
        while True:
            data = await super().recv(*arguments, **settings)
            if is_welcome(data):
                return data


# -- the server -------------------------------------------------------------------------------


def open_server(door: Door, title: str) -> viser.ViserServer:
    """viser behind a door; it may have moved to another port, see its `get_port`."""
    for name in ("websockets.server", "websockets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    served: list[Any] = []
    original = websockets.serve

    def serve(handler: Any, host: Any, port: Any, *, process_request: Any, **settings: Any) -> Any:
        def check(connection: ServerConnection, request: Request) -> Any:
            if len(connection.server.handlers) > MOST_VISITORS:
                return _refuse("too many visitors")
            response = door.answer(request) or process_request(connection, request)
            if response is not None:  # no other page may put this one into a frame
                response.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
            return response

        settings |= {"max_size": MOST_BYTES, "create_connection": Visitor}
        made = original(handler, host, port, process_request=check, **settings)
        served.append(made)
        return made

    with _swapped, contextlib.redirect_stdout(io.StringIO()):  # viser greets
        websockets.serve = serve
        try:
            server = viser.ViserServer(host=door.host, port=door.port, label=title, verbose=False)
        finally:
            websockets.serve = original
        if not served:
            server.stop()
            raise RuntimeError("this version of viser would serve its page without our checks")
    return server
