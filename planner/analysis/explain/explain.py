"""Why a number of the plan is what it is: formula, numbers, unit, source, assumptions, and what it is checked against.

The plan is computed once more while its formula calls are recorded; a rule per key (`provenance.py`) says which call
made the number, and an argument is followed to the call that returned it, never to one that only equals it. What is
read off an account, a preset or the config says so.
"""

from __future__ import annotations

import math

from planner.analysis.explain.config_origin import config_origin
from planner.analysis.explain.explanation import Explanation, identifier, itself
from planner.analysis.explain.keys import leaves, number_at, numbers
from planner.analysis.explain.provenance import Called, KeyRule, Own, Read, Same, Sum, rules_of
from planner.config.run import Assumption, RunConfig
from planner.document import document
from planner.formulas.formula import FORMULAS
from planner.formulas.quantities import QUANTITIES
from planner.formulas.recording import Call, made_by, recorded
from planner.plan import Plan, estimate

AGREES = 1e-12  # relative: a formula makes the number, or it is not its formula
NOT_MADE = ("config.", "model.shape.", "schedule.points.")  # chosen numbers, and points read off a schedule
DEPTH = 6  # how far back the numbers of a formula are followed
# assumptions that a quantity rests on where they are not called like it
RESTS_ON = {
    **dict.fromkeys(("layers", "hidden", "heads", "parameters", "linear_parameters"), ("shape", "family")),
    **dict.fromkeys(("sequences_per_step", "tokens_per_step"), ("global_batch_tokens",)),
    **dict.fromkeys(("weight_bytes", "gradient_bytes", "master_bytes", "compute_bytes"), ("recipe",)),
    **dict.fromkeys(("power", "bandwidth", "link_bandwidth", "peak_flops_rate", "flops_rate"), ("gpu",)),
    **dict.fromkeys(("passes", "recomputed_flops", "recomputed_parameters"), ("activation_checkpointing",)),
    "usd_per_gpu_hour": ("gpu", "price_per_gpu_hour"),
    "data_parallel": ("gpus",),
    "tokens_per_micro_batch": ("micro_batch", "seq"),
    "attended_keys": ("seq",),
}


