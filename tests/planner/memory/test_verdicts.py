"""What is said of a plan that has only bounds of its memory: between them whether it fits is unknown, everywhere."""

from __future__ import annotations

import pytest

from planner.analysis.findings import findings
from planner.analysis.headline import headline
from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.coverage import not_covered
from planner.plan import Plan, estimate
from planner.report.plan import summary
from tests.planner.step_time.test_profile import made_up

# accumulation, and an option whose compiled form is not known
BOUND = {"model": "gpt2-xl", "gpu": "a100-80gb", "tokens": "10B", "runtime": "compiled", "dropout": "0.1",
         "accumulation": "8", "seq": "1024"}  # fmt: skip


def config_with(**changes: str) -> RunConfig:
    return draft(Flags(**(BOUND | changes)), as_of="2026-11-21", version="0")


def plan_with(**changes: str) -> Plan:
    return estimate(config_with(**changes))


def codes_of(plan: Plan) -> dict[str, str]:
    return {finding.code: finding.message for finding in findings(plan)}


def test_a_bound_fits_only_with_the_gradients_that_a_compiled_program_returns_together() -> None:
    """Eager bytes alone fit with 14 sequences; all new gradients beside the accumulated ones are 5.8 GiB more."""
    eager = estimate(config_with(runtime="eager", micro_batch="14"))
    assert eager.memory.fits and not_covered(eager.run) is None
    verdicts = {size: plan_with(micro_batch=str(size)).memory for size in (8, 14, 4096)}
    assert [memory.fits for memory in verdicts.values()] == [True, None, None]
    m = verdicts[14]
    assert m.fits_unknown is not None and m.fits_unknown.code == "upper_bound_only"
    ends = m.peak_allocated_bytes, eager.memory.peak_allocated_bytes
    assert ends[0].value and ends[1].value and ends[0].value - ends[1].value == m.gradients_bytes
    assert m.usable_bytes and m.device_used_bytes and m.device_used_bytes > m.usable_bytes


def test_the_second_gradients_of_fsdp2_are_shards() -> None:
    one, eight = (plan_with(micro_batch="1", **words) for words in ({}, {"gpus": "8", "fsdp": "fsdp"}))
    eager = plan_with(micro_batch="1", runtime="eager", gpus="8", fsdp="fsdp")
    more = [(p.memory.peak_allocated_bytes.value or 0) - (e.memory.peak_allocated_bytes.value or 0)
            for p, e in ((one, plan_with(micro_batch="1", runtime="eager")), (eight, eager))]  # fmt: skip
    assert more[0] == one.memory.gradients_bytes and more[1] == eight.memory.gradients_bytes < more[0] / 7


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"micro_batch": "8", "gpu": "a100-40gb"}, "fits_unknown", "at most "),
        ({"micro_batch": "1", "gpu": "l4"}, "does_not_fit", "at least "),
        ({"micro_batch": "11"}, "nearly_full", "at most "),
    ],
)
def test_messages_about_a_bound_say_that_it_is_one(changes: dict[str, str], code: str, said: str) -> None:
    plan = plan_with(**changes)
    assert f"the plan needs {said}" in codes_of(plan)[code]
    assert said in dict(headline(plan, settled=True))["memory"]
    if plan.memory.fits is False:  # the number is the one that the verdict is about
        assert plan.memory.usable_bytes and plan.memory.least_bytes > plan.memory.usable_bytes
        assert said in summary(plan, None)


def test_a_verdict_that_buffers_of_nccl_leave_open_is_a_finding() -> None:
    plan = estimate(config_with(runtime="eager", micro_batch="14", dropout="0", gpus="8", seq="968"), replay=True)
    unknown = plan.memory.fits_unknown
    assert unknown is not None and unknown.code == "nccl_buffers"
    assert unknown.why in codes_of(plan)["fits_unknown"]


def test_a_processor_has_bounds_too() -> None:
    profile = made_up() | {"memory_bytes": 60 * 2**30}
    found = {}
    for size in ("1", "8", "4096"):
        config = config_with(gpu="cpu", recipe="fp32", micro_batch=size)
        found[size] = estimate(config.model_copy(update={"profile": profile})).memory.fits
    assert found == {"1": True, "8": None, "4096": None}
