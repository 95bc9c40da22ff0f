"""Closed forms of a GPT-2's memory, worked out by hand and measured with PyTorch 2.13, against the simulation.

The measured program was another one than the reference model: `nn.LayerNorm` and a head whose bf16 logits keep their
name, gradients and state without clipping, token ids not counted beside the optimizer. Every difference that follows
from that is an exact number of bytes here, with its reason; nothing is left over.

Symbols, per device: n tokens of a micro-batch, h hidden, a heads, f ffn, V vocabulary, L blocks, N parameters.
"""

from __future__ import annotations

from typing import Any

import pytest

from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import resolve
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.eager.autograd import Autograd
from planner.memory.eager.context import simulation_context
from planner.memory.eager.graph import Storage
from planner.memory.ledger import Ledger
from planner.memory.micro_batch import simulate_micro_batch
from planner.memory.phases import simulate_run

L, h, a, f, V, T = 12, 768, 12, 3072, 50304, 1024
n = 8 * T
N, LINEAR = 124_373_760, 123_568_128
GAINS = (2 * L + 1) * h  # parameters of the norms
TENSORS = 4 * L + 2 * L + 3  # of which AdamW keeps a step count each
COUNTERS = 4 * TENSORS
SCALARS = 8  # the loss and what it is divided by, or its gradient
IDS = 16 * n  # token ids and targets
POSITIONS = 8 * T
IO = IDS + POSITIONS
CASTS = 2 * LINEAR  # of the linear weights, held from forward to backward
BLOCK = 20 * h + 4 * f + 16 + 4 * a  # bytes that a block saves per token, residual stream in fp32
BLOCK_BF16 = 16 * h + 4 * f + 16 + 4 * a
ENDS = 4 * h + 8 + 2 * h  # input and statistics of the last norm, input of the head


def config_of(recipe: str = "mixed-bf16", runtime: str = "autocast", **changes: Any) -> RunConfig:
    flags = Flags(model="gpt2", vocab=str(V), seq=str(T), micro_batch="8", accumulation="1", steps="10", recipe=recipe)
    values = draft(flags, as_of="2026-11-21", version="test").model_dump()
    values["model"] |= {"biases": "none", "norm_parameters": "gain"}
    values["training"]["runtime"] = runtime
    values["optimizer"] |= {"clip_norm": None, "implementation": changes.pop("implementation", "foreach")}
    for key, value in changes.items():
        values["model" if key in values["model"] else "training"][key] = value
    return RunConfig.model_validate(values)


def peaks(**changes: Any) -> dict[str, int]:
    return {p.phase: p.peak_bytes for p in simulate_run(resolve(config_of(**changes))).phases}


def gradient_norms(itemsize: int) -> int:
    """A norm of each tensor, the same in a row, and that of all: computed in every step, clipped or not."""
    return itemsize * (2 * parameters_of(config_of().model).tensors + 1)


def test_the_model_is_the_measured_one() -> None:
    counts = parameters_of(config_of().model)
    assert (counts.total, counts.linear, counts.tensors) == (N, LINEAR, TENSORS)
    assert BLOCK == 27_712 and ENDS == 4_616


def test_state() -> None:
    at = simulate_run(resolve(config_of())).phases[-1].at_peak
    assert at["weights"] + at["optimizer"] == 12 * N + COUNTERS
    assert 12 * N == 1_492_485_120  # measured 1,492,485,424: 76 counters, ours are 75


def test_forward() -> None:
    """Beside the head's logits lives the fp32 output of the last norm, 4h."""
    measured_form = 12 * N + CASTS + n * (L * BLOCK + ENDS + 4 * h + 10 * V) + IO
    assert measured_form == 8_647_844_864
    # our model keeps no name of the bf16 logits while log-probabilities are made: 2V less
    ours = measured_form - 2 * V * n
    assert peaks()["forward_end"] == ours + COUNTERS + SCALARS


