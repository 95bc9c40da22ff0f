"""A measured profile of a GPU: a source of the same model's constants, so that what the model prices it prices too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import Plan, estimate
from planner.step_time.bounds import bounds_of
from tests.planner.step_time.test_options_priced import PRICED
from tests.planner.step_time.test_profile import made_up

WORDS = {"model": "gpt2", "steps": "10", "gpu": "h200", "micro_batch": "4", "accumulation": "1", "runtime": "eager"}
WORDS |= {"vocab": "50304", "seq": "1024"}
# these choose the numbers themselves, or another card or recipe; the rest are priced with a profile
NOT_OF_A_PROFILE = {"tflops", "mfu", "tokens_per_second", "gpu", "software", "layers", "hidden", "heads", "head_dim"}
NOT_OF_A_PROFILE |= {"ffn", "vocab", "seq", "micro_batch", "accumulation", "kv_heads", "gpus_per_node", "dp", "nodes"}
NOT_OF_A_PROFILE |= {"pad_vocab"}


def planned(profile: dict[str, Any] | None, **texts: str) -> Plan:
    config: RunConfig = draft(Flags(**WORDS | texts), as_of="2026-11-27", version="test")
    return estimate(config.model_copy(update={"profile": profile}))


def seconds(profile: dict[str, Any] | None, **texts: str) -> float:
    found = planned(profile, **texts).throughput
    assert found.basis == ("datasheet" if profile is None else "profile"), (texts, found.why_unknown)
    assert found.step_seconds.value is not None
    return found.step_seconds.value


@pytest.mark.parametrize("name", sorted(set(PRICED) - NOT_OF_A_PROFILE))
def test_what_a_data_sheet_prices_a_profile_prices_too(name: str) -> None:
    beside, value = PRICED[name]
    assert seconds(made_up(), **beside) != seconds(made_up(), **beside | {name: value})


SLOWER = [
    {"dropout": "0.1"}, {"attention": "math"}, {"document_masking": "yes"}, {"mlp": "gelu-written-out"},
    {"mlp": "relu2"}, {"qk_norm": "head"}, {"norm_placement": "both"}, {"position": "rotary"}, {"loss_kind": "chunked"},
    {"optimizer_implementation": "foreach"}, {"optimizer": "muon"}, {"activation_checkpointing": "full"},
    {"activation_checkpointing": "selective"}, {"activation_checkpointing": "offloaded"}, {"clip_value": "1"},
    {"gpus": "8"},
]  # fmt: skip


@pytest.mark.parametrize("texts", SLOWER, ids=lambda texts: " ".join(texts.values()))
def test_what_executes_or_moves_more_takes_longer_with_a_profile(texts: dict[str, str]) -> None:
    assert seconds(made_up(), **texts) > seconds(made_up())


def test_a_compiled_step_moves_less_and_launches_less() -> None:
    slow_host = made_up()
    slow_host["kernels"]["launch"] = {"fp32": [[1, 0.1]]}
    eager, compiled = (planned(slow_host, runtime=runtime).throughput for runtime in ("eager", "compiled"))
    for part in ("norms", "activations", "casts", "residual and copies", "head and loss", "launch overhead"):
        assert compiled.parts[part] < eager.parts[part], part
    assert compiled.parts["matrix products"] == eager.parts["matrix products"]


def test_every_other_block_recomputed_takes_half_as_much_more() -> None:
    full = {"activation_checkpointing": "full"}
    none, half, whole = (
        seconds(made_up(), **texts) for texts in ({}, full | {"activation_checkpointing_every": "2"}, full)
    )
    assert half - none == pytest.approx((whole - none) / 2, rel=0.02)


def test_the_less_its_tables_hold_of_a_step_the_wider_is_its_interval() -> None:
    def width(**texts: str) -> float:
        step = planned(made_up(), **texts).throughput.step_seconds
        assert step.high is not None and step.value is not None
        return step.high / step.value

    assert width() < 1.16  # noise of 2 %, and the model's 10 %
    assert width() < width(optimizer="muon") < 1.62 and width() < width(attention="math") < 1.62
    assert width() < width(sliding_window="128") < 1.62 and width() < width(document_masking="yes") < 1.62
    assert width() < width(runtime="compiled") < 1.62 and width() < width(gpus="64", model="gpt2-xl") < 1.62


def test_an_odd_vocabulary_is_slower_on_a_gpu_and_not_on_a_processor() -> None:
    """The tables have multiples of 8 only, as calibrate times them."""

    def head(vocab: str, gpu: str) -> float:
        return planned(made_up(), vocab=vocab, gpu=gpu).throughput.parts["head and loss"]

    assert head("50257", "h200") > 1.5 * head("50264", "h200")
    assert head("50257", "cpu") == pytest.approx(head("50264", "cpu"), rel=0.001)


def test_a_table_that_ends_far_below_a_steps_sizes_is_no_rate() -> None:
    """As on a hurried day: of one gradient the small products were timed. Another has as many FLOPs."""
    profile = made_up()
    few = [[16, 64, 64, 1e-3], [16, 64, 128, 1e-3]]
    profile["kernels"]["gemm_input_gradient"] = profile["kernels"]["gemm_input_gradient"] | {"bf16": few}
    whole, cut = planned(made_up()).throughput, planned(profile).throughput
    assert cut.basis == "profile"
    assert cut.parts["matrix products"] == pytest.approx(whole.parts["matrix products"])
    step, wide = whole.step_seconds, cut.step_seconds
    assert step.high and step.value and wide.high and wide.value
    assert wide.high / wide.value > step.high / step.value + 0.1  # what stands in for it is doubtful


def test_a_loop_over_tensors_is_the_hosts_on_a_gpu() -> None:
    """Its kernels are the same work; a call for each of 148 tensors is added, as beside a data sheet's rates."""

    def update(way: str) -> float:
        profile = made_up()
        profile["kernels"]["adamw"] = {"fp32": [[1, 1e-9], [2**30, 1e-3]]}
        profile["kernels"]["clip"] = profile["kernels"]["adamw"]
        return planned(profile, optimizer_implementation=way).throughput.parts["optimizer"]

    assert update("for-loop") > 148 * 147e-6 > update("fused")


