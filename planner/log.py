"""`Log`: a function that shows one line to the user. The command prints these lines to stderr."""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]
LOG_EVERY_SECONDS = 10.0  # between lines about the progress of long work
