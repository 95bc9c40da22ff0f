"""The register of formulas: `@formula(gives=…, source=…)` records a plain function and returns it untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from planner.formulas.quantities import QUANTITIES

# what each topic's formulas are checked against, by the module that they stand in: something independent
CHECKED_AGAINST: dict[str, str] = {
    "planner.formulas.params": "numel() of the reference model on the meta device, and published counts: exact",
    "planner.formulas.flops": "torch.utils.flop_counter over the reference model's step on the meta device: exact",
    "planner.formulas.memory": "bytes of the reference trainer's own tensors: exact",
    "planner.formulas.activations": "saved_tensors_hooks over the reference model: exact, operator by operator",
    "planner.formulas.batch": "steps and tokens that a run of the reference trainer counts: exact",
    "planner.formulas.schedule": "the rate that the optimizer of a run really used: exact; continuity shown by sympy",
    "planner.formulas.throughput": (
        "measured steps of the reference trainer, and published runs: inside the stated interval"
    ),
    "planner.formulas.collectives": "published runs: inside the stated interval",
    "planner.formulas.duration": "evaluations and saves of the reference trainer: their number exactly; seconds: none",
    "planner.formulas.cost": "none: a definition",
}
NOT_CHECKED = "none"

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Formula:
    """One registered formula: what it gives (a name in `quantities`), the function, its source, and what checks it."""

    name: str
    gives: str
    source: str
    function: Callable[..., Any]
    checked_against: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments, each a name in `quantities`."""
        code = self.function.__code__
        return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


FORMULAS: dict[str, Formula] = {}


def formula(*, gives: str, source: str, checked_against: str | None = None) -> Callable[[Function], Function]:
    """Register the function below under its own name; it stays a plain function.

    gives: name of the quantity that it computes; every argument is such a name too.
    source: paper, page or derivation; a formula without one cannot be registered.
    checked_against: an independent measurement or count; by default that of its topic, else "none".
    """
    assert source.strip(), "a formula needs a source"
    assert gives in QUANTITIES, f"{gives} is not in planner/formulas/quantities.py"

    def register(function: Function) -> Function:
        name = function.__name__
        assert name not in FORMULAS, f"two formulas are called {name}"
        by_topic = CHECKED_AGAINST.get(function.__module__, NOT_CHECKED)
        found = Formula(name, gives, source, function, checked_against or by_topic)
        unknown = [a for a in found.arguments if a not in QUANTITIES]
        assert not unknown, f"{name}: {unknown} not in planner/formulas/quantities.py"
        FORMULAS[name] = found
        return function

    return register
