"""`gptplan tui --serve`: what was asked for, checked before anything listens."""

from __future__ import annotations

import sys
from pathlib import Path

from planner.errors import InputError

HOST, PORT = "127.0.0.1", "8000"


def serve_tui(file: Path | None, serve: bool, host: str | None, port: str | None) -> None:
    """Serve the terminal planner until Ctrl-C. Raises InputError, FileError, ConfigError, MissingExtraError."""
    from gptplan.extras import need_textual_serve
    from gptplan.output import log_line
    from planner.units import parse_count

    if not serve:
        name = "--host" if host is not None else "--port"
        raise InputError(f"{name} belongs to --serve", why="in a terminal nothing listens", remedy="add --serve")
    number = parse_count(port or PORT, name="--port")
    if number > 65535:
        raise InputError(f"--port: {number:,} is no port", why="the largest is 65,535", remedy="give another --port")
    need_textual_serve("the planner in a browser")
    words = [sys.executable, "-m", "gptplan", "tui"]
    if file is not None:
        from planner.inputs.run_toml import load_config

        load_config(file)  # said here, rather than in the browser
        words.append(str(file))
    from tui.serve import is_loopback, listen

    where = host or HOST
    if not is_loopback(where):
        log_line(
            f"warning: {where} can be reached from other machines, there is no password and no encryption: whoever "
            f"reaches it can read and write files below {Path.cwd()} as you"
        )
    listen(words, where, number, log_line)
