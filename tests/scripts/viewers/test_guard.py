"""Who reaches the page, by real sockets and a real websocket client; what a visitor may send."""

from __future__ import annotations

import base64
import math
import os
import socket
import threading

import msgspec
import pytest
import viser
from motoric.scripts.viewers import guard
from motoric.scripts.viewers.guard import Door, is_loopback, is_welcome
from motoric.scripts.viewers.web import Page, number
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from .conftest import wait_until

VERSION = [f"viser-v{viser.__version__}"]


@pytest.fixture
def page(port):
    page = Page(None, "test", "127.0.0.1", port)
    yield page
    page.close()


@pytest.fixture
def distant(port):
    """As on a network: it listens on all addresses, and wants a token."""
    page = Page(None, "test", "0.0.0.0", port)
    yield page
    page.close()


def ask(port: int, headers: dict[str, str], path: str = "/") -> tuple[int, str]:
    """Status and head of the answer to one request, byte for byte as given."""
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        link.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (part := link.recv(65536)):
            answer += part
    head = answer.partition(b"\r\n\r\n")[0].decode()
    return int(head.split()[1]), head


def upgrade(host: str, origin: str | None) -> dict[str, str]:
    """Headers of a websocket's beginning, as a browser sends them."""
    return {
        "Host": host, "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": VERSION[0],
    } | ({} if origin is None else {"Origin": origin})  # fmt: skip


def visit(port: int, origin: str | None = None, **headers: str):
    return connect(
        f"ws://127.0.0.1:{port}", origin=origin, subprotocols=VERSION, additional_headers=headers
    )


def read_on(link) -> None:
    for _ in range(1000):
        link.recv(timeout=10)


def test_its_own_page_may_connect(page, port):
    with visit(port, f"http://127.0.0.1:{port}") as link:
        assert len(link.recv(timeout=10)) > 16, "the state of the page"
    assert ask(port, {"Host": f"localhost:{port}"})[0] == 200
    assert ask(port, {"Host": "localhost:9000"})[0] == 200, "through ssh -L 9000:localhost:..."
    assert ask(port, upgrade("localhost:9000", "http://localhost:9000"))[0] == 101


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:1", "http://localhost:{}",
        "null", "file://", "http://127.0.0.1:{}.evil.example", "http://127.0.0.1:{}@evil", None,
    ],
)  # fmt: skip
def test_another_page_may_not(page, port, origin):
    with pytest.raises(InvalidStatus) as refused, visit(port, origin and origin.format(port)):
        pass
    assert refused.value.response.status_code == 403


def test_a_foreign_name_bound_to_this_machine_may_not(page, port):
    """DNS rebinding: the page's own origin, under a name that is not ours."""
    for host in (f"evil.example:{port}", "evil.example", f"localhost.evil.example:{port}",
                 f"192.0.2.1:{port}", "[", ""):  # fmt: skip
        assert ask(port, {"Host": host})[0] == 403, host
        assert ask(port, upgrade(host, f"http://{host}"))[0] == 403, host
    assert ask(port, {})[0] == 403, "no host at all"


def test_no_other_page_may_frame_it(page, port):
    assert "frame-ancestors 'none'" in ask(port, {"Host": f"127.0.0.1:{port}"})[1]


def test_elsewhere_a_token_is_needed(distant, port):
    host = f"robot.lan:{port}"
    own = f"http://{host}"
    assert ask(port, {"Host": host})[0] == 403
    assert ask(port, {"Host": host}, "/?token=guess")[0] == 403
    assert ask(port, upgrade(host, own))[0] == 403
    assert ask(port, upgrade(host, own), f"/?token={distant.door.token}")[0] == 403, "no cookie"

    address = distant.door.address
    status, head = ask(port, {"Host": host}, address.partition(str(port))[2])
    assert status == 303
    cookie = next(line for line in head.splitlines() if line.startswith("Set-Cookie: "))
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    held = {"Cookie": "other=1; " + cookie.removeprefix("Set-Cookie: ").partition(";")[0]}
    assert ask(port, {"Host": host} | held)[0] == 200
    assert ask(port, upgrade(host, own) | held)[0] == 101
    assert ask(port, upgrade(host, "https://evil.example") | held)[0] == 403
    assert ask(port, {"Host": host, "Cookie": held["Cookie"][:-1]})[0] == 403


def test_the_token_opens_it_in_a_browser(distant, browser, port):
    tab = browser.new_page()
    distant.gui.add_button("A button")
    tab.goto(distant.door.address.replace("0.0.0.0", "127.0.0.1"))
    tab.get_by_text("A button").wait_for(timeout=60_000)
    assert "token" not in tab.url
    other = browser.new_page()  # a page of another origin, in the same browser
    other.goto("about:blank")
    closed = other.evaluate(
        f"""() => new Promise(done => {{
            const link = new WebSocket("ws://127.0.0.1:{port}", "{VERSION[0]}");
            link.onopen = () => done("open"); link.onerror = () => done("refused");
        }})"""
    )
    assert closed == "refused"


