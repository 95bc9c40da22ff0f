"""Every option of the model and the run: each allocation of a micro-batch in order, and the saved bytes.

The cases are data, in benchmarks/data/option_cases.toml; docs/reference/coverage.md says which choices they reach.
Exact means 64 bytes: the loss, its divisor and counts of steps are not counted. Rows that check nothing
new are left to `python -m benchmarks.drift`, which compares them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import memory_reference
from benchmarks.memory_reference import (
    first_difference,
    pytorch_allocations,
    saved_bytes,
    simulated_allocations,
)
from benchmarks.option_cases import CHECKPOINTING, PLAIN, Row, cases, config_of, rows
from planner.counts.run import resolve
from planner.memory.eager.context import simulation_context
from planner.memory.phases import simulate_run
from reference_trainer.model import mlp
from tests.soak import one_in, some


def is_new(row: Row) -> bool:
    """Whether a row checks something that no other row does; the plain cases run in every variant.

    On a processor "offloaded" runs the very code of "full", in the trainer and in the planner. What fp32 changes is a
    block's operators, and recomputing them is the same program in any recipe.
    """
    again = row.checkpointing == "offloaded" or (row.recipe, row.checkpointing) == ("fp32", "full")
    return row.case in PLAIN or not again


def is_always(row: Row) -> bool:
    """Whether `make test` replays a row; the others are left to `make soak`.

    Each case runs eagerly, where nothing of it is recomputed or cast by autocast; every third also in one more variant,
    a different one from case to case.
    """
    if row.case in PLAIN:
        return row.checkpointing != "offloaded"
    variant = (row.runtime, row.recipe, row.checkpointing)
    variants = [v for v in OTHERS if v[2] in cases()[row.case].get("checkpointing", CHECKPOINTING)]
    place = list(cases()).index(row.case)
    return variant == EAGER or (place % 3 == 0 and variant == variants[place // 3 % len(variants)])


EAGER = ("eager", "mixed-bf16", "none")
OTHERS = [(*EAGER[:2], "selective"), (*EAGER[:2], "full"), ("eager", "fp32", "none")]
OTHERS += [("autocast", "mixed-bf16", mode) for mode in ("none", "selective", "full")]
ROWS = [row for row in rows() if is_new(row)]
OFFLOADED = [row for row in rows() if row.checkpointing == "offloaded" and not is_new(row)]


def known_difference(row: Row) -> str:
    """A known difference between the simulation and PyTorch; "" if there is none."""
    biased = row.case == "gpt2" and row.recipe == "master-bf16"
    return "a linear layer's bias is widened before its weight" if biased else ""


def marked(found: list[Row], known: Callable[[Row], str]) -> list[Any]:
    """Rows with a known difference are expected to fail; one that passes fails the test. Some run in `make soak`."""

    def marks(row: Row) -> list[pytest.MarkDecorator]:
        expected = [pytest.mark.xfail(reason=known(row))] if known(row) else []
        return expected + ([] if is_always(row) else [pytest.mark.soak])

    return [pytest.param(row, marks=marks(row)) for row in found]


@pytest.mark.parametrize("row", marked(ROWS, known_difference), ids=lambda row: row.id)
def test_every_allocation_of_a_micro_batch_in_order(row: Row) -> None:
    assert first_difference(config_of(row)) == ""


@pytest.mark.parametrize("row", one_in(5, OFFLOADED), ids=lambda row: row.id)
def test_offloaded_is_simulated_as_full_on_a_cpu(row: Row) -> None:
    assert simulated_allocations(config_of(row)) == simulated_allocations(config_of(replace(row, checkpointing="full")))


def test_a_gelu_written_out_under_the_autocast_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's autocast takes powers in fp32, a processor's does not: here the program says so itself."""

    def as_on_a_gpu(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.8 * (x + 0.044715 * torch.pow(x.float(), 3.0))))

    monkeypatch.setitem(mlp.ACTIVATIONS, "gelu-written-out", as_on_a_gpu)
    monkeypatch.setattr(memory_reference, "simulation_context", partial(simulation_context, cuda=True))
    for case in ("GELU written out", "GELU written out, second micro-batch, norms on both sides"):
        config = config_of(Row(case, "autocast", "mixed-bf16", "none"), attention_kernel="math")
        assert first_difference(config) == ""
        found, t = simulate_run(resolve(config), on_gpu=True).saved_by_operator, config.training
        assert found == saved_bytes(config)
        wide = config.model.layers * t.micro_batch * t.seq * config.model.ffn
        assert found["blocks.mlp"] == 14 * wide  # 4 + 4 + 4 fp32, the half in bf16; the output's cast is the next one's


KEEPING = [row for row in ROWS if row.checkpointing in ("none", "selective") and row.recipe not in ("fp32", "tf32")]


@pytest.mark.parametrize("row", some(KEEPING, is_always), ids=lambda row: row.id)
def test_saved_bytes_of_every_operator(row: Row) -> None:
    config = config_of(row)
    assert simulate_run(resolve(config)).saved_by_operator == saved_bytes(config)


def test_the_cases_reach_every_way_of_checkpointing_and_differ() -> None:
    """The comparison can fail: of two ways of checkpointing none allocates what the other does."""
    for case in PLAIN:
        made = [simulated_allocations(config_of(Row(case, "eager", "mixed-bf16", mode))) for mode in CHECKPOINTING]
        assert made[0] != made[1] != made[2] and made[2] == made[3]  # offloaded is full on a processor
        assert pytorch_allocations(config_of(Row(case, "eager", "mixed-bf16", "full"))) != made[0]
        assert first_difference(config_of(Row(case, "eager", "mixed-bf16", "none"), micro_batch=2)) == ""
