"""The eval command of a run, recorded outside of its directory: what is executed never comes from a data file.

A run directory may come from anybody, and `run --resume` must not execute what a file in it says. The command that was
typed is therefore kept in the user's state folder, readable by this user only, under the place and the id of its run:

    ~/.local/state/gptplan/eval-commands/<sha256 of the run directory's path>.json     mode 0600, in a folder of 0700

`XDG_STATE_HOME` moves it. A run directory that was moved or copied has no record: the command is typed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from planner.errors import FileError
from planner.json_input import parsed_json
from planner.log import Log

MOST_RECORD_BYTES = 2**20  # of a record: no shell takes a longer command
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


def records_folder() -> Path:
    """The folder of the records, in the user's state folder."""
    from platformdirs import user_state_dir  # 20 ms, only for a run with an eval command

    return Path(user_state_dir("gptplan")) / "eval-commands"


def record_command(directory: Path, run_id: str | None, command: str, log: Log) -> None:
    """Record what this user typed for a run; "" records that it has no command. A disk that refuses it is logged."""
    path = _record(directory)
    content = {"directory": os.path.realpath(directory), "run_id": run_id, "command": command}
    try:
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        # exclusive: no link is followed and no file of another program is written
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(json.dumps(content) + "\n")
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        why = error.strerror or str(error)
        log(f"the eval command cannot be recorded in {path.parent} ({why}): --resume will ask for it again")


def recorded_command(directory: Path, run_id: str | None) -> str | None:
    """The command that this user recorded for a run, "" for none; None without a record that can be trusted."""
    path = _record(directory)
    try:
        folder = os.stat(path.parent)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not (_is_private(folder) and stat.S_ISREG(found.st_mode) and _is_private(found)):
                return None
            read = parsed_json(file.read(MOST_RECORD_BYTES))
    except (OSError, ValueError):
        return None
    expected: dict[str, Any] = {"directory": os.path.realpath(directory), "run_id": run_id}
    if not isinstance(read, dict) or any(read.get(key) != value for key, value in expected.items()):
        return None
    command = read.get("command")
    return command if isinstance(command, str) else None


def confirmed_command(directory: Path, stored: dict[str, Any], typed: str | None, log: Log) -> str | None:
    """The command of a resumed run: typed now, or recorded by this user when it was typed; None for none.

    stored: execution.json, of which only the id of the run is used, and whether it had a command. Raises FileError if
    it had one that this user has not recorded.
    """
    run_id = stored.get("run_id")
    run_id = run_id if isinstance(run_id, str) else None
    if typed is not None:
        record_command(directory, run_id, typed, log)
        return typed or None
    recorded = recorded_command(directory, run_id)
    if recorded is not None:
        return recorded or None
    if not (stored.get("has_eval_command") or stored.get("eval_command")):
        return None
    named = stored.get("eval_command")  # a file of an older version, or of somebody else
    about = f"; execution.json names {named!r}, which is not executed" if named else ""
    raise FileError(
        f"the eval command of the run in {directory} must be given again",
        why=f"a command is executed only if you typed it, and no record of yours names one for this run{about}",
        remedy="add --eval-command 'CMD', or --eval-command '' to continue without",
    )


def _record(directory: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()
    return records_folder() / f"{name[:32]}.json"


def _is_private(found: os.stat_result) -> bool:
    """Whether only this user can have written it."""
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
