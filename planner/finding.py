"""A finding: what is odd about a plan or a schedule, whose range says so, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One odd thing: level is error (the run cannot work), warning (it may disappoint) or note."""

    level: Literal["error", "warning", "note"]
    code: str
    message: str
    remedy: str
