"""Shares sum to the difference exactly, whatever the function; changes that cannot stand alone are joined."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from planner.analysis.attribution import attributed
from planner.analysis.difference import changed_fields, differences
from planner.analysis.headline import figures
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.report.difference import difference_lines
from tests.examples import examples

VALUES = st.one_of(st.none(), st.floats(-1e12, 1e12))


@given(st.integers(0, 4), st.data())
@examples(80)
def test_shares_sum_to_the_whole_difference(count, data):
    names = "abcd"[:count]
    known: dict[frozenset[str], float | None] = {}

    def number(made: frozenset[str]) -> float | None:
        return known.setdefault(made, data.draw(VALUES))

    shares = attributed(names, number)
    first, last = known[frozenset()], known[frozenset(names)]
    if first is None or last is None:
        assert shares is None
        return
    assert sum((s.amount for s in shares), Fraction(0)) == Fraction(last) - Fraction(first)
    assert [n for s in shares for n in s.names] == list(names)


def test_two_changes_do_not_depend_on_their_order():
    def number(made):
        return {"": 1.0, "a": 5.0, "b": 8.0, "ab": 100.0}["".join(sorted(made))]

    for order in ("ab", "ba"):
        found = {s.names: s.amount for s in attributed(order, number)}
        assert found == {("a",): (4 + 92) / 2, ("b",): (7 + 95) / 2}


def test_a_change_that_cannot_stand_alone_is_joined_to_its_neighbour():
    def number(made):
        return None if len(made & {"b", "c"}) == 1 else float(len(made))

    assert [(s.names, s.amount) for s in attributed("abcd", number)] == [(("a",), 1), (("b", "c"), 2), (("d",), 1)]


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


def test_a_figure_says_its_interval():
    texts = {f.key: f.text() for f in figures(plan_of(Flags(params="125M", tokens="10B")))}
    assert "…" in texts["usd"] and "tokens/s  (" in texts["tokens_per_second"] and "…" not in texts["steps"]
