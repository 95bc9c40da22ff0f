"""Cases that `make soak` runs and `make test` leaves out: more of a kind of which `make test` runs some."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def some(cases: Iterable[Any], always: Callable[[Any], bool]) -> list[Any]:
    """Parameters of a test: those that are not `always` run are left to `make soak`."""

    def param(case: Any) -> Any:
        values = case if isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=() if always(case) else pytest.mark.soak)

    return [param(case) for case in cases]


def one_in(n: int, cases: Iterable[Any]) -> list[Any]:
    """Every n-th case always, the others in `make soak`."""
    found = list(cases)
    chosen = [case for index, case in enumerate(found) if index % n == 0]
    return some(found, lambda case: case in chosen)
