"""`gptplan tui`: the terminal planner; without a terminal, its first screen as text."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gptplan import __version__

if TYPE_CHECKING:
    from tui.session import Session

RunFile = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A run.toml to start from.", show_default=False)]


def tui(
    file: RunFile = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve it to a browser; the address is printed. Ctrl-C ends it.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="NAME", help="With --serve: address to listen on; default 127.0.0.1, this machine only."
        ),
    ] = None,
    port: Annotated[str | None, typer.Option("--port", metavar="N", help="With --serve: port (default 8000).")] = None,
    sessions: Annotated[
        str | None,
        typer.Option(
            "--sessions", metavar="N", help="With --serve: planners at once (default 8), each about 60 MB of memory."
        ),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="With --serve: no token in the address; whoever connects acts as you.")
    ] = False,
) -> None:
    """Plan in the terminal: a form, with the plan updated at every key.

    Example: gptplan tui run.toml
    """
    from gptplan.serving import ServeFlags, serve_tui

    flags = ServeFlags(serve, host, port, sessions, no_token)
    if serve or flags.first_given():
        serve_tui(file, flags)
        return
    session = session_of(file)
    if not _at_a_terminal():
        from gptplan.output import log_line, show
        from planner.report.plan import summary
        from tui.session import flags_result

        result = flags_result(session.first, session)
        show(summary(result.plan, result.findings))
        log_line("error: `gptplan tui` needs a terminal; `gptplan estimate` is the same without one")
        raise typer.Exit(2)
    from gptplan.output import log_line
    from tui.start import run_planner  # textual: 0.16 s, only here

    code, message = run_planner(session)
    if message:
        with suppress(OSError):  # after SIGHUP nobody is there
            log_line(message)
    if code:
        raise typer.Exit(code)


def _at_a_terminal() -> bool:
    """Whether keys can be read and a screen be drawn, here or by a browser. Textual draws on stderr and asks nobody."""
    from tui.files import is_served

    if is_served():
        return True
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return os.environ.get("TERM") != "dumb" and all(s is not None and s.isatty() for s in streams)


def session_of(file: Path | None) -> Session:
    """The day, the program, this machine, the file. Raises FileError, ConfigError."""
    from gptplan.output import log_line
    from planner.config.run import CPU
    from planner.errors import InputError
    from planner.inputs.detect import machine_gpu
    from planner.inputs.profile_cache import cached_profile
    from planner.inputs.run_toml import load_config
    from tui.session import Session

    base = load_config(file) if file else None
    found: str | InputError | None = None
    if base is None:
        try:
            found = machine_gpu()
        except InputError as error:
            found = error  # naming a GPU in the form mends it
    return Session(
        as_of=date.today().isoformat(),
        version=__version__,
        file=file,
        base=base,
        machine_gpu=found,
        cpu_profile=cached_profile(CPU, log_line),
    )
