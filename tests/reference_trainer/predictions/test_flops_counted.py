"""FLOPs by operator against PyTorch's counter on a CPU: exact, for every option that the model has.

The config says `attention_kernel = "math"`: attention is written out (bmm), counted in full and without flash's own
recomputation. A window is a mask there, and all T^2 scores are made: it is counted apart. The meta device counts the
same, but its kernels are written in Python: there the tests take twice as long.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from planner.config.model import ModelConfig
from planner.config.run import RunConfig, TrainingConfig
from planner.counts.flops import SCORES, VALUES, flops_of, operators_of
from planner.counts.run import resolve
from planner.formulas.flops import mask_entries
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from reference_trainer.measure.measure import build_model
from reference_trainer.model.gpt import GPT
from reference_trainer.model.positions import score_mask
from tests.soak import one_in

MICRO, SEQ = 2, 48
TOKENS = MICRO * SEQ

LLAMA: dict[str, Any] = {"family": "llama", "kv_heads": "2"}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gpt2": ({"family": "gpt2"}, {}),
    "llama": (LLAMA, {}),
    "head-dim-free": (LLAMA | {"head_dim": "48"}, {}),
    "relu": ({"family": "gpt2"}, {"mlp": "relu"}),
    "geglu-tied": (LLAMA, {"mlp": "geglu", "tied_embeddings": True}),
    "no-position": ({"family": "gpt2"}, {"position": "none"}),
    "alibi": ({"family": "gpt2"}, {"position": "alibi"}),
    "qkv-biases": (LLAMA, {"biases": "qkv"}),
    "qk-norm-head": (LLAMA, {"qk_norm": "head"}),
    "qk-norm-full": (LLAMA, {"qk_norm": "full"}),
    "post-norm": (LLAMA, {"norm_placement": "post"}),
    "norm-before-and-after": (LLAMA, {"norm_placement": "both"}),
    "parallel": ({"family": "gpt2"}, {"residual": "parallel"}),
    "parallel-one-norm": ({"family": "gpt2"}, {"residual": "parallel-one-norm"}),
    "embedding-norm": ({"family": "gpt2"}, {"embedding_norm": True}),
    "softcap": (LLAMA, {"logit_softcap": 30.0}),
    "latent-attention": (
        {"family": "llama"},
        {
            "mla": {
                "q_lora_rank": 24,
                "kv_lora_rank": 16,
                "qk_nope_head_dim": 24,
                "qk_rope_head_dim": 8,
                "v_head_dim": 20,
            }
        },
    ),
    "latent-attention-direct-queries": (
        {"family": "llama"},
        {"mla": {"kv_lora_rank": 16, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 20}},
    ),
    "experts": (LLAMA, {"moe": {"experts": 8, "top_k": 2, "expert_ffn": 40}}),
    "experts-shared": (LLAMA, {"moe": {"experts": 4, "top_k": 2, "expert_ffn": 40, "shared_ffn": 72}}),
    "experts-plain-post-norm": (
        LLAMA,
        {
            "norm_placement": "post",
            "mlp": "relu2",
            "moe": {"experts": 4, "top_k": 1, "expert_ffn": 40, "shared_ffn": 72, "first_dense_layers": 1},
        },
    ),
    "experts-shared-first-dense": (
        LLAMA,
        {
            "moe": {
                "experts": 8,
                "top_k": 3,
                "expert_ffn": 40,
                "shared_ffn": 72,
                "shared_gate": True,
                "first_dense_layers": 1,
            }
        },
    ),
}
RUNS: dict[str, dict[str, Any]] = {
    "none": {"activation_checkpointing": "none"},
    "selective": {"activation_checkpointing": "selective"},
    "full": {"activation_checkpointing": "full"},
    "full-every-second": {"activation_checkpointing": "full", "activation_checkpointing_every": 2},
    "offloaded": {"activation_checkpointing": "offloaded"},
    "full-with-dropout": {"activation_checkpointing": "full", "dropout": 0.1},
    "chunked-loss": {"activation_checkpointing": "none", "loss": "chunked", "loss_chunks": 3},
    "fused-loss": {"activation_checkpointing": "full", "loss": "fused", "loss_chunks": 3},
}


def config_of(name: str, run: str = "none") -> RunConfig:
    flags, model = MODELS[name]
    values = {"layers": "3", "hidden": "128", "heads": "4", "vocab": "300", "seq": str(SEQ)} | flags
    whole = draft(
        Flags(**values, micro_batch=str(MICRO), accumulation="1", steps="3", recipe="fp32", gpu="cpu"),
        as_of="2026-11-21",
        version="test",
    )
    training = TrainingConfig(**(whole.training.model_dump() | RUNS[run] | {"attention_kernel": "math"}))
    return whole.model_copy(update={"model": ModelConfig(**(whole.model.model_dump() | model)), "training": training})


def _of_grouped_product(a: tuple[int, ...], b: tuple[int, ...], *_: Any, **__: Any) -> int:
    """FLOPs of rows [m, K] by [E, K, M], or of [K, m] by [m, M] to [E, K, M]: PyTorch's counter does not know them."""
    return 2 * a[0] * a[1] * b[-1]


