"""README and docs show the program's real output."""

from __future__ import annotations

import re

import pytest

from docs.make import PAGES, rendered
from docs.shell import ROOT


@pytest.mark.parametrize("name", PAGES)
def test_generated_parts_are_up_to_date(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert rendered(page) == page, "make docs"


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", page):
        assert ((ROOT / name).parent / target).exists(), target


def test_the_readme_shows_a_demo_that_was_recorded() -> None:
    """The shown comparison has the rows that this version compares."""
    from planner.inputs.draft import draft
    from planner.inputs.flags import Flags
    from planner.plan import estimate

    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("$ make demo")[2]
    plan = estimate(draft(Flags(params="125M", tokens="10B"), as_of="2026-11-21", version="test"))
    for phase in plan.memory.phases:
        assert f"peak.{phase.phase}" in shown
    assert "tokens_per_second" in shown and "Predicted and measured on" in shown
