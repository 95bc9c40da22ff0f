"""The worked answers of the training chain and of the schedules, through the library.

Each test names its row; the numbers are recomputed by hand in float64, not by this library.
"""

from __future__ import annotations

import pytest

from planner import presets
from planner.config.run import CPU, RunConfig
from planner.counts.run import rate_at
from planner.formulas import batch, cost, flops, memory, throughput
from planner.formulas.formula import FORMULAS
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.units import HOUR, TERA

AS_OF = "2026-11-21"


def drafted(**flags: str) -> RunConfig:
    return draft(Flags(**flags), as_of=AS_OF, version="test")


def planned(**flags: str) -> Plan:
    return estimate(drafted(**flags))


def test_1_1_training_flops() -> None:
    assert flops.training_flops_6nd(125e6, 10e9) == 7.5e18


def test_1_2_hours_at_an_achieved_rate() -> None:
    seconds = throughput.seconds_from_rate(7.5e18, 8, 150 * TERA)
    assert seconds / HOUR == pytest.approx(1.7361, abs=5e-5)
    assert cost.gpu_seconds(seconds, 8) / HOUR == pytest.approx(13.889, abs=5e-4)


def test_1_3_cost() -> None:
    assert cost.run_cost(6250.0 * 8, 2.5 / HOUR) == pytest.approx(34.72, abs=5e-3)


def test_1_4_rule_of_14_bytes() -> None:
    assert memory.rule_14_bytes(125_000_000) == 1_750_000_000


def test_1_5_steps_are_whole() -> None:
    assert batch.whole_steps(10_000_000_000, 512 * 1024) == 19_073
    assert pytest.approx(19_073.486, abs=5e-4) == 10e9 / (512 * 1024)


def test_1_6_and_1_17_effective_batch() -> None:
    assert batch.sequences_per_step(4, 8, 4) == 128
    assert batch.sequences_per_step(8, 2, 4) == 64


def test_1_7_tokens_per_step() -> None:
    assert batch.tokens_per_step(batch.sequences_per_step(2, 16, 8), 4096) == 1_048_576


def test_1_8_steps_of_a_trillion_tokens() -> None:
    assert batch.whole_steps(10**12, 10**6) == 1_000_000
    assert batch.whole_steps(10**12, 2**20) == 953_674


def test_1_9_warmup_tokens_and_their_share() -> None:
    tokens = batch.warmup_tokens(2000, 4_194_304)
    assert tokens == 8_388_608_000
    assert 100 * tokens / 15e12 == pytest.approx(0.0559, abs=5e-5)


def test_1_10_and_1_11_states_of_7b() -> None:
    assert memory.optimizer_bytes(7 * 10**9, 8) == 56 * 10**9
    needed = memory.rule_14_bytes(7 * 10**9)
    assert needed == 98 * 10**9
    assert needed > presets.gpu("a100-80gb").marketing_memory_bytes


def test_1_12_7b_on_a_trillion_tokens() -> None:
    total = flops.training_flops_6nd(7e9, 1e12)
    assert total == 4.2e22
    hours = throughput.seconds_from_rate(total, 1, 150 * TERA) / HOUR
    assert round(hours) == 77_778
    assert round(cost.run_cost(hours * HOUR, 2.5 / HOUR)) == 194_444


def test_1_13_peak_rate_of_125m() -> None:
    config = drafted(params="125M", tokens="10B")
    assert config.schedule.peak_lr == 6e-4
    said = next(a for a in config.provenance.assumptions if a.key == "peak_lr")
    for published in ("6.4e-4", "1.36e-3", "3.5e-3"):
        assert published in said.source


def test_1_14_left_on_an_80_gb_card() -> None:
    assert memory.left_bytes(80 * 10**9, memory.rule_14_bytes(125_000_000)) == 78.25e9


def test_1_15_warmup_share() -> None:
    assert 100 * batch.warmup_share(2000, 19_073) == pytest.approx(10.49, abs=5e-3)


def test_1_16_zero_2_over_two_gpus() -> None:
    assert memory.sharded_state_bytes(7 * 10**9, 2, 12, 2) == 56e9
    assert memory.sharded_state_bytes(7 * 10**9, 2, 14, 2) == 63e9


def test_1_18_price_of_a_large_run() -> None:
    assert cost.run_cost(30.84e6 * HOUR, 2.5 / HOUR) == pytest.approx(77.1e6)


