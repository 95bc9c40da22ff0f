"""`gptplan wizard`: the form of the terminal planner asked line by line, for terminals and readers without a screen."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gptplan.tui import RunFile

if TYPE_CHECKING:
    from planner.config import RunConfig
    from planner.questions import Interview
    from tui.session import Result, Session


def wizard(file: RunFile = None) -> None:
    """Plan by answering one question after the other, a line each; no full-screen program is needed.

    An empty line takes what is shown in brackets. Questions are on stderr, the plan and its command on stdout.

    Example: gptplan wizard run.toml
    """
    from gptplan.output import talk
    from gptplan.tui import session_of
    from planner.questions import SIGNS

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text are a wrong answer, not a traceback
    session = session_of(file)
    talk(SIGNS)
    try:
        _ask_all(session)
    except KeyboardInterrupt:
        talk("")
        raise typer.Exit(130) from None


def _ask_all(session: Session) -> None:
    from gptplan.output import columns, show, talk
    from planner.plan_text import summary
    from planner.questions import END, answer, begin
    from tui.session import command_of, result_of

    state, message = begin(session.first, lambda typed: result_of(typed, session, replay=False).plan)
    try:
        while True:
            if message:
                talk(message)
            if state.at == END:
                result = result_of(state.typed, session)
                show(summary(result.plan, result.findings, columns()))
                show(f"\nCommand\n  {command_of(state.typed, session)}")
                if _saved(result):
                    return
                assert state.before is not None
                state = state.before
            _say(state)
            text = _line()
            state, message = answer(state, text, lambda typed: result_of(typed, session, replay=False).plan)
    except (EOFError, KeyboardInterrupt) as end:
        talk(f"\nso far: {command_of(state.typed, session)}")
        if isinstance(end, KeyboardInterrupt):
            raise
        talk("error: the answers ended before the last question; nothing was planned")
        raise typer.Exit(2) from None


def _say(state: Interview) -> None:
    """The sentence, then what an empty line stands for: last, because it is read last."""
    from gptplan.output import talk
    from planner.questions import question
    from planner.text import wrap

    asked = question(state)
    lines = wrap(asked.sentence, indent=0)
    if asked.why:
        lines += wrap(f"{asked.value}: {asked.why.partition('; ')[0]}", indent=2)
    talk("\n" + "\n".join(lines))
    _prompt(f"{asked.prompt} [{asked.value}]: ")


def _prompt(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _line() -> str:
    """A line of stdin. Raises EOFError where there is none."""
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _saved(result: Result) -> bool:
    """Offer to write the run.toml, until it is written or nobody wants it; False: back to the questions."""
    from gptplan.output import talk
    from planner.errors import FileError
    from planner.questions import BACK

    talk("\nFile to save the configuration in, such as run.toml.")
    while True:
        _prompt("save as [not saved]: ")
        try:
            name = "".join(c for c in _line() if c.isprintable()).strip()
            if name in ("", BACK):
                return name == ""
            path = Path(os.path.expanduser(name))
            if _written(path, result.plan.config):
                talk(f"wrote {path}; train it with: gptplan run {path} --out RUN_DIR")
                return True
        except FileError as error:
            talk(error.message())
        except EOFError:
            talk("not saved")
            return True


def _written(path: Path, config: RunConfig) -> bool:
    """Write, after a second word where the file is there already; False where that word was not yes."""
    from planner.config_file import config_text, write_atomically
    from planner.questions import YES

    over = os.path.isfile(path)
    if over:
        _prompt(f"{path} exists already. Overwrite it? yes or no [no]: ")
        if _line().strip().lower() not in YES:
            return False
    write_atomically(path, config_text(config), overwrite=over)
    return True