def test_loss_backward() -> None:
    """Log-probabilities, the gradient of nll_loss and that of the logits: 12V."""
    form = 12 * N + CASTS + n * (L * BLOCK + ENDS + 12 * V) + IO
    found = peaks()["backward_start"]
    assert found == form + COUNTERS + SCALARS == 9_446_860_084  # as measured, to the byte


@pytest.mark.parametrize(
    ("implementation", "form"),
    [
        # the copy of parameters is made for the matrices, then for the gains: AdamW decays the first only
        ("foreach", 20 * N - 4 * GAINS),
        ("for-loop", 16 * N + 8 * V * h),
        ("fused", 16 * N),
    ],
)
def test_optimizer(implementation: str, form: int) -> None:
    measured = {"foreach": 2_487_475_200, "for-loop": 2_299_047_936, "fused": 1_989_980_160}[implementation]
    assert measured == form + (4 * GAINS if implementation == "foreach" else 0)
    # token ids and targets stay, as they do in the trainer's loop
    norms = gradient_norms(4) if implementation == "fused" else 0  # they are gone when the others make their copies
    assert peaks(implementation=implementation)["optimizer_step"] == form + IDS + COUNTERS + norms


def test_first_step_has_no_state() -> None:
    """- 8N; measured 8,451.87 MB."""
    ledger = Ledger()
    ledger.phase("init")
    held = [Storage(ledger, 4 * N, "weights"), Storage(ledger, IDS, "activations")]
    simulate_micro_batch(simulation_context(resolve(config_of())), Autograd(ledger))
    first = {p.phase: p.peak_bytes for p in ledger.phases}["backward_start"]
    del held
    assert first == peaks()["backward_start"] - 8 * N - COUNTERS
    assert round(first / 1e6, 2) == 8_451.87


def test_second_micro_batch_finds_all_gradients() -> None:
    """+ 4N; measured 9,944.355 MB."""
    found = peaks(accumulation=2)["backward_start"]
    assert found == peaks()["backward_start"] + 4 * N
    assert round(found / 1e6, 3) == 9_944.355


STATISTICS = 4 * (2 * L + 1) * n  # ours are fp32; nn.LayerNorm on a processor keeps them in bf16


def test_bf16_weights() -> None:
    """Measured without `.float()` of the logits: 4V in forward and 6V in the loss's backward; ours have 8V and 12V."""
    ends = 2 * h + 8 + 2 * h
    found = peaks(recipe="pure-bf16", runtime="eager")
    kept = 6 * N + n * (L * BLOCK_BF16 + ends) + IO + COUNTERS // 2 + SCALARS
    # the step counts of bf16 AdamW are fp32 all the same
    kept += COUNTERS // 2
    assert found["forward_end"] == kept + n * 8 * V
    assert found["backward_start"] == kept + n * 12 * V
    assert round((found["forward_end"] - 4 * V * n - STATISTICS) / 1e6, 2) == 4_841.37
    assert round((found["backward_start"] - 6 * V * n - STATISTICS) / 1e6, 2) == 5_665.55


@pytest.mark.parametrize(
    ("implementation", "measured"), [("foreach", 1_243.74), ("for-loop", 1_149.52), ("fused", 994.99)]
)
def test_bf16_optimizer(implementation: str, measured: float) -> None:
    form = {"foreach": 10 * N - 2 * GAINS, "for-loop": 8 * N + 4 * V * h, "fused": 8 * N}[implementation]
    found = peaks(recipe="pure-bf16", runtime="eager", implementation=implementation)["optimizer_step"]
    assert found == form + IDS + COUNTERS + (gradient_norms(2) if implementation == "fused" else 0)
    whole = form + (2 * GAINS if implementation == "foreach" else 0)
    assert round(whole / 1e6, 2) == measured


# bytes per token that autograd saves in one block, by operator


