"""Every combination of option, runtime and checkpointing is checked by a test, or its reason is stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from pydantic import Field

from benchmarks import coverage
from benchmarks.option_cases import CHECKPOINTING, rows
from docs.shell import ROOT
from planner.config.run import TrainingConfig


def test_every_combination_has_a_test_or_a_reason() -> None:
    assert [cell for cell in coverage.cells() if coverage.status(cell) is None] == []


def test_what_the_cases_reach_is_what_the_order_test_runs() -> None:
    """Each row, or for offloading that in full, and for fp32 in full that in the mixed recipe."""
    from tests.reference_trainer.predictions.test_order_options import OFFLOADED, ROWS

    for row in set(rows()) - set(ROWS):
        same = replace(row, checkpointing="full") if row in OFFLOADED else replace(row, recipe="mixed-bf16")
        assert row.checkpointing in ("offloaded", "full") and same in ROWS, row
    assert {(runtime, mode) for _, _, runtime, mode in coverage.exact_cells()} == {
        (r.runtime, r.checkpointing) for r in ROWS
    }
    assert {row.checkpointing for row in ROWS} == set(CHECKPOINTING)


def test_a_new_choice_fails_until_it_has_a_test_or_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Newer(TrainingConfig):
        attention_kernel: Literal["flash", "math", "ring"] = Field(default="flash")  # type: ignore[assignment]
        sharding: bool = False
        pages: int | None = None

    monkeypatch.setitem(coverage.SECTIONS, "training", Newer)
    unknown = {cell[:2] for cell in coverage.cells() if coverage.status(cell) is None}
    news = {("training.attention_kernel", "ring"), ("training.pages", "given"), ("training.pages", "absent")}
    assert unknown == news | {("training.sharding", "no"), ("training.sharding", "yes")}


def test_statements_name_choices_and_tests_that_exist() -> None:
    known = set(coverage.choices())
    for rule in coverage._stated()["stated"]:
        assert rule["status"] in ("exact", "interval", "same", "refused") and rule["reason"]
        assert set(rule) <= {"option", "value", "runtime", "checkpointing", "status", "reason", "test"}
        assert set(rule.get("option", [])) <= {option for option, _ in known}
        assert set(rule.get("value", [])) <= {value for _, value in known}
        assert set(rule.get("runtime", [])) <= set(coverage.RUNTIMES)
        assert set(rule.get("checkpointing", [])) <= set(CHECKPOINTING)
        assert (rule["status"] == "exact") == ("test" in rule)
        if "test" in rule:
            file, _, name = rule["test"].partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    paths = [f"{path}.{name}" for path, section in coverage.SECTIONS.items() for name in section.model_fields]
    tops = [size for size in coverage._stated()["sizes"] if size.count(".") == 1]
    assert set(tops) <= set(paths)


def test_every_statement_is_needed() -> None:
    """A statement about a cell that a case reaches by now must be removed."""
    used = {coverage.status(cell) for cell in coverage.cells()}
    for rule in coverage._stated()["stated"]:
        assert coverage.Status(rule["status"], rule["reason"], rule.get("test", "")) in used, rule["reason"]
