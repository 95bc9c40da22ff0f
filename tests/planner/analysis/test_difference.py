"""Two plans compared: every difference is divided among the changed fields, and an unknown number has no parts."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from planner.analysis.difference import changed_fields, differences
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.report.difference import difference_lines


def plan_of(flags: Flags) -> Plan:
    return estimate(draft(flags, as_of="2026-01-31", version="0"))


def test_plans_say_why_one_costs_more():
    before = Flags(params="125M", tokens="10B")
    after = Flags(model="gpt2-medium", tokens="20B", gpus="2")
    changes = changed_fields(before, after)
    assert changes == ("params", "model", "tokens", "gpus")
    found = differences(changes, lambda made: plan_of(replace(before, **{n: getattr(after, n) for n in made})))
    # without either, and with both, there is no model: they are one change
    for d in found:
        assert [s.names for s in d.shares] == [("params", "model"), ("tokens",), ("gpus",)]
        total = Fraction(d.after.number.value) - Fraction(d.before.number.value)
        assert sum(s.amount for s in d.shares) == total
    by = {d.after.key: d for d in found}
    assert by["steps"].shares[1].amount == by["steps"].after.number.value - by["steps"].before.number.value
    assert by["seconds"].shares[1].amount > 0 > by["seconds"].shares[2].amount
    assert math.isclose(by["usd"].after.number.value, plan_of(after).cost.usd.value)
    text = "\n".join(difference_lines(found))
    assert "by number of GPUs" in text and "by parameters + model" in text and "+$" in text


def test_an_unknown_number_has_no_shares():
    before, after = Flags(params="125M", tokens="10B"), Flags(params="125M", tokens="10B", gpu="cpu")
    found = differences(("gpu",), lambda made: plan_of(after if made else before))
    unknown = next(d for d in found if d.after.key == "usd")
    assert unknown.shares is None and unknown.after.number.value is None
    assert any(line.startswith("cost") and line.endswith("unknown") for line in difference_lines(found))
