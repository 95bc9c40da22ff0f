"""What the functions of `import gptplan` return: the library's results, with a short repr and a table for notebooks."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

from planner.analysis.findings import findings_with_remedies
from planner.document import document
from planner.plan import Plan as LibraryPlan
from planner.report.comparison import comparison_lines
from planner.report.html import comparison_html, plan_html
from planner.report.plan import summary
from planner.runs.comparison import Comparison as LibraryComparison
from planner.units import format_count, format_duration, format_money


def _values(result: Any) -> dict[str, Any]:
    return {field.name: getattr(result, field.name) for field in fields(result)}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The values as JSON has them: lists instead of tuples."""
    found: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    return found


class Plan(LibraryPlan):
    """Everything predicted for a run: `plan.memory`, `plan.time`, `plan.cost`, …; print(plan) is the summary."""

    __slots__ = ()

    @classmethod
    def of(cls, plan: LibraryPlan) -> Plan:
        """The same plan."""
        return cls(**_values(plan))

    def to_dict(self) -> dict[str, Any]:
        """The object that `gptplan estimate --json` prints: base units, unknown is None."""
        return _plain(document(self, findings_with_remedies(self)))

    def __str__(self) -> str:
        return summary(self, findings_with_remedies(self))

    def __repr__(self) -> str:
        hardware, fits = self.config.hardware, self.memory.fits
        assumed = any(a.key == "gpu" for a in self.config.provenance.assumptions)
        time, cost = self.time.seconds.value, self.cost.usd.value
        parts = [
            self.config.model.name,
            f"{format_count(self.tokens.requested)} tokens",
            f"{hardware.gpus} × {hardware.gpu}{' (assumed)' if assumed else ''}",
            {True: "fits", False: "does not fit", None: "unknown whether it fits"}[fits],
            "time unknown" if time is None else format_duration(time),
            "cost unknown" if cost is None else format_money(cost),
        ]
        return f"<Plan {' · '.join(parts)}>"

    def _repr_html_(self) -> str:
        return plan_html(self, findings_with_remedies(self))


class Comparison(LibraryComparison):
    """Predicted and measured numbers of a run, row by row, with ratio, tolerance and verdict."""

    __slots__ = ()

    @classmethod
    def of(cls, comparison: LibraryComparison) -> Comparison:
        """The same comparison."""
        return cls(**_values(comparison))

    def to_dict(self) -> dict[str, Any]:
        """The object that `gptplan compare --json` prints."""
        return _plain(asdict(self))

    def __str__(self) -> str:
        return comparison_lines(self)

    def __repr__(self) -> str:
        verdicts = [row.verdict for row in self.rows]
        counts = " · ".join(f"{verdicts.count(v)} {v}" for v in ("within", "outside", "unknown"))
        return f"<Comparison {self.device_name} · {counts}>"

    def _repr_html_(self) -> str:
        return comparison_html(self)
