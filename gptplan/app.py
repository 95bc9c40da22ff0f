"""The Typer app: one file per command; a command parses, calls the library and renders.

Exit codes: 0 good, 1 a check failed, 2 usage or config, 130 and 143 interrupted.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from gptplan import __version__
from gptplan.calibrate import calibrate
from gptplan.compare import compare
from gptplan.demo import demo
from gptplan.estimate import estimate
from gptplan.flags import with_typed_flags
from gptplan.plan import plan
from gptplan.run import run
from gptplan.schema import schema
from gptplan.tui import tui
from planner.errors import PlanError

app = typer.Typer(
    name="gptplan",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Plan a GPT training run, run it, and see every prediction beside what really happened.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gptplan {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Plan a GPT training run, run it, and see every prediction beside what really happened."""


app.command("estimate")(with_typed_flags(estimate))
app.command("plan")(with_typed_flags(plan))
app.command("run")(run)
app.command("compare")(compare)
app.command("calibrate")(calibrate)
app.command("schema")(schema)
app.command("demo")(demo)
app.command("tui")(tui)


def main() -> None:
    """Run the program; a user's mistake is one message on stderr and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "·" shows "?", which beats a traceback
    try:
        app()
    except PlanError as error:
        sys.stderr.write(f"error: {error.message()}\n")
        sys.exit(2)
