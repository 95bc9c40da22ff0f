"""stdout is data, stderr is talk."""

from __future__ import annotations

import sys
from typing import Any


def show(text: str) -> None:
    """A result, on stdout."""
    sys.stdout.write(text + "\n")


def show_json(value: Any) -> None:
    """A result as one JSON object on stdout; what is not a finite number is null already, else it is our mistake."""
    import json

    show(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def talk(text: str) -> None:
    """Anything but the result, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
