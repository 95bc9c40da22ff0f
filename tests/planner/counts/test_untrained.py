"""Parts of an architecture that the reference trainer does not have: counted in full, memory unknown, not run."""

from __future__ import annotations

from typing import Any

import pytest

from planner.analysis.findings import findings
from planner.config.run import RunConfig
from planner.counts.flops import keys_by_block, mask_entries_per_sequence
from planner.counts.parameters import parameters_of
from planner.counts.tensors import named_tensors, parameter_tensors
from planner.counts.untrained import refuse_untrained, untrained_parts
from planner.errors import ConfigError
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from planner.report.plan import summary

MOE = {"experts": 4, "top_k": 2, "expert_ffn": 48}
PARTS: dict[str, tuple[dict[str, Any], int]] = {  # what is changed, and how many parameters more that makes
    "attention sinks": ({"attention_sinks": True}, 4 * 4),
    "attention in chunks": ({"attention_chunk": 64}, 0),
    "a bias of the output head": ({"head_bias": True}, 300),
    "norms of queries and keys with a gain for each head": ({"qk_norm": "each-head"}, 4 * 2 * 4 * 16),
    "a bias of the router": ({"moe": MOE | {"router_bias": True}}, 4 * 4),
    "biases of the experts": ({"moe": MOE | {"expert_biases": True}}, 4 * 4 * (48 + 48 + 64)),
    "a factor of the logits": ({"untrained": "a factor of the logits"}, 0),
}


def config_of(gpu: str = "h100-80gb", **model: Any) -> RunConfig:
    flags = Flags(
        family="llama", layers="4", hidden="64", heads="4", vocab="300", seq="128", micro_batch="2", accumulation="2",
        steps="10", gpu=gpu,
    )  # fmt: skip
    config = draft(flags, as_of="2026-11-21", version="test")
    return RunConfig.model_validate({**dict(config), "model": type(config.model)(**dict(config.model) | model)})


@pytest.mark.parametrize("part", PARTS)
def test_what_the_trainer_lacks_has_no_memory_and_is_not_run(part: str) -> None:
    changed, _ = PARTS[part]
    config = config_of(**changed)
    assert untrained_parts(config.model) == (part,)
    plan = estimate(config, replay=True)
    memory = plan.memory
    assert memory.fits is None and memory.device_used_bytes is None
    assert memory.peak_allocated_bytes.value is None and memory.peak_reserved_bytes.value is None
    found = {f.code: f for f in findings(plan)}
    assert part in found["architecture_not_simulated"].message
    assert "? unknown" in summary(plan, ())
    with pytest.raises(ConfigError, match="does not run") as caught:
        refuse_untrained(config.model)
    assert part in caught.value.why


@pytest.mark.parametrize("part", PARTS)
def test_parameters_are_counted_with_it(part: str) -> None:
    changed, more = PARTS[part]
    model = config_of(**changed).model
    plain = config_of(**({"moe": MOE} if "moe" in changed else {})).model
    counts = parameters_of(model)
    assert counts.total == parameters_of(plain).total + more
    assert counts.linear == parameters_of(plain).linear
    assert counts.total == sum(t.count * t.times for t in parameter_tensors(model))
    assert counts.total == sum(t.count for t in named_tensors(model))
    used = more if "moe" not in changed or part == "a bias of the router" else more // 2
    assert counts.active == parameters_of(plain).active + used


def test_a_model_whose_state_alone_is_too_much_does_not_fit() -> None:
    plan = estimate(config_of(gpu="rtx-4090", attention_sinks=True, hidden=8192, head_dim=2048, ffn=65536, layers=4))
    assert plan.memory.fits is False


def test_the_usual_models_have_all_their_parts() -> None:
    model = config_of().model
    assert untrained_parts(model) == ()
    refuse_untrained(model)


def test_chunks_are_counted_by_their_own_masks() -> None:
    model = config_of(attention_chunk=48, full_attention_every=4).model
    assert keys_by_block(model, 128) == (48, 48, 48, 128)
    full = sum(min(i, 128) for i in range(1, 129))
    chunked = sum(i % 48 + 1 for i in range(128))
    assert mask_entries_per_sequence(model, 128) == full + 3 * chunked
    assert mask_entries_per_sequence(model, 48) == 4 * 48 * 49 // 2
    assert mask_entries_per_sequence(model, 96) == 96 * 97 // 2 + 3 * 2 * (48 * 49 // 2)