class Explainer:
    """Explains the numbers of one plan."""

    def __init__(self, config: RunConfig) -> None:
        self.plan, self.calls = recorded(lambda: estimate(config, replay=True))
        self.config = config
        self.document = document(self.plan, ())
        self.values = leaves(self.document)

    def all_keys(self) -> list[str]:
        """Every key that has a number."""
        return list(numbers(self.values))

    def explain(self, key: str) -> Explanation:
        """The explanation of a key's number. Raises UnknownNameError, InputError where the key has none."""
        spelled, value = number_at(self.document, key)
        return self._explained(spelled, value, 0)

    def _explained(self, key: str, value: float, depth: int) -> Explanation:
        rules, stars = rules_of(key)
        if not rules and key.startswith("config."):
            return config_origin(self.config, key, value)
        for rule in rules:
            found = self._by(rule, key, value, stars, depth)
            if found is not None:
                return found
        raise AssertionError(f"no rule of planner/analysis/explain/provenance.py gives {key} = {value!r}")

    def _by(self, rule: KeyRule, key: str, value: float, stars: tuple[str, ...], depth: int) -> Explanation | None:
        if isinstance(rule, Called):
            call = made_by(self.calls, value)
            names = [name.format(*stars) for name in rule.names]
            named = call is not None and (call.formula.name in names or call.formula.gives == rule.gives)
            return self._of_call(call, key, value, depth) if call and named else None
        if isinstance(rule, Same):
            return self._same(rule.key.format(*stars), key, value, depth)
        if isinstance(rule, Sum):
            return self._sum(rule, rule.below.format(*stars), key, value)
        if isinstance(rule, Own):
            arguments = {name: self.values[path.format(*stars)] for name, path in rule.arguments.items()}
            formula = FORMULAS[rule.name]
            call = Call(formula, arguments, formula.function(**arguments))
            return self._of_call(call, key, value, depth) if _agree(call.result, value) else None
        return self._read(rule, key, value)

    def _of_call(self, call: Call, key: str, value: float, depth: int) -> Explanation:
        formula = call.formula
        parts = tuple(
            part
            for name, number in call.arguments.items()
            if depth < DEPTH and (part := self._part(name, number, depth + 1)) is not None
        )
        rests = [note for name in call.arguments for note in (name, *RESTS_ON.get(name, ()))]
        own = self._assumptions(rests)
        return Explanation(
            key=key,
            value=value,
            unit=QUANTITIES[formula.gives].unit,
            origin="formula",
            meaning=" ".join((formula.function.__doc__ or "").split()),
            formula=formula.name,
            function=formula.function,
            arguments=dict(call.arguments),
            source=formula.source,
            checked_against=formula.checked_against,
            assumptions=_together(own, *(part.assumptions for part in parts)),
            parts=parts,
        )

    def _part(self, name: str, value: float, depth: int) -> Explanation | None:
        """An argument that was made: the very number that a call returned, or a sum that a key of the plan has."""
        made = made_by(self.calls, value)
        if made is not None:
            return self._of_call(made, name, value, depth)
        if not isinstance(value, float):
            return None
        key = next((key for key, number in self.values.items() if number is value), "config.")
        found = None if key.startswith(NOT_MADE) else self._explained(key, value, depth)
        return found if found and found.origin == "sum" else None

    def _same(self, other: str, key: str, value: float, depth: int) -> Explanation | None:
        if self.values.get(other) != value or other == key:
            return None
        found = self._explained(other, self.values[other], depth + 1)
        return Explanation(
            key=key,
            value=value,
            unit=found.unit,
            origin="same",
            meaning=f"the same number as {other}",
            arguments=itself(other, value),
            source=found.source,
            checked_against=found.checked_against,
            assumptions=found.assumptions,
            parts=(found,),
        )

    def _sum(self, rule: Sum, below: str, key: str, value: float) -> Explanation | None:
        start = f"{below}."
        terms = {identifier(k.removeprefix(start)): v for k, v in self.values.items() if k.startswith(start)}
        if not terms or not _agree(sum(terms.values()), value):
            return None
        rests = ("shape", "seq", "vocab", "recipe", "micro_batch", "accumulation", "activation_checkpointing", "gpu")
        return Explanation(
            key=key,
            value=value,
            unit="s" if "seconds" in key else "byte",
            origin="sum",
            meaning=rule.meaning,
            arguments=terms,
            source=rule.source,
            checked_against=rule.checked_against,
            assumptions=self._assumptions(rests),
        )

    def _read(self, rule: Read, key: str, value: float) -> Explanation:
        source = rule.source.format(
            gpu=self.plan.run.gpu.source if self.plan.run.gpu else "this machine's profile (gptplan calibrate)",
            price=self.plan.cost.price_source,
            profile="the machine's profile of measured kernel times (gptplan calibrate)",
        )
        return Explanation(
            key=key,
            value=value,
            unit=rule.unit,
            origin=rule.origin,
            meaning=rule.meaning,
            arguments=itself(key, value),
            source=source,
            checked_against=rule.checked_against,
            assumptions=self._assumptions(rule.depends),
        )

    def _assumptions(self, names: tuple[str, ...] | list[str]) -> tuple[Assumption, ...]:
        return tuple(a for a in self.config.provenance.assumptions if a.key in names)


def explanations(plan: Plan, keys: list[str]) -> list[Explanation]:
    """Explanations of several numbers of one plan. Raises UnknownNameError, InputError."""
    explainer = Explainer(plan.config)
    return [explainer.explain(key) for key in keys]


def _agree(found: float, value: float) -> bool:
    return math.isclose(found, value, rel_tol=AGREES, abs_tol=0.0)


def _together(*groups: tuple[Assumption, ...]) -> tuple[Assumption, ...]:
    return tuple({a.key: a for group in groups for a in group}.values())
