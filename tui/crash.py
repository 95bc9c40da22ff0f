"""What is left of a crash: the traceback in a file, and one message for stderr."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from planner.errors import FileError, PlanError
from tui.private_files import state_directory, write_private

CRASH_FILE = "crash.txt"  # of the last crash only


def crash_report(error: BaseException, kept: Path | None) -> PlanError:
    """The message about a fault of ours. kept: where the form is; None if it was not edited, or is not kept."""
    root = getattr(error, "error", error)  # of a thread: Textual wraps what was raised
    cause = root if isinstance(root, BaseException) else error
    try:
        directory = state_directory()
        text = "".join(traceback.format_exception(cause))
        os.close(write_private(directory, CRASH_FILE, text.encode(errors="replace")))
        traced = f"; the traceback is in {directory / CRASH_FILE}"
    except (OSError, FileError) as failed:
        traced = f"; its traceback cannot be written ({failed})"
    remedy = "" if kept is None else f"; start gptplan tui again, which offers the form kept in {kept}"
    return PlanError(
        f"the planner crashed: {type(cause).__name__}: {str(cause)[:300]}",
        why=f"a fault of gptplan, not of what was typed{traced}",
        remedy=f"report it with the traceback{remedy}",
    )
