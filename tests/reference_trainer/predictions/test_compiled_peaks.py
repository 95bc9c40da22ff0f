"""Peaks of the compiled step against its generated program, replayed: forward, and all of backward."""

from __future__ import annotations

from typing import Any

import pytest

from planner.memory.eager.autograd import Autograd
from planner.memory.ledger import Ledger
from planner.memory.micro_batch import simulate_micro_batch
from tests.reference_trainer.model.test_gpt import LLAMA
from tests.reference_trainer.predictions.compiled_program import MIXED, WARNINGS, context, replayed_peaks
from tests.soak import some

pytestmark = WARNINGS
FULL = {"activation_checkpointing": "full"}

# options and the agreement asked of the peaks of forward and of backward
PEAKS: dict[str, tuple[dict[str, Any], float, float]] = {
    "gpt2": ({"layers": 2, "vocab": 6400, "micro_batch": 8, "seq": 128}, 0.0, 0.002),
    "llama": (LLAMA | {"layers": 2, "kv_heads": 2, "micro_batch": 4, "seq": 128}, 0.0, 0.002),
    "few words": ({"layers": 2, "vocab": 256, "micro_batch": 8, "seq": 128}, 0.01, 0.01),
    "many words, few tokens": ({"layers": 2, "vocab": 6400, "micro_batch": 1, "seq": 32}, 0.0, 0.01),
    "untied": (LLAMA | {"layers": 1, "vocab": 6400, "micro_batch": 1, "tied_embeddings": False}, 0.0, 0.01),
    "gelu written out": (
        {"mlp": "gelu-written-out", "layers": 2, "vocab": 256, "micro_batch": 8, "seq": 128},
        0.01,
        0.01,
    ),
    "gelu written out, recomputed": (
        FULL | {"mlp": "gelu-written-out", "layers": 3, "micro_batch": 16, "seq": 128},
        0.0,
        0.04,
    ),
    "recomputed": (FULL | {"layers": 3, "micro_batch": 16, "seq": 128}, 0.0, 0.04),
    "embedding norm": (LLAMA | {"embedding_norm": True, "layers": 2, "micro_batch": 4, "seq": 128}, 0.0, 0.003),
    "recomputed llama": (LLAMA | FULL | {"layers": 3, "micro_batch": 8, "seq": 128}, 0.01, 0.04),
}


@pytest.mark.parametrize("case", some(PEAKS, ("gpt2", "recomputed").__contains__))
def test_peaks_are_those_of_the_generated_program(case: str) -> None:
    options, of_forward, of_backward = PEAKS[case]
    f = context(options | {"context": options.get("seq", 64)}, MIXED)
    state, replayed = replayed_peaks(f.model, f.training, MIXED)
    ledger = Ledger()
    e = Autograd(ledger, True)
    ledger.allocate("weights", state)
    for micro, seen in enumerate(replayed):
        e.gradients_exist = micro > 0
        simulate_micro_batch(f, e)
        forward, *backward = [phase.peak_bytes for phase in ledger.phases[-4:]]
        assert forward == pytest.approx(seen[0], rel=of_forward, abs=0), micro
        assert max(backward) == pytest.approx(seen[1], rel=of_backward, abs=0), micro
