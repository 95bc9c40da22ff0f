"""In a browser: a page, a screen behind a websocket that answers keys, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from planner.errors import FileError, InputError
from planner.inputs.flags import Flags
from tests.processes import child
from tui.files import file_named
from tui.serve import ServeRequest, is_loopback, listen
from tui.session import flags_result

COMMAND = [sys.executable, "-m", "gptplan", "tui", "--serve"]


def test_a_page_a_screen_and_its_keys(tmp_path):
    aiohttp = pytest.importorskip("aiohttp")
    pytest.importorskip("textual_serve")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    at, address = f"http://127.0.0.1:{port}", []

    async def until(socket, wanted: str) -> str:
        seen = ""
        while wanted not in seen:
            message = await socket.receive(timeout=30)
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
            seen += message.data.decode() if isinstance(message.data, bytes) else message.data
        return seen

    async def visit() -> None:
        async with aiohttp.ClientSession() as client:
            assert (await client.get(at)).status == 403
            page = await (await client.get(address[0])).text()
            token = address[0].partition("?token=")[2]
            assert f"ws://127.0.0.1:{port}/ws/{token}" in page and len(token) > 40
            async with client.ws_connect(f"{at}/ws/{token}?width=100&height=30", headers={"Origin": at}) as socket:
                await until(socket, "tokens/s")
                await socket.send_str(json.dumps(["stdin", "\x1b[F" + "\x7f" * 4 + "350M"]))
                await until(socket, "--params 350M")
                await socket.send_str(json.dumps(["stdin", "\x11"]))
                while (message := await socket.receive(timeout=30)).type not in (
                    aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING,
                ):  # fmt: skip
                    assert message.type != aiohttp.WSMsgType.ERROR

    with child([*COMMAND, "--port", str(port)], cwd=tmp_path, stdout=-1, stderr=-1, text=True) as process:
        try:
            address.append(process.stderr.readline().split()[3])
            assert at in address[0]
            taken = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, check=False)
            assert taken.returncode == 2 and f"cannot listen on 127.0.0.1 port {port}" in taken.stderr
            asyncio.run(visit())
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stdout.read() == "" and "Traceback" not in process.stderr.read()


def test_the_address_is_printed_when_the_port_is_open():
    web = pytest.importorskip("aiohttp.web")
    pytest.importorskip("textual_serve")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    said = []

    def visit(line: str) -> None:
        said.append(line)
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        raise web.GracefulExit

    listen(["true"], ServeRequest("127.0.0.1", port, sessions=1, token=True), visit)
    assert len(said) == 1 and f"http://127.0.0.1:{port}/?token=" in said[0]


def test_addresses_that_others_reach():
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and not is_loopback("0.0.0.0")
    with pytest.raises(InputError, match="has no address"):
        is_loopback("no such name")


def test_files_stay_below_the_directory(tmp_path, monkeypatch, session):
    outside, inside = tmp_path / "run.toml", tmp_path / "here"
    outside.write_text("{}")
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    monkeypatch.chdir(inside)
    assert file_named(str(outside)) == outside  # in a terminal: all that the user may
    monkeypatch.setenv("TEXTUAL_DRIVER", "textual.drivers.web_driver:WebDriver")
    for name in (str(outside), "../run.toml", "link/run.toml", "~/x.toml", "pipe", "x" * 5000):
        with pytest.raises(FileError, match="from a browser"):
            file_named(name)
    assert str(file_named("new.toml")) == "new.toml" and str(file_named(str(inside / "a.toml"))).endswith("a.toml")
    with pytest.raises(FileError, match="from a browser"):
        flags_result(Flags(hf_config=str(outside), tokens="1B"), session)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--port", "80"], "belongs to --serve"),
        (["--serve", "--port", "x"], "is not a count"),
        (["--serve", "--port", "99999"], "is out of range"),
        (["--serve", "--sessions", "0"], "is not a count"),
        (["--serve", "--sessions", "1001"], "is out of range"),
        (["--sessions", "3"], "--sessions belongs to --serve"),
        (["--no-token"], "--no-token belongs to --serve"),
        (["--serve", "--host", "no such name"], "has no address"),
        (["none.toml", "--serve"], "does not exist"),
    ],
)
def test_what_cannot_be_served_is_one_message(words, message, monkeypatch):
    import typer

    from gptplan.commands.tui import tui

    app = typer.Typer()
    app.command()(tui)
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, words)
    assert message in str(done.exception)


def test_without_the_extra_it_is_named(monkeypatch):
    from gptplan.serving import ServeFlags, serve_tui
    from planner.errors import MissingExtraError

    monkeypatch.setattr("gptplan.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gptplan\[serve\]'"):
        serve_tui(None, ServeFlags(True))


def test_a_browser_has_no_tabs_that_start_processes(monkeypatch):
    from tui.panes import panes

    assert {"run", "compare"} <= {kind.id for kind in panes()}
    monkeypatch.setenv("TEXTUAL_DRIVER", "textual.drivers.web_driver:WebDriver")
    assert {kind.id for kind in panes()} == {"summary", "memory", "schedule", "explain", "config"}
