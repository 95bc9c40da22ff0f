"""Every mistake that a user can make, as one tree.

PlanError                 base: what happened, why, how to mend it; the command exits with 2
├── InputError            a value that was typed: unreadable, out of range, contradictory
│   ├── UnitError         text that is not a quantity of the kind asked for
│   └── UnknownNameError  a GPU, model, recipe … that is not in the presets
├── ConfigError           a run.toml that is unreadable, incomplete, contradictory or has unknown keys
├── FileError             a path that is missing, unreadable, unwritable, a directory, or exists already
├── DataError             training data that is missing, empty, too short or does not fit the model
├── CheckpointError       a checkpoint that is missing, damaged or does not belong to the config
├── OutOfMemoryError      a simulated allocation for which the device has no room
└── MissingExtraError     an optional part (PyTorch, …) that is not installed

`assert` is for our own mistakes; nothing else in the repository raises its own exception class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from planner.printable import message_text


class PlanError(Exception):
    """A user's mistake: `what` happened, `why` it is one, `remedy` mends it. Never shown with a traceback."""

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        super().__init__(what, why, remedy)

    def __str__(self) -> str:
        return self.message()

    def with_note(self, note: str) -> Self:
        """This error, with a note in brackets behind what happened."""
        self.what += f" ({note})"
        return self

    def message(self) -> str:
        """The whole message: one sentence of what, then the lines `why:` and `fix:` where they are known.

        What a terminal would execute is replaced, and long values are cut: they may come from a file.
        """
        lines = [message_text(self.what)]
        lines += [f"  why: {message_text(self.why)}"] if self.why else []
        lines += [f"  fix: {message_text(self.remedy)}"] if self.remedy else []
        return "\n".join(lines)


class InputError(PlanError):
    """A value that was typed and cannot be used."""


class UnitError(InputError):
    """Text that is not a quantity of the kind asked for."""


class UnknownNameError(InputError):
    """A name that is not in the list of known ones; the nearest are offered, none is substituted.

    meant: the sentence of what it was meant to be, in place of the nearest names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], meant: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        close = nearest(name, self.known)
        hint = f"{meant}; " if meant else f"did you mean {' or '.join(close)}? " if close else ""
        some = ", ".join(self.known[:12]) + (f", … ({len(self.known)} in all)" if len(self.known) > 12 else "")
        super().__init__(
            f"unknown {kind} {name!r}",
            why=f"it is not one of the known {kind} names, and no other is put in its place",
            remedy=f"{hint}known: {some}",
        )


class ConfigError(PlanError):
    """A configuration file that cannot be used."""


class FileError(PlanError):
    """A path that cannot be read or written as asked."""


class DataError(PlanError):
    """Training data that cannot be used."""


class CheckpointError(PlanError):
    """A checkpoint that cannot be used."""


class OutOfMemoryError(PlanError):
    """A simulated allocation for which the device has no room, even with an emptied cache."""


class MissingExtraError(PlanError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            why=f"it belongs to the optional part [{extra}]; planning works without it",
            remedy=f"pip install 'gptplan[{extra}]'",
        )


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that begin with `name`, shortest first, then those closest in spelling; `most` at the most."""
    import difflib  # 5 ms, wanted on the error path only

    by_lower = {k.lower(): k for k in known}
    starts = sorted((low for low in by_lower if name and low.startswith(name.lower())), key=len)
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=most, cutoff=0.5)
    return [by_lower[low] for low in dict.fromkeys(starts + close)][:most]