def test_1_19_windows_of_100_tokens() -> None:
    assert batch.sliding_windows(100, 8, 1) == 92
    assert batch.whole_sequences(100, 8) == 12


def test_section_1_through_one_plan() -> None:
    plan = planned(params="125M", tokens="10B", gpu="a100-80gb", gpus="8", tflops="150", price_per_gpu_hour="2.5")
    assert plan.flops.training_6nd == 7.5e18
    assert plan.time.seconds.map(lambda seconds: seconds / HOUR).value == pytest.approx(1.7361, abs=5e-5)
    assert plan.time.gpu_hours.value == pytest.approx(13.889, abs=5e-4)
    assert plan.cost.usd.value == pytest.approx(34.72, abs=5e-3)
    assert plan.memory.rule_14_bytes == 1_750_000_000
    assert plan.batch.steps == 19_073
    assert plan.nominal_parameters == 125_000_000
    assert plan.parameters.total == 124_439_808
    assert plan.throughput.basis == "given"


# --- schedules ----------------------------------------------------------------------------------------------------


def scheduled(peak: str, floor: str, warmup: str, steps: str) -> RunConfig:
    return drafted(
        params="125M", steps=steps, peak_lr=peak, min_lr=floor, warmup_steps=warmup, gpu=CPU, micro_batch="1"
    )


def test_2_1_and_2_2_linear_warmup() -> None:
    assert rate_at(scheduled("3e-4", "0", "2000", "10000"), 500) == pytest.approx(7.5e-5, rel=1e-12)
    assert rate_at(scheduled("1e-4", "0", "1000", "10000"), 500) == pytest.approx(5e-5, rel=1e-12)


def test_2_3_cosine_half_way() -> None:
    assert rate_at(scheduled("3e-4", "3e-5", "2000", "10000"), 6000) == pytest.approx(1.65e-4, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.0), (1000, 1.5e-4), (2000, 3e-4), (50_000, 1.5481e-4), (100_000, 0.0)]
)
def test_2_4_cosine_to_zero(step: int, rate: float) -> None:
    assert rate_at(scheduled("3e-4", "0", "2000", "100000"), step) == pytest.approx(rate, rel=1e-4, abs=1e-18)


def test_2_5_both_branches_give_the_peak() -> None:
    import sympy

    from planner.formulas.schedule import cosine_rate, warmup_rate

    warmup, steps, peak, floor = sympy.symbols("W T p f", positive=True)
    assert sympy.simplify(warmup_rate(warmup, warmup, peak) - peak) == 0
    assert sympy.simplify(cosine_rate(warmup, warmup, steps, peak, floor) - peak) == 0
    assert sympy.simplify(cosine_rate(steps, warmup, steps, peak, floor) - floor) == 0


@pytest.mark.parametrize(
    ("step", "rate"),
    list(zip(range(10, 100, 10), [3.000, 2.913, 2.661, 2.275, 1.802, 1.298, 0.8250, 0.4392, 0.1874], strict=True)),
)
def test_2_8_cosine_table(step: int, rate: float) -> None:
    found = rate_at(scheduled("3e-4", "1e-5", "10", "100"), step)
    assert found * 1e4 == pytest.approx(rate, abs=5e-4)


def test_2_9_past_the_end_the_last_value_stays() -> None:
    config = scheduled("3e-4", "3e-5", "10", "100")
    assert rate_at(config, 250) == rate_at(config, 100) == pytest.approx(3e-5)


def test_2_10_updates_count_from_one_and_edges_are_legal() -> None:
    config = scheduled("3e-4", "3e-5", "10", "100")
    assert rate_at(config, 0) == 0
    assert rate_at(config, 1) == pytest.approx(3e-5)
    without = scheduled("3e-4", "3e-5", "0", "100")
    assert rate_at(without, 1) < 3e-4 and rate_at(without, 0) == 3e-4
    only = scheduled("3e-4", "3e-5", "100", "100")
    assert rate_at(only, 100) == 3e-4
    assert drafted(params="125M", tokens="10B").schedule.min_lr == pytest.approx(6e-5, rel=1e-12)


def test_5_2_one_block_has_12_h_squared_weights() -> None:
    assert FORMULAS["block_linear_parameters"].function(768, 768, 768, 3072, 2) == 7_077_888 == 12 * 768**2
