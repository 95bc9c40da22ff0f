"""The counts of a config are computed once per plan, and agree with each other."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.analysis.changes import every_change
from planner.analysis.findings import findings_with_remedies
from planner.analysis.fitting import largest_change, what_fits
from planner.config.run import RunConfig
from planner.counts.run import gpu_of, moments_dtype, recipe_of, resolve, steps_of, tokens_per_step
from planner.errors import ConfigError, UnknownNameError
from planner.formulas import batch
from planner.formulas.recording import recorded
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.report.plan import summary
from planner.units import CHOSEN, format_count


def config_of(**words: str | None) -> RunConfig:
    flags = {"model": "gpt2", "tokens": "1B", "gpu": "a100-80gb", "gpus": "8", "accumulation": "4"} | words
    return draft(Flags(**flags), as_of="2026-11-21", version="test")


def test_a_plan_computes_its_steps_and_tokens_once() -> None:
    config = config_of(micro_batch="8")
    _, calls = recorded(lambda: estimate(config))
    made = Counter(call.formula.name for call in calls)
    for name in ("sequences_per_step", "tokens_per_step", "whole_steps", "trained_tokens"):
        assert made[name] == 1, (name, made[name])


def test_moments_have_the_chosen_type_else_the_recipes_else_that_of_the_weights() -> None:
    def found(**words: str) -> str | None:
        config = config_of(**words)
        return moments_dtype(config, recipe_of(config))

    assert found(recipe="mixed-bf16") is None
    assert found(recipe="fp8-deepseek-v3", gpu="h100-80gb") == "bf16"
    assert found(recipe="pure-bf16", optimizer="adamw", state_dtype="fp32") == "fp32"


def questions(compute: Callable[[], object]) -> Counter[str]:
    """How often `compute` asks a config for what `Resolved` has, by whatever name it imported the function."""
    by_code = {each.__code__: each.__name__ for each in (resolve, gpu_of, recipe_of, steps_of, tokens_per_step)}
    found: Counter[str] = Counter()

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in by_code:
            found[by_code[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        compute()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("flags", [{}, {"runtime": "compiled", "loss_kind": "chunked"}, {"optimizer": "muon"}])
def test_a_plan_resolves_its_config_once(flags: dict[str, str]) -> None:
    config = config_of(micro_batch="8", **flags)
    assert questions(lambda: estimate(config, replay=True)) == {"resolve": 1, "gpu_of": 1, "recipe_of": 1}


def test_findings_and_changes_that_fit_resolve_nothing_again() -> None:
    plan = estimate(config_of(micro_batch="64", accumulation="2", gpu="l4"), replay=True)
    asked = questions(lambda: (findings_with_remedies(plan), what_fits(plan.run), largest_change(plan.run, 2**34)))
    assert plan.memory.fits is False and not asked


def test_a_step_computed_another_way_has_the_same_answers() -> None:
    run = resolve(config_of(micro_batch="8"))
    for change in every_change(run):
        assert change.run == resolve(change.run.config)


@pytest.mark.parametrize("length", [{"tokens": "1B"}, {"tokens": None, "steps": "777"}])
def test_the_answers_agree(length: dict[str, str]) -> None:
    config = config_of(micro_batch="8", **length)
    run = resolve(config)
    assert run.gpu is not None and run.gpu.id == "a100-80gb" and run.recipe.id == config.training.recipe
    assert run.sequences_per_step == 8 * 4 * 8 and run.tokens_per_step == 256 * config.training.seq
    assert (run.steps, run.tokens_per_step) == (steps_of(config), tokens_per_step(config))
    assert run.trained_tokens == run.steps * run.tokens_per_step
    assert run.requested_tokens == (config.training.tokens or run.trained_tokens)
    assert run.nominal_parameters == run.parameters.total == 124_439_808


def test_a_processor_is_no_card_and_an_unknown_card_is_refused() -> None:
    config = config_of(micro_batch="8")
    hardware = config.hardware
    assert resolve(config.model_copy(update={"hardware": hardware.model_copy(update={"gpu": "cpu"})})).gpu is None
    with pytest.raises(UnknownNameError):
        resolve(config.model_copy(update={"hardware": hardware.model_copy(update={"gpu": "h1000"})}))


@pytest.mark.parametrize("model", ["mixtral-8x7b", "qwen3-30b-a3b", "olmoe-1b-7b", "deepseek-v2-lite"])
def test_the_n_of_a_mixture_of_experts_is_what_a_token_uses(model: str) -> None:
    run = resolve(config_of(model=model, gpu="h100-80gb", micro_batch="1"))
    assert run.compute_parameters == run.parameters.active < run.parameters.total == run.nominal_parameters
    plan = estimate(config_of(model=model, gpu="h100-80gb", micro_batch="1", tflops="100"))
    assert plan.flops.training_6nd == 6 * run.parameters.active * run.requested_tokens
    # by 6·N·D at 100 TFLOP/s on each of 8 cards
    seconds = 6 * run.parameters.active * run.trained_tokens / (8 * 100e12)
    assert plan.time.seconds.value == pytest.approx(seconds, rel=1e-12)
    shown = summary(plan, None)
    active, total = format_count(run.parameters.active), format_count(run.parameters.total)
    assert f"N = {active} active of {total} parameters" in shown
    assert f"{total} parameters ({active} active)" in shown.splitlines()[0]


def test_the_n_of_a_dense_model_is_the_number_typed() -> None:
    run = resolve(config_of(model=None, params="125M"))
    assert run.compute_parameters == run.nominal_parameters == 125_000_000 != run.parameters.total


@given(st.integers(1, 10**18), st.integers(1, 10**12))
def test_whole_steps_hold_the_tokens_to_a_hundredth(tokens: int, per_step: int) -> None:
    """Rounded up where dropping the rest would drop more than 1 %, and never a whole step too many."""
    steps = batch.whole_steps(tokens, per_step)
    assert steps in (tokens // per_step, -(-tokens // per_step))
    assert 100 * steps * per_step >= 99 * tokens
    if tokens >= per_step and 100 * (tokens // per_step) * per_step >= 99 * tokens:
        assert steps == tokens // per_step
    assert batch.whole_steps(tokens + 1, per_step) >= steps


@pytest.mark.parametrize(
    ("of_a_step", "steps"),
    [(1.0, 1), (1.005, 1), (1.02, 2), (1.5, 2), (60.9, 61), (60.3, 60), (99.5, 99), (100.999, 100)],
)
def test_everything_about_a_short_run_comes_from_its_whole_steps(of_a_step: float, steps: int) -> None:
    per_step = 16 * 1024 * 4 * 8
    plan = estimate(config_of(micro_batch="16", tokens=str(round(of_a_step * per_step)), price_per_gpu_hour="2"))
    assert plan.batch.steps == steps and plan.tokens.trained == steps * per_step
    assert plan.tokens.requested == round(of_a_step * per_step)
    seconds, one = plan.time.seconds.value, plan.throughput.step_seconds.value
    assert (
        seconds is not None and one is not None and seconds == pytest.approx(sum(plan.time.parts.values()), rel=1e-12)
    )
    assert plan.time.parts["steps"] == pytest.approx(steps * one, rel=1e-12) and plan.time.times["steps"] == steps
    assert plan.cost.usd.value == pytest.approx(2 * 8 * seconds / 3600, rel=1e-12)
    if plan.tokens.trained != plan.tokens.requested:
        assert f"tokens trained of {format_count(plan.tokens.requested, CHOSEN)} asked for" in summary(plan, None)


@pytest.mark.parametrize("kernel", ["flash-only", "cudnn"])
def test_a_kernel_of_16_bits_is_refused_under_fp32_on_a_gpu(kernel: str) -> None:
    fp32 = {"params": "125M", "steps": "10", "recipe": "fp32", "attention": kernel}
    with pytest.raises(ConfigError, match="with the recipe fp32"):
        resolve(draft(Flags(**fp32, gpu="h100-80gb"), as_of="2026-11-21", version="test"))
    resolve(draft(Flags(**fp32 | {"attention": "efficient"}, gpu="h100-80gb"), as_of="2026-11-21", version="test"))
