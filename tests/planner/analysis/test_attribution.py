"""Contributions sum to the difference exactly, whatever the function; changes that cannot stand alone are joined."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from planner.analysis.attribution import attributed
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
