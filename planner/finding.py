"""A finding: what is wrong or unusual about a plan or a schedule, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: level is error (the run cannot work), warning (it may disappoint) or note.

    remedy: what to type or to change; "" while it has not been searched for.
    """

    level: Literal["error", "warning", "note"]
    code: str
    message: str
    remedy: str
