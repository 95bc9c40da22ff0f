"""What goes by the size of a model goes by the active parameters of a mixture of experts, and says both counts."""

from __future__ import annotations

from planner.analysis.findings import findings
from planner.analysis.headline import headline
from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.rules import row_of_size
from planner.units import format_count


def drafted(**texts: str) -> RunConfig:
    return draft(Flags(**{"tokens": "300B", "gpu": "h100-80gb"} | texts), as_of="2026-11-27", version="test")


def test_the_default_batch_and_rate_are_those_of_the_active_parameters() -> None:
    config = drafted(model="olmoe-1b-7b")
    plan = estimate(config)
    active, total = plan.parameters.active, plan.parameters.total
    assert row_of_size(active) != row_of_size(total), "the two sizes must have rows of their own here"
    assert config.schedule.peak_lr == row_of_size(active)["peak_lr"]
    sources = {a.key: a.source for a in config.provenance.assumptions}
    for key in ("peak_lr", "global_batch_tokens"):
        assert f"{format_count(active)} active of {format_count(total)}" in sources[key]


def test_a_dense_model_says_nothing_of_active_parameters() -> None:
    config = drafted(model="gpt2")
    assert not any("active" in a.source for a in config.provenance.assumptions)
    assert "params" not in dict(headline(estimate(config), True))


def test_tokens_per_parameter_has_both_ratios() -> None:
    plan = estimate(drafted(model="mixtral-8x7b", tokens="30B"))
    (found,) = [f for f in findings(plan) if f.code == "tokens_per_parameter"]
    assert "per active parameter" in found.message and "per parameter of all experts" in found.message


def test_the_headline_has_active_and_total_parameters() -> None:
    plan = estimate(drafted(model="mixtral-8x7b", tokens="30B"))
    rows = dict(headline(plan, True))
    assert rows["params"] == f"{format_count(plan.parameters.active)} active of {format_count(plan.parameters.total)}"
