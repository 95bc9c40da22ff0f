"""The server in this process, and a planner of a few lines behind it: who may come in, and what is bounded."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

pytest.importorskip("textual_serve")
from aiohttp import WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from gptplan.serving import _warnings
from tui.web.guard import Guard, new_token
from tui.web.process import PlannerProcess, bounded
from tui.web.server import FILES, LARGEST_MESSAGE, PlannerServer

TOKEN = "a-token"
# shows its size, then each packet that it gets, and ends at "bye" or when it is asked to
PLANNER = """
import os, sys
def show(data): sys.stdout.buffer.write(b"D" + len(data).to_bytes(4, "big") + data); sys.stdout.flush()
print("__GANGLION__", flush=True)
show(f"{os.environ['COLUMNS']}x{os.environ['ROWS']};".encode())
while kind := sys.stdin.buffer.read(1):
    data = sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big"))
    if data in (b"bye", b'{"type": "quit"}'):
        break
    show(kind + (data if len(data) < 200 else str(len(data)).encode()) + b";")
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("__GANGLION__", flush=True)
time.sleep(1000)
"""


def visit(steps, *, guard=None, most=2, program=PLANNER):
    """Serve, and let `steps(client, at, server)` connect."""

    async def whole():
        server = PlannerServer([sys.executable, "-S", "-c", program], guard or Guard(TOKEN, local=True), most)
        async with TestClient(TestServer(server.application())) as client:
            await steps(client, f"http://{client.host}:{client.port}", server)

    asyncio.run(whole())


async def shown(socket, wanted: str) -> str:
    """What the planner has shown until `wanted`."""
    seen = ""
    while wanted not in seen:
        message = await socket.receive(timeout=30)
        assert message.type in (WSMsgType.BINARY, WSMsgType.TEXT), (seen, message)
        seen += message.data.decode() if isinstance(message.data, bytes) else message.data
    return seen


async def refused(client, path: str, headers: dict[str, str]) -> int:
    """The status of a websocket that is not opened."""
    with pytest.raises(WSServerHandshakeError) as error:
        await client.ws_connect(path, headers=headers)
    return error.value.status


def test_every_answer_forbids_frames_and_other_servers():
    async def steps(client, at, server):
        for path in (f"/?token={TOKEN}", "/", "/static/page.js", "/none", "/ws/x", "/favicon.ico"):
            answer = await client.get(path)
            assert answer.headers["X-Frame-Options"] == "DENY", path
            policy = answer.headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
            assert "script-src 'self';" in policy
        page = await (await client.get(f"/?token={TOKEN}")).text()
        assert "<title>gptplan" in page and "icon.svg" in page and "http://" not in page and "https://" not in page

    visit(steps)


def test_only_the_page_s_own_files_are_served():
    async def steps(client, at, server):
        for name in FILES:
            assert (await client.get(f"/static/{name}")).status == 200
        for path in (
            "/static/",
            "/static/..%2fserver.py",
            "/static/server.py",
            "/download/x",
            "/static/%2e%2e/guard.py",
        ):
            assert (await client.get(path)).status == 404, path
        assert (await client.post("/", data=b"x")).status == 405

    visit(steps)


def test_without_the_token_nothing_is_started():
    async def steps(client, at, server):
        for token in ("", "?token=", "?token=wrong", "?token=a-tokem", "?token=%ff"):
            answer = await client.get(f"/{token}")
            assert answer.status == 403 and "printed" in await answer.text()
        assert await refused(client, "/ws/wrong", {"Origin": at}) == 403
        assert server.open == 0
        assert (await client.get(f"/?token={TOKEN}")).status == 200

    visit(steps)
    assert len(new_token()) > 40 and new_token() != new_token()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Host": "elsewhere.example", "Origin": "http://elsewhere.example"},  # DNS rebinding
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_sites_are_refused_also_with_the_token(headers):
    async def steps(client, at, server):
        if "Host" not in headers and "Origin" not in headers:
            assert (await client.get("/static/page.js", headers=headers)).status == 403
        else:
            assert (await client.get(f"/?token={TOKEN}", headers=headers)).status == 403
        assert await refused(client, f"/ws/{TOKEN}", {"Origin": at, **headers}) == 403
        assert server.open == 0

    visit(steps)


@pytest.mark.parametrize(
    "host, origin, token, local, accepted",
    [
        ("localhost:8000", None, None, True, True),
        ("[::1]:8000", "http://[::1]:8000", None, True, True),
        ("localhost:8000", "http://localhost:9000", None, True, False),
        ("evil.example:8000", "http://evil.example:8000", "t", True, False),
        ("evil.example:8000", "http://evil.example:8000", None, False, False),
        ("planner.lan:8000", "http://planner.lan:8000", "t", False, True),
        ("planner.lan:8000", "http://evil.example", "t", False, False),
        ("box:8000", "http://box:8000", None, False, True),
        ("192.168.0.7:8000", "http://192.168.0.7:8000", None, False, True),
        ("[::1", "http://[::1", None, True, False),
        ("", "", None, True, False),
    ],
)
def test_names_of_this_machine(host, origin, token, local, accepted):
    headers = {} if origin is None else {"Origin": origin}
    assert (Guard(token, local, ("box",)).refusal(host, headers) == "") is accepted


def test_a_typed_address_and_a_link_may_open_the_page_but_not_a_frame():
    guard = Guard("t", True)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert guard.refusal("localhost:1", link) == ""
    assert guard.refusal("localhost:1", {**link, "Sec-Fetch-Dest": "iframe"}) != ""
    assert guard.refusal("localhost:1", {"Sec-Fetch-Site": "none"}) == ""
    assert guard.refusal("localhost:1", {}, websocket=True) != ""


def test_planners_are_bounded_and_a_place_becomes_free():
    async def steps(client, at, server):
        one = await client.ws_connect(f"/ws/{TOKEN}?width=90&height=31", headers={"Origin": at})
        two = await client.ws_connect(f"/ws/{TOKEN}", headers={"Origin": at})
        assert await shown(one, ";") == "90x31;" and await shown(two, ";") == "80x24;"
        answer = await client.get(f"/?token={TOKEN}")
        assert answer.status == 503 and "2 planners are open" in await answer.text()
        assert await refused(client, f"/ws/{TOKEN}", {"Origin": at}) == 503
        await one.send_str(json.dumps(["stdin", "bye"]))
        while not (await one.receive(timeout=30)).type.name.startswith("CLOS"):
            pass
        await two.close()
        while server.open:
            await asyncio.sleep(0.01)
        assert (await client.get(f"/?token={TOKEN}")).status == 200

    visit(steps)


def test_sizes_and_messages_are_bounded():
    assert bounded(0, 10**9) == (1, 200) and bounded(120, 40) == (120, 40)
    assert bounded("9", 9) is bounded(True, 1) is bounded(1.5, 2) is bounded(None, 2) is None

    async def steps(client, at, server):
        async with client.ws_connect(f"/ws/{TOKEN}?width=99999&height=-5", headers={"Origin": at}) as socket:
            await shown(socket, "500x1;")
            await socket.send_str(json.dumps(["resize", {"width": 10**12, "height": 10**12}]))
            await shown(socket, '"width": 500, "height": 200')
            await socket.send_str(json.dumps(["stdin", "x" * 1_000_000]))  # a paste of 1 MB
            await shown(socket, "D1000000;")
            await socket.send_str(json.dumps(["stdin", "\ud800"]))
            await shown(socket, "D?;")
            await socket.send_str(json.dumps(["ping", "7"]))
            await shown(socket, '["pong", "7"]')
            await socket.send_str("x" * (LARGEST_MESSAGE + 1))
            assert (await socket.receive(timeout=30)).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)

    visit(steps)


@pytest.mark.parametrize(
    "data",
    ["", "x", "{}", "[]", "[1]", '["stdin"]', '["stdin", 1]', '["resize", {"width": "9", "height": 1}]', "[" * 9**5],
)
def test_a_message_of_no_known_form_ends_the_connection(data):
    async def steps(client, at, server):
        async with client.ws_connect(f"/ws/{TOKEN}", headers={"Origin": at}) as socket:
            await shown(socket, ";")
            await socket.send_str(data)
            message = await socket.receive(timeout=30)
            assert message.type == WSMsgType.CLOSE and message.data == 1008

    visit(steps)


def test_a_planner_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr("tui.web.process._TIDY_SECONDS", 0.1)

    async def whole():
        planner = PlannerProcess([sys.executable, "-S", "-c", STUBBORN], lambda data: asyncio.sleep(0))
        await planner.start(80, 24)
        assert await planner._process.stdout.readline() == b"__GANGLION__\n"
        await planner.stop()
        assert planner._process.returncode == -9

    asyncio.run(whole())


def test_what_is_risky_is_said():
    assert _warnings("127.0.0.1", True, False) == []
    assert "every user of this machine" in _warnings("127.0.0.1", True, True)[0]
    assert "no encryption" in _warnings("0.0.0.0", False, False)[0]
    assert "there is no token" in _warnings("0.0.0.0", False, True)[0]
