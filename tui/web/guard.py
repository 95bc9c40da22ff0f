"""Who may come in: a token, the names of this machine, the page that a request comes from. No server in here."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def new_token() -> str:
    """A token that nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


def security_headers(host: str) -> dict[str, str]:
    """The headers of every answer. host: as the browser calls this server."""
    own = f"'self' ws://{host} wss://{host}"  # older browsers do not count a websocket as 'self'
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
        f"img-src 'self' data:; connect-src {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {**HEADERS, "Content-Security-Policy": policy}


@dataclass(frozen=True, slots=True)
class Guard:
    """token: None where everybody may come in. local: the server is on a loopback address. names: more of its names."""

    token: str | None
    local: bool
    names: tuple[str, ...] = ()

    def refusal(self, host: str, headers: Mapping[str, str], *, websocket: bool = False) -> str:
        """Why a request is refused, "" if it is not.

        A name in `Host` that is not this server's was pointed at it by somebody (DNS rebinding). Without a token only
        that check stands between another site and the planner. With one any name will do where others may connect.
        """
        name = _host_name(host)
        if not self._is_ours(name):
            return f"this server is not called {name[:60]}"
        origin = headers.get("Origin")
        if (websocket or origin is not None) and not (origin and host and urlsplit(origin).netloc == host):
            return "this request comes from another site's page"
        typed = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        if headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and not typed:
            return "this request comes from another site's page"
        return ""

    def _is_ours(self, name: str) -> bool:
        if self.local:
            return name in LOOPBACK
        return self.token is not None or _is_address(name) or name in (*LOOPBACK, *self.names)

    def knows(self, token: str) -> bool:
        """Whether a request's token is the right one. The comparison takes as long for every wrong one."""
        return self.token is None or hmac.compare_digest(token.encode(errors="replace"), self.token.encode())


def machine_names(host: str) -> tuple[str, ...]:
    """The names under which others reach this machine: as it was started, and as it calls itself."""
    own = socket.gethostname().lower()
    return (host.lower(), own, f"{own}.local", socket.getfqdn().lower())


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