def saved_per_token(**changes: Any) -> dict[str, float]:
    """Of one block, by module; the casts of weights taken off."""
    config = config_of(**changes)
    one, two = (
        simulate_run(resolve(config.model_copy(update={"model": config.model.model_copy(update={"layers": k})})))
        for k in (1, 2)
    )
    lines = {key: two.saved_by_operator[key] - one.saved_by_operator.get(key, 0) for key in two.saved_by_operator}
    if config.training.recipe != "pure-bf16":
        shape = config.model
        wide = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        gated = shape.mlp in ("swiglu", "geglu")
        casts = {
            "blocks.attention.qkv": h * wide,
            "blocks.attention.proj": shape.heads * shape.head_dim * h,
            "blocks.mlp.up": h * f,
            "blocks.mlp.down": f * h,
            "blocks.mlp.gate": h * f if gated else 0,
        }
        lines = {key: size - 2 * casts.get(key, 0) for key, size in lines.items()}
    return {key.removeprefix("blocks."): size / n for key, size in lines.items() if size}


GPT = {
    "attention_norm": 2 * h + 8,  # the residual stream, and two fp32 statistics
    "attention.qkv": 2 * h,  # output of the norm
    "attention": 6 * h + 2 * h + 4 * a,  # one storage of q, k, v; output and log-sum-exp
    "mlp_norm": 2 * h + 8,
    "mlp.up": 2 * h,
    "mlp": 2 * f,
    "mlp.down": 2 * f,
}
WIDE = {"attention_norm": 4 * h + 8, "mlp_norm": 4 * h + 8}  # the residual stream in fp32


def test_saved_bytes_of_a_block() -> None:
    bf16 = saved_per_token(recipe="pure-bf16", runtime="eager")
    assert bf16 == GPT and sum(bf16.values()) == BLOCK_BF16
    for runtime in ("autocast", "eager"):  # one casts by itself, the other is told to: the same bytes
        assert saved_per_token(runtime=runtime) == GPT | WIDE
    assert sum((GPT | WIDE).values()) == BLOCK


KEYS = 3 * 64  # three key-value heads


def test_saved_bytes_of_a_gated_block_with_rotary_embedding_and_grouped_queries() -> None:
    """RMSNorm with one statistic, SwiGLU 8f, q and k turned into copies beside the storage that v keeps alive."""
    llama: dict[str, Any] = {"norm": "rmsnorm", "norm_parameters": "gain", "mlp": "swiglu", "position": "rotary"}
    found = saved_per_token(recipe="pure-bf16", runtime="eager", kv_heads=3, **llama)
    assert found["attention_norm"] == found["mlp_norm"] == 2 * h + 4
    assert found["attention"] == 2 * (h + 2 * KEYS) + 2 * (h + KEYS) + 2 * h + 4 * a
    assert sum(size for name, size in found.items() if name.startswith("mlp") and name != "mlp_norm") == 2 * h + 8 * f
    assert found["attention.qkv"] == 2 * h


def test_saved_bytes_of_other_activations_and_ways() -> None:
    """ReLU² keeps 4f as GELU does; a checkpointed block keeps its input; math attention its scores."""
    plain = saved_per_token(recipe="pure-bf16", runtime="eager")
    relu2 = saved_per_token(recipe="pure-bf16", runtime="eager", mlp="relu2")
    assert relu2["mlp"] + relu2["mlp.down"] == plain["mlp"] + plain["mlp.down"] == 4 * f
    assert sum(saved_per_token(recipe="pure-bf16", runtime="eager", activation_checkpointing="full").values()) == 2 * h
    assert sum(saved_per_token(activation_checkpointing="full").values()) == 4 * h


def test_saved_bytes_of_the_ends() -> None:
    """Targets are kept by the loss, token ids by the embedding, one number by the sum of all weights of classes."""
    saved = simulate_run(resolve(config_of(recipe="pure-bf16", runtime="eager"))).saved_by_operator
    assert saved["norm"] == n * (2 * h + 8) and saved["head"] == n * 2 * h
    assert saved["loss"] == n * (4 * V + 8) + 4
    assert saved["embedding"] == 8 * n and saved["position"] == 8 * T
