"""The form on the disk while it is edited, so that a crash, a kill or a lost connection loses nothing that was typed.

One file for each process, locked while the process lives: a file without a lock is of a process that ended without
its clean end. No terminal in here.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from planner.errors import FileError
from planner.inputs.flags import OPTION_NAMES, Flags
from planner.json_input import parsed_json
from planner.printable import printable
from tui.private_files import lock, open_private, state_directory, write_private
from tui.session import FormState, Session

FORMS = "forms"  # the directory below the state directory
_FORMAT = 1
_LARGEST = 1 << 20  # bytes of a file that is read
_NEW_SECONDS = 60.0  # s: nobody writes a file for so long
_PAUSE_SECONDS = 0.3  # s between two writes: keys come faster


def _document(state: FormState) -> bytes:
    fields = {name: getattr(state.flags, name) for name in state.flags.given(*OPTION_NAMES)}
    file = state.session.file
    kept = {
        "format": _FORMAT,
        "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        "directory": _here(),
        "file": None if file is None else str(file),
        "fields": fields,
    }
    return json.dumps(kept, indent=1).encode()  # ASCII: whatever was pasted can be encoded


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


class FormKeeper:
    """Writes the latest form from a thread of its own, and removes it at a clean end.

    refused: called from that thread, once, with the message that the form cannot be kept.
    """

    def __init__(self, refused: Callable[[str], None] = lambda message: None) -> None:
        self.path: Path | None = None  # of the file, once there is one
        self.refused = refused
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._latest: FormState | None = None
        self._descriptor: int | None = None
        self._is_written = True  # whether the latest state is on the disk, or needs no file
        self._ended = False
        self._changed, self._writing = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, state: FormState | None) -> None:
        """Write this state soon; None: it is the one at the start, and needs no file. Returns at once."""
        if self._ended:
            return
        self._latest = state
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_on, name="kept-form", daemon=True)
            self._thread.start()

    def flush(self) -> bool:
        """Write the latest state now, if it is not written; return whether it is on the disk, or needs no file."""
        with self._writing:
            if self._ended or (self._is_written and not self._changed.is_set()):
                return self._is_written
            self._changed.clear()  # first: a key meanwhile is another change
            state = self._latest
            if state is None:
                self._remove()
                self._is_written = True
                return True
            self._is_written = False
            try:
                directory = state_directory(FORMS)
                descriptor = write_private(directory, self._name, _document(state))
            except (OSError, FileError) as error:
                refused, self.refused = self.refused, lambda message: None
                refused(error.message() if isinstance(error, FileError) else error.strerror or str(error))
                return False
            if self._descriptor is not None:
                os.close(self._descriptor)  # of the file that was replaced
            self.path, self._descriptor = directory / self._name, descriptor
            self._is_written = True
            return True

    def end(self) -> None:
        """A clean end: remove the file, and write no other."""
        self._ended = True
        with self._writing:
            self._changed.clear()
            self._remove()

    def _remove(self) -> None:
        if self._descriptor is not None and self.path is not None:
            _delete(self.path)
            os.close(self._descriptor)
        self.path = self._descriptor = None

    def _write_on(self) -> None:
        while self._changed.wait() and not self._ended:
            time.sleep(_PAUSE_SECONDS)
            self.flush()


@dataclass(frozen=True, slots=True)
class KeptForm:
    """A form whose process ended without a clean end; its lock is held from now on.

    saved: when, in local time. directory: where the planner was started. file: the run.toml that it completes.
    """

    path: Path
    saved: str
    directory: str
    file: Path | None
    flags: Flags
    descriptor: int

    def state(self, session: Session) -> FormState:
        """The state of the form. Raises FileError or ConfigError where its run.toml cannot be read any more."""
        if self.file is None:
            return FormState(session.without_file(), self.flags)
        elsewhere = self.directory != _here()
        return FormState(session.opened(Path(self.directory, self.file) if elsewhere else self.file), self.flags)

    def leave(self) -> None:
        """Give the lock back: the form is offered again at the next start."""
        os.close(self.descriptor)

    def remove(self) -> None:
        """Remove the file; one that the disk keeps is offered again."""
        _delete(self.path)
        os.close(self.descriptor)


def _delete(path: Path) -> None:
    with suppress(OSError):  # gone, or a disk that cannot be written
        path.unlink()


def left_forms() -> tuple[list[KeptForm], list[str]]:
    """The forms that no living process holds, the latest first; and a message for each file that is none.

    A damaged file is renamed, so that it is said once. Raises FileError where the directory cannot be used.
    """
    found: list[KeptForm] = []
    messages: list[str] = []
    directory = state_directory(FORMS)
    for path in sorted(directory.iterdir()):
        if path.suffix in (".json", ".new"):
            try:
                form = _taken(path)
            except FileNotFoundError:
                continue  # its process has just ended
            except (OSError, ValueError) as error:
                aside = path.with_suffix(".damaged")
                try:
                    os.replace(path, aside)
                except OSError:
                    aside = path  # of a disk that cannot be written; it is said again at the next start
                messages.append(f"the kept form {aside} is left alone: {getattr(error, 'strerror', None) or error}")
            else:
                found += [form] if form is not None else []
    return sorted(found, key=lambda form: form.saved, reverse=True), messages


def _taken(path: Path) -> KeptForm | None:
    """The form in a file, with its lock; None while its process lives. Raises OSError, ValueError."""
    descriptor = open_private(path)
    try:
        if path.suffix == ".new":  # killed while it was written, if it is not new at all; the whole one is beside it
            if time.time() - os.fstat(descriptor).st_mtime > _NEW_SECONDS:
                _delete(path)
        elif lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.lstat(path)):  # else it was replaced
            with os.fdopen(os.dup(descriptor), "rb") as file:
                read = file.read(_LARGEST + 1)
            return _form_of(path, read, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _form_of(path: Path, read: bytes, descriptor: int) -> KeptForm:
    """The form in a file's bytes. Raises ValueError."""
    if len(read) > _LARGEST:
        raise ValueError("it is too large")
    kept: Any = parsed_json(read)
    if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
        raise ValueError("it is not a form of this version")
    fields, file, saved, directory = (kept.get(key) for key in ("fields", "file", "saved", "directory"))
    if not (isinstance(fields, dict) and isinstance(saved, str) and isinstance(directory, str)):
        raise ValueError("a part of it is missing")
    if file is not None and not isinstance(file, str):
        raise ValueError("its run.toml is no name")
    unknown = [name for name in fields if name not in OPTION_NAMES or not isinstance(fields[name], str)]
    if unknown:
        raise ValueError(f"it has the unknown field {unknown[0]!r}")
    texts = {name: printable(text) for name, text in fields.items()}  # a file may hold what no paste leaves
    return KeptForm(path, saved, directory, None if file is None else Path(file), Flags(**texts), descriptor)
