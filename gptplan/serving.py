"""`gptplan tui --serve`: what was asked for, checked before anything listens."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from planner.errors import InputError

HOST, PORT, SESSIONS = "127.0.0.1", "8000", "8"
MOST_SESSIONS = 1000  # 60 GB


@dataclass(frozen=True, slots=True)
class ServeFlags:
    """The flags of --serve as they were typed; None: not given."""

    serve: bool
    host: str | None = None
    port: str | None = None
    sessions: str | None = None
    no_token: bool = False

    def first_given(self) -> str | None:
        """The name of a flag that needs --serve, if one is given."""
        given = {"--host": self.host, "--port": self.port, "--sessions": self.sessions, "--no-token": self.no_token}
        return next((name for name, value in given.items() if value not in (None, False)), None)


def serve_tui(file: Path | None, flags: ServeFlags) -> None:
    """Serve the terminal planner until Ctrl-C. Raises InputError, FileError, ConfigError, MissingExtraError."""
    from gptplan.extras import need_textual_serve
    from gptplan.output import log_line

    if not flags.serve:
        raise InputError(
            f"{flags.first_given()} belongs to --serve", why="in a terminal nothing listens", remedy="add --serve"
        )
    port = _count(flags.port or PORT, "--port", 65535)
    sessions = _count(flags.sessions or SESSIONS, "--sessions", MOST_SESSIONS)
    need_textual_serve("the planner in a browser")
    words = [sys.executable, "-m", "gptplan", "tui"]
    if file is not None:
        from planner.inputs.run_toml import load_config

        load_config(file)  # said here, rather than in the browser
        words.append(str(file))
    from tui.serve import ServeRequest, is_loopback, listen

    where = flags.host or HOST
    for warning in _warnings(where, is_loopback(where), flags.no_token):
        log_line(f"warning: {warning}")
    listen(words, ServeRequest(where, port, sessions, not flags.no_token), log_line)


def _count(text: str, name: str, largest: int) -> int:
    from planner.units import parse_count

    number = parse_count(text, name=name)
    if not 0 < number <= largest:
        raise InputError(f"{name}: {number:,} is out of range", why=f"it is 1 to {largest:,}", remedy=f"change {name}")
    return number


def _warnings(where: str, local: bool, no_token: bool) -> list[str]:
    what = f"can read and write files below {Path.cwd()} as you"
    if not local and no_token:
        return [f"{where} can be reached from other machines, and there is no token: whoever reaches it {what}"]
    if not local:
        return [
            f"{where} can be reached from other machines, and there is no encryption: whoever sees the address, or "
            f"listens on the network, {what}"
        ]
    return [f"without a token every user of this machine who connects {what}"] if no_token else []
