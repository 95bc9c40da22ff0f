"""What torch.compile keeps and allocates, beside the planner's forms: the partitioner exactly, the program nearly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from planner.mirror.autograd import Autograd
from planner.mirror.compiled import compiled_program
from planner.mirror.facts import Facts
from planner.shape import shape_of
from planner.tape import Ledger
from planner.walk import walk_micro_batch
from tests.reference_trainer.compiled_program import partitioned_bytes, replayed_peaks
from tests.reference_trainer.test_model_options import CASES, LLAMA, sections

pytestmark = [
    pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]
MIXED, NARROW, FP32 = (torch.bfloat16, torch.float32), (torch.bfloat16,) * 2, (torch.float32,) * 2
SHAPE: dict[str, Any] = {
    "hidden": 96, "heads": 4, "kv_heads": 4, "head_dim": 24, "ffn": 320, "vocab": 1024, "seq": 64, "context": 64,
}  # fmt: skip
FULL = {"activation_checkpointing": "full"}

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
    "relu": ({"mlp": "relu"}, MIXED, 2, 3),
    "relu squared": ({"mlp": "relu2"}, MIXED, 2, 3),
    "geglu": (LLAMA | {"mlp": "geglu", "kv_heads": 2, "qk_norm": "full"}, MIXED, 2, 2),
    "qwen3": (CASES["qwen3"], MIXED, 2, 2),
    "layernorm qk": (CASES["layernorm qk"], NARROW, 2, 2),
    "alibi": ({"position": "alibi"}, MIXED, 2, 2),
    "window": (CASES["gemma window"], MIXED, 2, 2),
    "no position every": (CASES["smollm3"], MIXED, 2, 2),
    "no gains": (CASES["olmo"], MIXED, 2, 2),
}  # fmt: skip


def facts(changes: dict[str, Any], types: tuple[torch.dtype, torch.dtype]) -> Facts:
    model, training = sections(SHAPE | changes)
    compiled = training.model_copy(update={"runtime": "compiled"})
    return Facts(model, compiled, shape_of(model), types[0].itemsize, types[1].itemsize)


@pytest.mark.parametrize("case", KEPT)
def test_the_partitioner_keeps_these_bytes(case: str) -> None:
    options, types, layers, sequences = KEPT[case]
    f = facts(options | {"layers": layers, "micro_batch": sequences}, types)
    kept = sum(compiled_program(f).saved_by().values())
    assert kept == partitioned_bytes(f.model, f.training, types), f"torch {torch.__version__} cuts elsewhere"


@pytest.mark.parametrize("options", [{}, LLAMA], ids=["gpt2", "llama"])
def test_autocast_keeps_what_explicit_casts_keep(options: dict[str, Any]) -> None:
    f = facts(options | {"layers": 2, "micro_batch": 3}, MIXED)
    under_autocast = f.training.model_copy(update={"runtime": "autocast"})
    assert sum(compiled_program(f).saved_by().values()) == partitioned_bytes(f.model, under_autocast, MIXED)


# options and the agreement asked of the peaks of forward and of backward
PEAKS: dict[str, tuple[dict[str, Any], float, float]] = {
    "gpt2": ({"layers": 3, "vocab": 6400, "micro_batch": 8, "seq": 128}, 0.0, 0.002),
    "llama": (LLAMA | {"layers": 3, "kv_heads": 2, "micro_batch": 4, "seq": 128}, 0.0, 0.002),
    "many blocks, few words": ({"layers": 4, "vocab": 256, "micro_batch": 8, "seq": 128}, 0.01, 0.01),
    "many words, few tokens": ({"layers": 2, "vocab": 6400, "micro_batch": 1, "seq": 32}, 0.0, 0.01),
    "untied": (LLAMA | {"layers": 2, "vocab": 6400, "micro_batch": 1, "tied_embeddings": False}, 0.0, 0.01),
    "recomputed": (FULL | {"layers": 3, "micro_batch": 16, "seq": 128}, 0.0, 0.04),
    "recomputed llama": (LLAMA | FULL | {"layers": 3, "micro_batch": 8, "seq": 128}, 0.01, 0.04),
}


@pytest.mark.parametrize("case", PEAKS)
def test_peaks_beside_the_generated_program(case: str) -> None:
    options, of_forward, of_backward = PEAKS[case]
    f = facts(options | {"context": options.get("seq", 64)}, MIXED)
    state, replayed = replayed_peaks(f.model, f.training, MIXED)
    ledger = Ledger()
    e = Autograd(ledger, True)
    ledger.allocate("weights", state)
    found = []
    for micro, seen in enumerate(replayed):
        e.gradients_exist = micro > 0
        before = len(ledger.phases)
        walk_micro_batch(f, e)
        own = [p.bytes for p in ledger.phases[before if micro else before - 1 :]]
        own = own[-4:]
        found.append((own[0], max(own[1:])))
        assert own[0] == pytest.approx(seen[0], rel=of_forward, abs=0), micro
        assert found[-1][1] == pytest.approx(seen[1], rel=of_backward, abs=0), micro
