"""The Typer app: one file per command; a command parses, calls the library and renders.

Exit codes: 0 good, 1 a check failed, 2 usage or config, 130 and 143 interrupted.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core

from gptplan import __version__
from gptplan.flags import refuse_old_command, refuse_other_names, with_shared_flags
from gptplan.os_signals import quiet_signals
from gptplan.silence import no_silence
from gptplan.standard_streams import guarded_streams, unguarded
from planner.errors import PlanError
from planner.printable import message_text

ABOUT = "Plan a GPT training run, train it, and compare every prediction with the measurement."
# each is the function of that name in gptplan/commands/; True: it takes the shared flags
COMMANDS = {
    "estimate": True,
    "explain": True,
    "plan": True,
    "flops": True,
    "schedule": True,
    "batch": True,
    "search": True,
    "fit": True,
    "groups": False,
    "data": False,
    "trace": False,
    "preflight": False,
    "lr-find": False,
    "run": False,
    "sample": False,
    "compare": False,
    "postmortem": False,
    "export": False,
    "import": False,
    "calibrate": False,
    "demo": False,
    "tui": False,
    "wizard": False,
    "schema": False,
}
MODULES = {"import": "import_config"}  # of a command whose name is a word of Python


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gptplan {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


class CleanGroup(typer.core.TyperGroup):
    """The commands; what typer quotes of a command line in its own messages is fit for a terminal."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises typer's own errors, their words cleaned."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            # typer's errors have no public base class: they are known by a text and an exit code
            if isinstance(said := getattr(error, "message", None), str) and hasattr(error, "exit_code"):
                error.message = message_text(said)  # type: ignore[attr-defined]
            raise


def application(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """The Typer app with these commands; building them all takes 40 ms, one of them a quarter."""
    app = typer.Typer(
        name="gptplan",
        cls=CleanGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=ABOUT)(root)
    for name in names:
        module = MODULES.get(name, name.replace("-", "_"))
        command = getattr(import_module(f"gptplan.commands.{module}"), module)
        app.command(name)(with_shared_flags(command) if COMMANDS[name] else command)
    return app


def _flags_of(app: Any, command: str) -> frozenset[str]:
    """Every spelling of a flag that a command has."""
    parameters = app.commands[command].params
    return frozenset(name for p in parameters for name in (*p.opts, *p.secondary_opts)) | {"--help"}


def main() -> None:
    """Run the program; a user's mistake is one message on stderr and exit code 2."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    with guarded_streams(), quiet_signals(command), no_silence(command):
        _main()


def _main() -> None:
    if isinstance(out := unguarded(sys.stdout), io.TextIOWrapper):
        out.reconfigure(errors="replace")  # a terminal without "·" shows "?", which beats a traceback
    # when the first word is a command only that one is built; help and "did you mean" want them all
    asked = [word for word in sys.argv[1:2] if word in COMMANDS]
    try:
        refuse_old_command(sys.argv[1:2])
        app = typer.main.get_command(application(asked or COMMANDS))
        if asked and COMMANDS[asked[0]]:
            refuse_other_names(sys.argv[2:], _flags_of(app, asked[0]))
        app(prog_name="gptplan")
    except PlanError as error:
        sys.stderr.write(f"error: {error.message()}\n")
        sys.exit(2)
