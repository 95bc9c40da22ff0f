"""A plan's text has the same words at every width, and never exceeds it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.analysis.findings import findings
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.report.plan import summary
from planner.report.text import WIDTH

RUNS = (Flags(params="125M", tokens="10B"), Flags(model="deepseek-v3", tokens="1T", gpu="h100-80gb", gpus="2048"))
PLANS = [estimate(draft(flags, as_of="2026-01-31", version="0.test")) for flags in RUNS]
TABLES = 61  # columns of the widest table


@given(st.sampled_from(PLANS), st.integers(60, 200))
def test_the_same_words_within_a_width(plan, width):
    whole, narrow = (summary(plan, findings(plan), columns) for columns in (WIDTH, width))
    assert "".join(narrow.split()) == "".join(whole.split())  # only a path is longer than a line, and broken
    assert all(len(line) <= max(width, TABLES) for line in narrow.splitlines())


@pytest.mark.parametrize("plan", PLANS)
def test_findings_that_stand_elsewhere_are_left_out(plan):
    assert "Findings" in summary(plan, ()) and "Findings" not in summary(plan, None)