def test_every_part_has_its_bound() -> None:
    plan = planned(made_up(), gpus="8")
    assert plan.throughput.bounds == bounds_of(plan.throughput.parts, plan.config)
    assert plan.throughput.bounds["norms"] == "memory bandwidth"


def of_older_version() -> dict[str, Any]:
    """A profile of schema 1, which has no launches apart."""
    profile = made_up()
    del profile["kernels"]["launch"]
    return profile


def cut_short(kernel: str) -> dict[str, Any]:
    """As one H100 gave it: the time was over after the smallest size of this kernel in bf16."""
    profile = made_up()
    profile["kernels"][kernel] = profile["kernels"][kernel] | {"bf16": profile["kernels"][kernel]["bf16"][:1]}
    return profile


@pytest.mark.parametrize(
    "profile, texts, why",
    [
        (made_up(), {"recipe": "mixed-fp16"}, "no kernels for the recipe mixed-fp16"),
        (of_older_version(), {}, "small kernels hold the host's launches"),
        (cut_short("attention_forward"), {}, "was cut short"),
        (cut_short("gemm_weight_gradient"), {}, "was cut short"),
        (made_up(), {"attention": "flash-only"}, 'attention_kernel = "flash-only" on h200 was not measured'),
    ],
    ids=["another type", "an older profile", "attention of one size", "a product of one size", "another kernel"],
)
def test_what_was_not_measured_is_left_to_the_published_specs(
    profile: dict[str, Any], texts: dict[str, str], why: str
) -> None:
    found, without = planned(profile, **texts).throughput, planned(None, **texts).throughput
    assert found.parts == without.parts and found.basis == without.basis != "profile"
    assert why in found.why_unknown or found.basis == "datasheet"


def test_the_harvested_profile_of_an_h100_predicts_what_its_tables_hold() -> None:
    """Its tables in fp32 are whole: a step took 162 ms on that card. In bf16 they are cut short, and left aside."""
    folder = Path(__file__).parents[3] / "benchmarks/results/gpu-h100-2026-11-28"
    profile = json.loads((folder / "profile.json").read_text())
    measured = json.loads((folder / "steps.json").read_text())["rows"]["fp32"]
    words = {name: value for name, value in measured["options"].items() if name not in WORDS}
    words |= {"gpu": "h100-80gb", "micro_batch": measured["options"]["micro_batch"]}
    found = planned(profile, **words).throughput
    assert found.basis == "profile" and found.step_seconds.value is not None
    assert found.step_seconds.value == pytest.approx(measured["measured"]["step_seconds"], rel=0.1)
    assert planned(profile, gpu="h100-80gb").throughput.basis == "datasheet"


def test_a_card_without_specs_stays_unknown_and_both_reasons_are_said() -> None:
    found = planned(of_older_version(), gpu="v100-32gb").throughput
    assert found.basis == "unknown"
    assert "launches" in found.why_unknown and "no peak in bf16" in found.why_unknown


def test_several_processors_have_no_links_in_a_profile() -> None:
    found = planned(made_up(), gpu="cpu", gpus="2").throughput
    assert found.basis == "unknown" and "links" in found.why_unknown