def test_every_door_has_its_token():
    first, second = Door.of("0.0.0.0", 1), Door.of("0.0.0.0", 1)
    assert first.token != second.token
    assert len(first.token) > 20
    assert Door.of("127.0.0.1", 1).token is None
    assert Door.of("::1", 1).address == "http://[::1]:1"
    assert [is_loopback(h) for h in ("localhost", "127.8.8.8", "::1")] == [True] * 3
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "192.168.1.2", "localhost.example")))


def pack(**message) -> bytes:
    return msgspec.msgpack.encode(message)


CAMERA = {"wxyz": [1.0, 0, 0, 0], "position": [1, 2.5, 3], "fov": 0.7, "image_height": 480}


@pytest.mark.parametrize(
    "data",
    [
        pack(type="ViewerCameraMessage", **CAMERA),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": True}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": 0.5}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": "pick up the cup"}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": [0.1, 255]}),
    ],
)
def test_what_the_page_sends_is_welcome(data):
    assert is_welcome(data)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x91" * 5000, "a text", pack(), msgspec.msgpack.encode([1, 2]),
        pack(type="ShareUrlRequest"), pack(type="FileTransferStartUpload", uuid="a"),
        pack(type="ViewerCameraMessage", **(CAMERA | {"position": [1, math.nan, 3]})),
        pack(type="ViewerCameraMessage", **(CAMERA | {"position": "here"})),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": math.inf}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": [math.nan]}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": {"a": 1}}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": [0] * 99}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"update_cb": []}),
        pack(type="GuiUpdateMessage", uuid="a", updates={"value": 1, "props": 1}),
        pack(type="GuiUpdateMessage", uuid=3, updates={"value": 1}),
        pack(type="GuiUpdateMessage", updates={"value": 1}), pack(type=["GuiUpdateMessage"]),
    ],
)  # fmt: skip
def test_what_it_never_sends_is_not(data):
    assert not is_welcome(data)


def test_the_page_goes_on_whatever_is_sent(page, port):
    """Rubbish, messages for other ends, values out of bounds: it serves, and its controls hold."""
    slider = page.gui.add_slider("Speed", 0.1, 4.0, 0.1, 1.0)
    clicked = threading.Event()
    button = page.gui.add_button("Click")
    button.on_click(lambda _: clicked.set())
    uuid, shared = slider._impl.uuid, []
    page.server.request_share_url = lambda verbose=True: shared.append(True)
    own = f"http://127.0.0.1:{port}"
    with visit(port, own) as link:
        for data in (b"\xc1", b"\x91" * 5000, pack(type="ShareUrlRequest")):
            link.send(data)
        for to, updates in ((uuid, {"update_cb": 1}), (uuid, {"props": None}),
                            (uuid, {"value": [1]}), ("nobody", {"value": 1})):  # fmt: skip
            link.send(pack(type="GuiUpdateMessage", uuid=to, updates=updates))
        for sent, meant in ((1e9, 4.0), (-1e9, 0.1), ("nan", 0.1), ("-inf", 0.1), (2.5, 2.5)):
            link.send(pack(type="GuiUpdateMessage", uuid=uuid, updates={"value": sent}))
            assert wait_until(lambda: number(slider) == meant, 5), (sent, number(slider))  # noqa: B023
        link.send("a text message")
        # viser knows a visitor by its first camera
        camera = CAMERA | {
            "near": 0.1, "far": 9.0, "image_width": 640, "look_at": [0, 0, 0],
            "up_direction": [0, 0, 1],
        }  # fmt: skip
        link.send(pack(type="ViewerCameraMessage", **camera))
        link.send(pack(type="GuiUpdateMessage", uuid=button._impl.uuid, updates={"value": True}))
        assert clicked.wait(10)
    with visit(port, own) as link:
        link.send(b"\0" * (guard.MOST_BYTES + 1))
        with pytest.raises(ConnectionClosed, match="1009"):  # too big: that one is closed
            read_on(link)
    assert ask(port, {"Host": f"127.0.0.1:{port}"})[0] == 200
    with visit(port, own) as link:
        link.recv(timeout=10)
    assert not shared


def test_a_viser_that_serves_otherwise_is_not_used(monkeypatch, port):
    stopped = []

    class Other:
        def __init__(self, **settings): ...
        def stop(self):
            stopped.append(True)

    monkeypatch.setattr(guard.viser, "ViserServer", Other)
    with pytest.raises(RuntimeError, match="without our checks"):
        guard.open_server(Door.of("127.0.0.1", port), "t")
    assert stopped
