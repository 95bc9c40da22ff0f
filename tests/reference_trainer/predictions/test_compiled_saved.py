"""What torch.compile saves for backward, against the planner's closed form: the partitioner's cut, byte by byte."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from planner.memory.compiled import compiled_program
from tests.reference_trainer.model.test_gpt import CASES, LLAMA
from tests.reference_trainer.predictions.compiled_program import (
    FP32,
    MIXED,
    NARROW,
    WARNINGS,
    context,
    partitioned_bytes,
)
from tests.soak import some

pytestmark = WARNINGS
FULL = {"activation_checkpointing": "full"}
NANOCHAT: dict[str, Any] = {
    "position": "rotary", "norm": "rmsnorm", "norm_parameters": "none", "qk_norm": "head", "mlp": "relu2",
    "biases": "none", "embedding_norm": True, "logit_softcap": 15.0, "tied_embeddings": False,
}  # fmt: skip

# options, types, blocks, sequences
KEPT: dict[str, tuple[dict[str, Any], tuple[torch.dtype, torch.dtype], int, int]] = {
    "gpt2": ({}, MIXED, 1, 2),
    "gpt2, from three sequences": ({}, MIXED, 3, 3),
    "gpt2, narrow": ({}, NARROW, 2, 4),
    "gpt2, narrow, one sequence": ({}, NARROW, 2, 1),
    "gpt2, fp32": ({}, FP32, 3, 4),
    "gpt2, recomputed": (FULL, MIXED, 3, 2),
    "gpt2, recomputed, one sequence": (FULL, MIXED, 2, 1),
    "llama": (LLAMA, MIXED, 3, 2),
    "llama, one block": (LLAMA, MIXED, 1, 2),
    "llama, narrow": (LLAMA, NARROW, 2, 2),
    "llama, fp32": (LLAMA | {"kv_heads": 2}, FP32, 2, 2),
    "llama, recomputed": (LLAMA | FULL | {"kv_heads": 2}, MIXED, 3, 2),
    "untied, biases, capped": (
        LLAMA | {"biases": "all", "logit_softcap": 30.0, "tied_embeddings": False}, MIXED, 2, 2,
    ),
    "gelu written out": ({"mlp": "gelu-written-out"}, MIXED, 2, 3),
    "gelu written out, narrow": ({"mlp": "gelu-written-out"}, NARROW, 2, 2),
    "gelu written out, fp32": ({"mlp": "gelu-written-out"}, FP32, 3, 4),
    "gelu written out, recomputed": ({"mlp": "gelu-written-out"} | FULL, MIXED, 3, 2),
    "relu": ({"mlp": "relu"}, MIXED, 2, 3),
    "relu squared": ({"mlp": "relu2"}, MIXED, 2, 3),
    "geglu": (LLAMA | {"mlp": "geglu", "kv_heads": 2, "qk_norm": "full"}, MIXED, 2, 2),
    "qwen3": (CASES["qwen3"], MIXED, 2, 2),
    "layernorm qk": (CASES["layernorm qk"], NARROW, 2, 2),
    "alibi": ({"position": "alibi"}, MIXED, 2, 2),
    "window": (CASES["gemma window"], MIXED, 2, 2),
    "no position every": (CASES["smollm3"], MIXED, 2, 2),
    "no gains": (CASES["olmo"], MIXED, 2, 2),
    "nanochat": (NANOCHAT, MIXED, 2, 2),
    "embedding norm, narrow": ({"embedding_norm": True, "position": "alibi"}, NARROW, 2, 2),
    "embedding norm, learned, one sequence": ({"embedding_norm": True}, MIXED, 2, 1),
    "embedding norm, recomputed": ({"embedding_norm": True, "position": "alibi"} | FULL, MIXED, 2, 2),
}  # fmt: skip


def agree(kept: int, seen: int) -> None:
    """Exactly in the version whose cut is written out; in others the difference is a report, not a failure."""
    if kept != seen and not torch.__version__.startswith("2.13."):
        pytest.xfail(f"torch {torch.__version__} keeps {seen:,} bytes where 2.13 keeps {kept:,}")
    assert kept == seen


# each compiles for seconds: a structure of each kind, the others in `make soak`
ALWAYS = ("gpt2", "gpt2, recomputed, one sequence", "llama, narrow", "nanochat")


@pytest.mark.parametrize("case", some(KEPT, ALWAYS.__contains__))
def test_the_partitioner_keeps_these_bytes(case: str) -> None:
    options, types, layers, sequences = KEPT[case]
    f = context(options | {"layers": layers, "micro_batch": sequences}, types)
    kept = sum(compiled_program(f).saved_by_operator().values())
    agree(kept, partitioned_bytes(f.model, f.training, types))


@pytest.mark.parametrize("options", [{}, pytest.param(LLAMA, marks=pytest.mark.soak)], ids=["gpt2", "llama"])
def test_autocast_keeps_what_explicit_casts_keep(options: dict[str, Any]) -> None:
    f = context(options | {"layers": 2, "micro_batch": 3}, MIXED)
    under_autocast = f.training.model_copy(update={"runtime": "autocast"})
    agree(sum(compiled_program(f).saved_by_operator().values()), partitioned_bytes(f.model, under_autocast, MIXED))
