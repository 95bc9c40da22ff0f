"""Reads run directories while another process writes them: growing files, the lock, the log.

Nothing here needs the trainer: its files are read, and the kernel says which process holds the lock.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from planner.files import open_ordinary
from planner.own_files import open_own
from planner.paths import exists, is_file, is_folder
from planner.printable import printable
from planner.runs.rows import EVENTS, LONGEST_LINE, METRICS, JsonObject, Rows

PLAN, CONFIG, LOCK = "plan.json", "config.toml", "run.lock"
CHECKPOINTS, EXECUTION = "checkpoints", "execution.json"
COMPARISON, POST_MORTEM = "comparison.json", "post-mortem.md"
PROFILE = "config.profile-"  # how the name of the machine profile beside the config begins
TRACES = (CONFIG, METRICS, EVENTS)  # of which a run directory has at least one
TAIL = 256  # bytes before a place, by which a rewritten file is known
MOST = 4 << 20  # bytes of one reading: a long run is shown while it is still being read
LOG_TAIL = 16 << 10  # bytes
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
COMMAND = "$ "  # begins the line of a log that says what was started
ERROR = "error: "


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file was read: `offset` bytes, always complete lines; `tail` are the last bytes."""

    offset: int = 0
    tail: bytes = b""


@dataclass(frozen=True, slots=True)
class Followed:
    """New rows of a file and the place after them; `anew`: the file was replaced, earlier rows are invalid.

    more: whether complete lines may remain, because one read is limited. skipped: lines that are no row.
    """

    rows: tuple[JsonObject, ...]
    place: Place
    anew: bool
    more: bool = False
    skipped: int = 0


def follow(path: Path, place: Place, most: int = MOST) -> Followed:
    """The rows of metrics.jsonl or events.jsonl since `place`.

    An incomplete last line is left for later; a line that is no row is skipped and counted, and so is one longer than
    4 MiB. A file that is shorter than before, or has other bytes before the place (`--resume` and rollbacks rewrite
    it), is read from its beginning. A missing or unreadable file has no rows, and a pipe in its place is not opened.
    """
    try:
        with open_ordinary(path) as file:
            anew = not _continues(file.fileno(), place)
            start = Place() if anew else place
            file.seek(start.offset)
            read = file.read(most)
            while most <= len(read) < LONGEST_LINE and b"\n" not in read:  # one line longer than a whole reading
                longer = file.read(most)
                if not longer:
                    break
                read += longer
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return Followed((), Place(), place.offset > 0)
    endless = len(read) >= LONGEST_LINE and b"\n" not in read
    whole = read if endless else read[: read.rfind(b"\n") + 1]
    rows = Rows(path.name)
    found = () if endless else tuple(rows.of(whole.split(b"\n")))
    tail = (start.tail + whole)[-TAIL:]
    return Followed(
        found, Place(start.offset + len(whole), tail), anew, len(read) >= most, 1 if endless else rows.skipped
    )


def _continues(file: int, place: Place) -> bool:
    return os.pread(file, len(place.tail), place.offset - len(place.tail)) == place.tail


def owner_of(directory: Path) -> int | None:
    """The process that works in a run directory on this machine, or None.

    The lock's text is a process id, and the kernel says whether the lock is held: an id alone may be reused.
    """
    import fcntl  # not on Windows, where the trainer has no lock either

    try:
        with os.fdopen(open_own(directory / LOCK, os.O_RDWR), "r+b") as lock:
            process = int(lock.read(32).strip() or 0)
            if process <= 0 or not _lives(process):
                return None  # without touching the lock, which a run may be about to take
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return process
    except (OSError, ValueError):
        pass
    return None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # another user's
    except (OSError, OverflowError):
        return False
    return True


def catches(process: int, number: int) -> bool | None:
    """Whether a process has a handler for a signal; None if this system does not report it."""
    found = _status(process, "SigCgt")
    return None if found is None else bool(int(found, 16) >> (number - 1) & 1)


def resident_bytes(process: int) -> int | None:
    """Resident memory of a process, bytes; None if this system does not report it."""
    found = _status(process, "VmRSS")
    return None if found is None else 1024 * int(found.split()[0])


def _status(process: int, key: str) -> str | None:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:")), None)


def is_run(directory: Path) -> bool:
    """Whether a directory contains a run, started or about to start."""
    return any(is_file(directory / name) for name in TRACES)


def holds_steps(directory: Path) -> bool:
    """Whether a run began in a directory: it can be resumed there, and a new one cannot begin.

    An empty log or folder of checkpoints is what a start leaves that the disk refused.
    """
    logs = (directory / name for name in (METRICS, EVENTS))
    checkpoints = directory / CHECKPOINTS
    return any(is_file(log) and log.stat().st_size for log in logs) or any(_directories(checkpoints))


def was_refused(directory: Path) -> bool:
    """Whether nothing but what a refused start left lies in a directory: the same start may be tried again there.

    The lock, or execution.json, is the trainer's mark: a config.toml alone is somebody's.
    """
    names = {path.name for path in directory.iterdir()}
    left = {CONFIG, PLAN, EXECUTION, LOCK, METRICS, EVENTS, CHECKPOINTS}
    ours = bool(names & {LOCK, EXECUTION}) and not holds_steps(directory)
    partly = (PROFILE, f".{PROFILE}", *(f".{one}." for one in left))
    return ours and all(name in left or name.startswith(partly) for name in names)


def runs_in(place: Path, most: int = 50) -> tuple[Path, ...]:
    """The run directories in `place` and its subdirectories, the latest first."""
    found: dict[Path, float] = {}
    for directory in (*_directories(place), *(inner for d in _directories(place) for inner in _directories(d))):
        if is_run(directory):
            found[directory] = max(_changed(directory / name) for name in TRACES)
    return tuple(sorted(found, key=lambda d: (-found[d], str(d)))[:most])


def _directories(place: Path) -> list[Path]:
    try:
        inside = sorted(place.iterdir())
    except OSError:
        return []
    return [p for p in inside if not p.name.startswith(".") and is_folder(p)]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def beside(directory: Path, ending: str) -> Path:
    """A file beside a run directory, as a new run's must be empty: `runs/a` has `runs/a.toml` and `runs/a.log`."""
    return directory.with_name(directory.name + ending)


def log_of(directory: Path) -> Path:
    """The log of a trainer that the planner started."""
    return beside(directory, ".log")


def new_directory(place: Path, stem: str = "run") -> Path:
    """`run-1`, or the next number without a directory or files of that name."""
    number = 1
    while any(exists(p) for p in _taken(place / f"{stem}-{number}")):
        number += 1
    return place / f"{stem}-{number}"


def _taken(directory: Path) -> tuple[Path, ...]:
    return directory, beside(directory, ".toml"), log_of(directory)


def log_lines(path: Path) -> list[str]:
    """The last lines of a log since its last command, without control characters; [] if there is none."""
    try:
        with open_ordinary(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [printable(CONTROL.sub("", line.rpartition("\r")[2])) for line in text.replace("\r\n", "\n").split("\n")]
    start = max((i for i, line in enumerate(lines) if line.startswith(COMMAND)), default=0)
    return [line for line in lines[start:] if line.strip()]


def last_error(lines: list[str]) -> list[str]:
    """The last error of a log: `error: …` with its indented lines, else the last line, which ends a traceback."""
    start = max((i for i, line in enumerate(lines) if line.startswith(ERROR)), default=None)
    if start is None:
        return [line for line in lines if not line.startswith(COMMAND)][-1:]
    end = next((i for i in range(start + 1, len(lines)) if not lines[i].startswith("  ")), len(lines))
    return lines[start:end]
