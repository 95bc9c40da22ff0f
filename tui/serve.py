"""The planner in a browser: textual-serve starts one process of it for each page that is open.

Any web page that the user visits could open a connection to this machine, so that a request is accepted only from a
page that came from here: its `Origin` is this server, and on a loopback address the name in `Host` is one of this
machine.
"""

from __future__ import annotations

import logging
import re
import shlex
import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from planner.errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
FONTS = re.compile(r'<link\b[^>]*"https://fonts\.googleapis\.com[^>]*>')


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's address. Raises InputError for a name without one."""
    return all(a.startswith("127.") or a == "::1" for a in _addresses(host))


def listen(words: Sequence[str], host: str, port: int, log: Callable[[str], None]) -> None:
    """Serve the command until Ctrl-C or SIGTERM. Raises InputError for an address that cannot be used."""
    from aiohttp import web  # 0.2 s, only here
    from rich.console import Console
    from textual_serve.server import Server

    _refuse_taken(host, port)
    local = is_loopback(host)

    class PlannerServer(Server):
        """A server that checks where a request comes from, and whose page loads nothing from elsewhere."""

        async def handle_index(self, request: web.Request) -> web.StreamResponse:
            _refuse_foreign_page(request, local)
            self.public_url = f"{request.scheme}://{request.host}"  # as the browser calls it: 0.0.0.0 is no address
            response = await super().handle_index(request)
            assert isinstance(response, web.Response)
            response.text = FONTS.sub("", response.text or "")
            return response

        async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
            _refuse_foreign_page(request, local, origin=True)
            found: web.WebSocketResponse = await super().handle_websocket(request)
            return found

        def initialize_logging(self) -> None:
            """No line for every request; what goes wrong is on stderr."""
            logging.basicConfig(level="WARNING")
            logging.getLogger("asyncio").setLevel("ERROR")  # at Ctrl-C planners end after the loop, which it warns of

        async def on_startup(self, app: web.Application) -> None:
            log(f"gptplan is at http://{f'[{host}]' if ':' in host else host}:{port} until Ctrl-C")

    server = PlannerServer(shlex.join(words), host=host, port=port, title="gptplan")
    server.console = Console(stderr=True)
    try:
        server.serve()
    except OSError as error:  # taken between the check and now
        raise _cannot_listen(host, port, error) from None


def _refuse_foreign_page(request: object, local: bool, origin: bool = False) -> None:
    from aiohttp import web

    assert isinstance(request, web.Request)
    if not is_own_page(request.host, request.headers.get("Origin", "") if origin else None, local):
        raise web.HTTPForbidden(text="this page does not come from gptplan")


def is_own_page(host: str, origin: str | None, local: bool) -> bool:
    """Whether a request with these headers comes from our own page. local: the server is on a loopback address.

    origin: None for the page itself, which is asked for by whoever types the address.
    """
    if local and urlsplit(f"//{host}").hostname not in LOOPBACK:
        return False  # a stranger's name that was pointed at this machine
    return origin is None or urlsplit(origin).netloc == host


def _addresses(host: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--host: {host[:60]!r} has no address",
            why=str(error),
            remedy="leave it out to listen on this machine only",
        ) from None


def _refuse_taken(host: str, port: int) -> None:
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(address)
            except OSError as error:
                raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: OSError) -> InputError:
    return InputError(
        f"--port: cannot listen on {host} port {port}", why=error.strerror or str(error), remedy="give another --port"
    )
