"""The planner in a browser: one process of it for each page that is open, until Ctrl-C.

Any web page that the user visits could open a connection to this machine, and so could its other users: `tui.web.guard`
says who may come in.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.errors import InputError
from tui.web.guard import Guard, machine_names, new_token


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """Where to listen, how many planners at once, whether the address has a token."""

    host: str
    port: int
    sessions: int
    token: bool


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host's address. Raises InputError for a name without one."""
    return all(a.startswith("127.") or a == "::1" for a in _addresses(host))


def listen(words: Sequence[str], request: ServeRequest, log: Callable[[str], None]) -> None:
    """Serve the command until Ctrl-C or SIGTERM. Raises InputError for an address that cannot be used."""
    from aiohttp import web  # 0.2 s, only here

    from tui.web.server import PlannerServer

    host, port = request.host, request.port
    _refuse_taken(host, port)
    # no line for every request; at Ctrl-C planners end after the loop, which asyncio warns of
    logging.basicConfig(level="WARNING")
    logging.getLogger("asyncio").setLevel("ERROR")
    guard = Guard(new_token() if request.token else None, is_loopback(host), machine_names(host))
    query = "" if guard.token is None else f"?token={guard.token}"
    app = PlannerServer(words, guard, request.sessions).application()

    def announce(_: object) -> None:  # aiohttp's own text names no token; it is called when the port is open
        log(f"gptplan is at http://{f'[{host}]' if ':' in host else host}:{port}/{query} until Ctrl-C")

    try:
        web.run_app(
            app, host=host, port=port, print=announce, access_log=None, handle_signals=True, shutdown_timeout=10
        )
    except OSError as error:  # taken between the check and now
        raise _cannot_listen(host, port, error) from None


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
