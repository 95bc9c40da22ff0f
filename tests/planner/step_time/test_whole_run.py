"""The time of a whole run: what it does beside its steps has a price, what costs nothing is free, the parts add up."""

from __future__ import annotations

import pytest

from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.report.plan import summary
from planner.rules import rules
from tests.planner.step_time.test_every_option import planned as of_a_step
from tests.planner.step_time.test_options_priced import FREE

BASE = {
    "model": "gpt2",
    "steps": "1000",
    "gpu": "h100-80gb",
    "price_per_gpu_hour": "2",
    "micro_batch": "8",
    "runtime": "eager",
}


def planned(**texts: str) -> Plan:
    return estimate(draft(Flags(**BASE | texts), as_of="2026-11-27", version="test"))


def parts(**texts: str) -> dict[str, float]:
    return planned(**texts).time.parts


# each change, the part that grows by it, and the options that both plans have
DEARER: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "evaluations": ({}, {"eval_every": "100"}, "evaluations"),
    "longer evaluations": ({"eval_every": "100"}, {"eval_every": "100", "eval_tokens": "1M"}, "evaluations"),
    "checkpoints": ({}, {"checkpoint_every": "100"}, "checkpoints"),
    "the best evaluations are saved": ({}, {"eval_every": "100"}, "checkpoints"),
    "a slower disk": ({}, {"write_bandwidth": "50M"}, "checkpoints"),
    "training waits": ({"checkpoint_every": "10"}, {"checkpoint_every": "10", "async_save": "no"}, "checkpoints"),
    "more to save": ({"optimizer": "sgd"}, {}, "checkpoints"),
    "a disk slower than the steps": ({}, {"write_bandwidth": "1k"}, "data"),
    "more weights": ({}, {"model": "gpt2-xl"}, "start"),
    "compilation": ({"runtime": "eager"}, {"runtime": "compiled"}, "compilation"),
    "more blocks": ({"runtime": "compiled"}, {"runtime": "compiled", "model": "gpt2-xl"}, "compilation"),
    "a program of evaluation": ({"runtime": "compiled"}, {"runtime": "compiled", "eval_every": "9"}, "compilation"),
}


@pytest.mark.parametrize(("less", "more", "part"), DEARER.values(), ids=DEARER.keys())
def test_what_a_run_does_beside_its_steps_has_a_price(less: dict[str, str], more: dict[str, str], part: str) -> None:
    one, other = planned(**less).time, planned(**more).time
    assert one.parts[part] < other.parts[part]
    assert one.parts_low[part] <= other.parts_low[part] and one.parts_high[part] < other.parts_high[part]
    assert other.sources[part]


@pytest.mark.parametrize("free", [{"keep_checkpoints": "9"}, {"patience": "3"}, {"on_spike": "skip"}])
def test_what_costs_nothing_is_free(free: dict[str, str]) -> None:
    every = {"eval_every": "100", "checkpoint_every": "50"}
    assert planned(**every, **free).time == planned(**every).time


# of the options that leave a step as it is: what changes the run, and nothing else does
OF_A_RUN = ("steps", "checkpoint_every", "async_save", "eval_every", "eval_tokens", "write_bandwidth")


@pytest.mark.parametrize("name", FREE)
def test_what_leaves_a_step_as_it_is_changes_the_run_or_is_free(name: str) -> None:
    beside, value, _ = FREE[name]
    before, after = of_a_step(**beside).time, of_a_step(**beside | {name: value}).time
    assert (before.parts != after.parts) == (name in OF_A_RUN)


@pytest.mark.parametrize("texts", [{}, {"eval_every": "7", "checkpoint_every": "10", "gpus": "16"}, {"tflops": "100"}])
def test_parts_add_up_to_time_money_and_energy(texts: dict[str, str]) -> None:
    plan = planned(**texts)
    time, cost = plan.time, plan.cost
    assert time.parts.keys() == time.bounds.keys() == time.sources.keys() == time.times.keys()
    seconds = time.seconds
    for end, found in ((seconds.low, time.parts_low), (seconds.value, time.parts), (seconds.high, time.parts_high)):
        assert end == pytest.approx(sum(found.values()), rel=1e-12)
    for name, value in time.parts.items():
        assert time.parts_low[name] <= value <= time.parts_high[name]
    assert seconds.value is not None and time.gpu_hours.value is not None and plan.run.gpu is not None
    gpus = plan.config.hardware.gpus
    assert time.gpu_hours.value == pytest.approx(gpus * seconds.value / 3600)
    assert cost.usd.value == pytest.approx(2 * gpus * seconds.value / 3600)
    assert cost.energy_kwh == pytest.approx(1.1 * (plan.run.gpu.power_watts or 0) / 1000 * time.gpu_hours.value)


def test_times_are_whole_steps() -> None:
    time = planned(steps="1005", eval_every="100", checkpoint_every="250").time
    # evaluations at 100 … 1,000; saves of these, at 250 and 750, and after the last step
    assert time.times == {
        "steps": 1005,
        "evaluations": 10,
        "checkpoints": 13,
        "data": 1005,
        "start": 1,
        "compilation": 0,
    }


