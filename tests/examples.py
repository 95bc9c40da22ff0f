"""How many examples a property is tried with: few in `make test`, many times more in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import settings

TIMES = int(os.environ.get("EXAMPLES", "1"))  # `make fuzz` sets it


def examples(few: int) -> settings:
    """A decorator for a property: it is tried with `few` examples, or in `make fuzz` with `TIMES` as many."""
    return settings(max_examples=few * TIMES, deadline=None)
