"""What no run can have is refused, at its very edge, from flags and from a file alike."""

from __future__ import annotations

import pytest

from planner.config.run import RunConfig
from planner.errors import ConfigError, InputError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.inputs.impossible import impossibility
from planner.inputs.run_toml import config_from
from planner.plan import estimate
from planner.presets import gpu, gpu_ids


def drafted(**texts: str) -> RunConfig:
    typed = {"model": "gpt2", "tokens": "10B", "gpu": "a100-80gb", **texts}
    return draft(Flags(**typed), as_of="2026-11-21", version="test")


def with_speed(config: RunConfig, flops_rate: float) -> RunConfig:
    return config.model_copy(update={"hardware": config.hardware.model_copy(update={"tflops": flops_rate})})


@pytest.mark.parametrize("name", gpu_ids())
@pytest.mark.parametrize("recipe", ["mixed-bf16", "fp32"])
def test_the_fastest_speed_of_each_card_is_allowed_and_the_next_is_not(name: str, recipe: str) -> None:
    """Between what is allowed and what is refused the causal FLOPs reach the card's peak."""
    config = drafted(gpu=name, recipe=recipe)
    peak = gpu(name).peak_dense_flops.get("fp32" if recipe == "fp32" else "bf16")
    if not peak:
        assert impossibility(with_speed(config, 1e30)) is None
        return
    assert impossibility(with_speed(config, peak * 1.001)) is not None
    fast = with_speed(config, peak * 0.8)
    if impossibility(fast) is None:
        plan = estimate(fast)
        assert plan.throughput.tokens_per_second_per_gpu is not None
        assert plan.throughput.tokens_per_second_per_gpu * plan.flops.per_token_model_causal <= peak


def test_long_sequences_need_more_than_the_rule_says() -> None:
    slow, short = drafted(model="llama-2-7b", seq="131072"), drafted(model="llama-2-7b")
    assert impossibility(with_speed(slow, 200e12)) is not None
    assert impossibility(with_speed(short, 200e12)) is None


def test_a_file_is_refused_as_the_flag_is() -> None:
    with pytest.raises(InputError, match=r"--tflops.*above the dense peak of a100-80gb in bf16, 312 TFLOP/s"):
        drafted(tflops="15000")
    values = with_speed(drafted(), 15e15).model_dump(mode="json")
    with pytest.raises(ConfigError, match=r"run\.toml: hardware\.tflops \(--tflops\): 15 PFLOP/s per GPU is above"):
        config_from(values, "run.toml")


def test_tokens_per_second_are_those_of_all_gpus_up_to_their_peak() -> None:
    eight = {"gpus": "8", "accumulation": "1"}
    most = 8 * 312e12 / estimate(drafted()).flops.per_token_model_causal
    fastest = estimate(drafted(**eight, tokens_per_second=f"{most * 0.999:.2f}")).throughput
    assert fastest.mfu_causal == pytest.approx(0.999) and fastest.tokens_per_second.value == pytest.approx(most * 0.999)
    assert fastest.mfu_6nd is not None and fastest.mfu.value is not None
    assert fastest.mfu_6nd < fastest.mfu_causal < fastest.mfu.value
    with pytest.raises(InputError, match=r"--tokens-per-second.* on 8 GPUs need .* above the dense peak") as caught:
        drafted(**eight, tokens_per_second=f"{most * 1.001:.2f}")
    assert "below 3,130,000 tokens/s" in str(caught.value.remedy)
    with pytest.raises(InputError, match="on one GPU need"):
        drafted(tokens_per_second=f"{most * 0.5:.2f}")


def test_a_step_holds_no_more_than_a_config_can_say() -> None:
    with pytest.raises(
        InputError, match=r"training\.micro_batch \(--micro-batch\) x .* make a step of 1\.02e21 tokens"
    ):
        draft(Flags(model="gpt2", steps="3", micro_batch="1e18", gpu="a100-80gb"), as_of="2026-11-21", version="test")
