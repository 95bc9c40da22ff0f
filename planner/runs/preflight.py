"""What a preflight found: one line per check, with what was measured, what was expected, why, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

CheckVerdict = Literal["ok", "warning", "failed", "skipped"]
Value = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `values`: the numbers in base units, the unit in the name; None is unknown."""

    name: str
    verdict: CheckVerdict
    measured: str
    expected: str
    why: str = ""
    remedy: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShownSample:
    """A sample of the data: the beginnings of input and target, decoded (token ids where there is no decoder)."""

    index: int
    input: str
    target: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """All checks of a config on a machine, before money is spent."""

    schema_version: int
    model: str
    parameters: int
    device: str
    device_name: str
    torch: str
    seconds: float
    rates: tuple[tuple[int, float], ...]
    samples: tuple[ShownSample, ...]
    checks: tuple[Check, ...]

    def count(self, verdict: CheckVerdict) -> int:
        """Checks that came out so."""
        return sum(check.verdict == verdict for check in self.checks)