COUNTED_TOO = {torch.ops.aten._grouped_mm: _of_grouped_product}


def counted_on_cpu(config: RunConfig, *, backward: bool) -> tuple[int, dict[str, int]]:
    """FLOPs of one micro-batch: in all, and by operator, the blocks' numbers left out."""
    model: GPT = build_model(config)
    ids, targets = (torch.zeros((MICRO, SEQ), dtype=torch.long) for _ in range(2))
    with FlopCounterMode(display=False, custom_mapping=COUNTED_TOO) as counter:
        with torch.set_grad_enabled(backward):
            loss = model(ids, targets)
        if backward:
            loss.backward()
    return int(counter.get_total_flops()), _by_operator(counter)


def _by_operator(counter: FlopCounterMode) -> dict[str, int]:
    """Each module's own FLOPs: those of its children are taken off."""
    sums = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name != "Global"}
    found: Counter[str] = Counter()
    for name, total in sums.items():
        found[_label(name)] += total
        around = [n for n in sums if name.startswith(f"{n}.")]
        if around:
            found[_label(max(around, key=len))] -= total
    return {label: own for label, own in found.items() if own}


def _label(name: str) -> str:
    return _module(".".join(p for p in name.split(".")[1:] if p != "blocks" and not p.isdigit()))


def _module(operator: str) -> str:
    """The module that makes an operator's product: the experts' three belong to one, attention's two to attention."""
    if operator in (SCORES, VALUES):
        return "attention"
    if operator.startswith("mlp.experts."):
        return "mlp.experts"
    return "attention.query" if operator == "attention.query_up" else operator


def planned_by_module(config: RunConfig, part: str) -> dict[str, int]:
    """The operators' FLOPs of one micro-batch, by module."""
    found: Counter[str] = Counter()
    for o in operators_of(config):
        found[_module(o.name)] += TOKENS * int(getattr(o, part))
    return dict(found)


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward_by_operator(name: str) -> None:
    config = config_of(name)
    total, _ = counted_on_cpu(config, backward=True)
    forward, by_operator = counted_on_cpu(config, backward=False)
    assert sum(planned_by_module(config, "forward").values()) == forward
    assert sum(planned_by_module(config, "backward").values()) == total - forward
    assert total == TOKENS * flops_of(resolve(config)).per_token_model
    assert planned_by_module(config, "forward") == by_operator


@pytest.mark.parametrize(("run", "name"), one_in(4, [(r, name) for r in RUNS if r != "none" for name in MODELS]))
def test_recomputation(run: str, name: str) -> None:
    config = config_of(name, run)
    total, _ = counted_on_cpu(config, backward=True)
    assert total == TOKENS * flops_of(resolve(config)).per_token_hardware


def test_the_comparison_sees_another_shape() -> None:
    total, _ = counted_on_cpu(config_of("llama"), backward=True)
    assert total != TOKENS * flops_of(resolve(config_of("head-dim-free"))).per_token_model


@pytest.mark.parametrize(("seq", "window"), [(16, 5), (16, 16), (9, 1)])
def test_mask_entries_are_those_of_the_models_mask(seq: int, window: int) -> None:
    mask = score_mask(seq, window, torch.device("cpu"), None)
    assert mask_entries(seq, window) == torch.isfinite(mask).sum().item()
