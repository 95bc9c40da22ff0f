"""`gptplan wizard`: the form of the terminal planner asked line by line, for terminals and readers without a screen."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gptplan.commands.tui import RunFile

if TYPE_CHECKING:
    from planner.config.run import RunConfig
    from planner.inputs.wizard import WizardState
    from tui.session import PlanResult, Session

LONGEST_ANSWER = 10_000  # characters


def wizard(file: RunFile = None) -> None:
    """Plan by answering one prompt after the other, line by line; no full-screen terminal is needed.

    An empty answer takes the default in brackets. Prompts are on stderr, the plan and its command on stdout.

    Example: gptplan wizard run.toml
    """
    from gptplan.commands.tui import session_of
    from gptplan.output import log_line
    from planner.inputs.wizard import SIGNS

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text are a wrong answer, not a traceback
    session = session_of(file)
    log_line(SIGNS)
    try:
        _ask_all(session)
    except KeyboardInterrupt:
        log_line("")
        raise typer.Exit(130) from None


def _ask_all(session: Session) -> None:
    from gptplan.output import columns, log_line, show
    from planner.errors import InputError
    from planner.inputs.wizard import END, answer, begin
    from planner.report.plan import summary
    from tui.session import command_of, flags_result

    state, message = begin(session.first, lambda flags: flags_result(flags, session, replay=False).plan)
    try:
        while True:
            if message:
                log_line(message)
            if state.at == END:
                result = flags_result(state.flags, session)
                show(summary(result.plan, result.findings, columns()))
                show(f"\nCommand\n  {command_of(state.flags, session)}")
                if _saved(result):
                    return
                assert state.before is not None
                state = state.before
            _show(state)
            text = _line()
            state, message = answer(state, text, lambda flags: flags_result(flags, session, replay=False).plan)
    except (EOFError, KeyboardInterrupt, InputError) as end:
        log_line(f"\nso far: {command_of(state.flags, session)}")
        if not isinstance(end, EOFError):
            raise
        log_line("error: the input ended before the last answer; nothing was planned")
        raise typer.Exit(2) from None


def _show(state: WizardState) -> None:
    """Show the sentence and the default; the prompt comes last, because a screen reader reads it last."""
    from gptplan.output import log_line
    from planner.inputs.wizard import question
    from planner.report.text import wrap

    asked = question(state)
    lines = wrap(asked.sentence, indent=0)
    if asked.why:
        lines += wrap(f"{asked.value}: {asked.why.partition('; ')[0]}", indent=2)
    log_line("\n" + "\n".join(lines))
    _prompt(f"{asked.prompt} [{asked.value}]: ")


def _prompt(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _line() -> str:
    """A line of stdin. Raises EOFError at its end, InputError for a line that is no answer but a file."""
    from planner.errors import InputError

    line = sys.stdin.readline(LONGEST_ANSWER) if sys.stdin is not None else ""
    if len(line) == LONGEST_ANSWER:
        raise InputError(
            f"an answer has {LONGEST_ANSWER:,} characters or more",
            why="each answer is a line of its own",
            remedy="type it, or give a file with one answer on a line",
        )
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _saved(result: PlanResult) -> bool:
    """Offer to save a run.toml until it is saved or declined; False: back to the fields."""
    from gptplan.output import log_line
    from planner.errors import FileError
    from planner.inputs.wizard import BACK
    from planner.report.after_saving import how_to_train

    log_line("\nFile for the configuration, such as run.toml.")
    while True:
        _prompt("save as [not saved]: ")
        try:
            name = "".join(c for c in _line() if c.isprintable()).strip()
            if name in ("", BACK):
                return name == ""
            path = Path(os.path.expanduser(name))
            if _written(path, result.plan.config):
                log_line(f"wrote {path}; {how_to_train(result.plan.config, path)}")
                return True
        except FileError as error:
            log_line(error.message())
        except EOFError:
            log_line("not saved")
            return True


def _written(path: Path, config: RunConfig) -> bool:
    """Write the file, after confirmation if it exists; False without confirmation."""
    from planner.inputs.run_toml import write_config
    from planner.inputs.wizard import YES

    over = os.path.isfile(path)
    if over:
        _prompt(f"{path} exists already. Overwrite it? yes or no [no]: ")
        if _line().strip().lower() not in YES:
            return False
    write_config(path, config, overwrite=over)
    return True