def test_a_given_speed_is_that_of_the_whole_run() -> None:
    """By 6·N·D alone, as in a textbook; what the config asks for beside its steps is added."""
    plan = planned(tflops="100")
    assert plan.time.seconds.value == plan.time.parts["steps"] == plan.time.seconds.high
    more = parts(tflops="100", eval_every="100", checkpoint_every="100")
    assert more["steps"] == plan.time.parts["steps"]
    assert more["evaluations"] > 0 and more["checkpoints"] > 0 and more["start"] == more["compilation"] == 0


def test_an_evaluation_is_a_third_of_a_step_without_its_update() -> None:
    plan = planned(eval_every="100", eval_tokens="8192", accumulation="1", clip_norm="0")
    step, flops = plan.throughput.parts, plan.flops
    repeated = sum(seconds for name, seconds in step.items() if name not in ("optimizer", "all-reduce", "stragglers"))
    third = flops.per_token_model / 3 / flops.per_token_hardware  # flash attention's scores are made again in backward
    assert 0.3 < third < 1 / 3
    assert plan.time.parts["evaluations"] == pytest.approx(10 * repeated * third, rel=1e-9)
    recomputed = parts(
        eval_every="100", eval_tokens="8192", accumulation="1", clip_norm="0", activation_checkpointing="full"
    )
    assert recomputed["evaluations"] == pytest.approx(plan.time.parts["evaluations"], rel=0.1)


def test_training_waits_for_saves_or_hides_them() -> None:
    every = {"checkpoint_every": "100", "write_bandwidth": "1G"}
    size = planned().memory.checkpoint_bytes
    waited = planned(**every, async_save="no").time
    assert waited.parts["checkpoints"] == waited.parts_high["checkpoints"] == pytest.approx(10 * size / 1e9)
    hidden = parts(**every)["checkpoints"]  # ten copies to the host, and the last write
    assert size / 1e9 < hidden < 0.3 * waited.parts["checkpoints"]
    # a disk that never ends before the next save hides nothing but the steps
    slow = planned(**every | {"write_bandwidth": "1M"}).time.parts
    assert slow["checkpoints"] + 0.9 * slow["steps"] == pytest.approx(10 * size / 1e6, rel=0.01)


def test_servers_write_their_shards_side_by_side() -> None:
    many = {"gpus": "64", "async_save": "no", "write_bandwidth": "1G"}
    assert planned(**many, fsdp="fsdp").memory.checkpoint_bytes == planned(**many).memory.checkpoint_bytes
    assert parts(**many, fsdp="fsdp")["checkpoints"] == pytest.approx(parts(**many)["checkpoints"] / 8)


def test_the_plan_shows_each_part_with_its_interval_and_the_disk_as_an_assumption() -> None:
    plan = planned(eval_every="100", checkpoint_every="250", runtime="compiled")
    text = summary(plan, None)
    table = text.partition("of the run  ")[2].partition("Cost")[0]
    for name in ("1,000 steps", "10 evaluations", "12 checkpoints", "start", "compilation"):
        assert f"\n  {name} " in table
    assert "write_bandwidth" in text.partition("Defaults used")[2]
    told = planned(eval_every="100", write_bandwidth="2G")
    assert told.config.hardware.write_bandwidth == 2e9
    assert not any(a.key == "write_bandwidth" for a in told.config.provenance.assumptions)
    assert told.time.sources["checkpoints"] == "--write-bandwidth"


def test_an_unknown_speed_leaves_the_run_unknown() -> None:
    time = planned(gpu="cpu", eval_every="10").time
    assert time.seconds.value is None and time.parts == {} == time.sources


def test_each_server_reads_its_own_data() -> None:
    slow = {"write_bandwidth": "1k", "accumulation": "1"}
    assert parts(**slow, gpus="64")["data"] == pytest.approx(parts(**slow, gpus="8")["data"], rel=0.01)


def test_a_pipeline_fills_before_its_first_evaluation_and_compiles_its_own_blocks() -> None:
    staged = {"model": "llama-3-8b", "gpus": "8", "pp": "4", "micro_batch": "1", "accumulation": "8", "seq": "4096"}
    plan = planned(**staged, eval_every="100", eval_tokens="65536")  # 16 sequences, 8 for each of two replicas
    once = ("optimizer", "all-reduce", "stragglers", "pipeline bubble")
    micro = sum(seconds for name, seconds in plan.throughput.parts.items() if name not in once) / 8
    share = plan.flops.per_token_model / 3 / plan.flops.per_token_hardware
    assert plan.time.parts["evaluations"] == pytest.approx(10 * (8 + 4 - 1) * micro * share)
    whole = {name: text for name, text in staged.items() if name != "pp"}
    compiled, cut = (parts(**texts, runtime="compiled")["compilation"] for texts in (whole, staged))
    blocks = rules("time")["run"]["compile"]["cold"]["block"]
    assert compiled - cut == pytest.approx((32 - 8) * blocks)
