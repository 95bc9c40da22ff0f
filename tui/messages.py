"""Messages for the form: they name a field by its label, where the command's name its flag."""

from __future__ import annotations

import re

from planner.config.options import OPTIONS, flag
from planner.errors import PlanError

_LABELS = {
    **{option.flag: option.short for option in OPTIONS},
    **{flag(word): f"{o.short} {word}" for o in OPTIONS if o.kind.parser == "switch" for word in o.kind.choices},
}


def with_labels(text: str) -> str:
    """The text with the label of each field, in quotes, in place of its flag: “training tokens” for --tokens."""
    return re.sub(r"--[a-z][a-z-]*", lambda found: f"“{_LABELS[found[0]]}”" if found[0] in _LABELS else found[0], text)


def form_message(error: PlanError, under: str | None = None) -> str:
    """The message of an error, as the form shows it. under: the field above it, whose name need not be repeated."""
    message = error.message()
    return with_labels(message if under is None else message.removeprefix(f"{flag(under)}: "))
