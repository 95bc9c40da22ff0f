"""Every option of the model and the run: each allocation of a micro-batch in order, saved bytes, peaks of five blocks.

The cases are data, in benchmarks/data/option_cases.toml; docs/coverage.md says which choices they reach. Exact means
64 bytes: the loss, its divisor and counts of steps are left out of the account.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks import witness
from benchmarks.option_cases import CHECKPOINTING, PLAIN, Row, config_of, long_config_of, long_rows, rows
from benchmarks.witness import (
    SCALARS,
    first_difference,
    phase_peaks,
    saved_bytes,
    seen_allocations,
    walked_allocations,
)
from planner.mirror.facts import facts_of
from planner.phases import walk_run
from reference_trainer import mlp

ROWS = list(rows())
LONG = list(long_rows())


def wrong_order(row: Row) -> str:
    """What the walk has otherwise than PyTorch; "" where nothing is known."""
    biased = row.case == "gpt2" and row.recipe == "master-bf16"
    return "a linear layer's bias is widened before its weight" if biased else ""


def marked(found: list[Row], known: Callable[[Row], str]) -> list[Any]:
    """Rows of which something is known to be wrong are expected to fail; one that no longer does fails."""
    return [pytest.param(r, marks=pytest.mark.xfail(reason=known(r))) if known(r) else r for r in found]


@pytest.mark.parametrize("row", marked(ROWS, wrong_order), ids=lambda row: row.id)
def test_every_allocation_of_a_micro_batch_in_order(row: Row) -> None:
    assert first_difference(config_of(row)) == ""


def test_a_gelu_written_out_under_the_autocast_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's autocast takes powers in fp32, a processor's does not: here the program says so itself."""

    def as_on_a_gpu(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.8 * (x + 0.044715 * torch.pow(x.float(), 3.0))))

    monkeypatch.setitem(mlp.ACTIVATIONS, "gelu-written-out", as_on_a_gpu)
    monkeypatch.setattr(witness, "facts_of", partial(facts_of, cuda=True))
    for case in ("GELU written out", "GELU written out, second micro-batch, norms on both sides"):
        config = config_of(Row(case, "autocast", "mixed-bf16", "none"), attention_kernel="math")
        assert first_difference(config) == ""
        found, t = walk_run(config, on_gpu=True).saved_by, config.training
        assert found == saved_bytes(config)
        wide = config.model.layers * t.micro_batch * t.seq * config.model.ffn
        assert found["blocks.mlp"] == 14 * wide  # 4 + 4 + 4 fp32, the half in bf16; the output's cast is the next one's


KEEPING = [row for row in ROWS if row.checkpointing in ("none", "selective") and row.recipe not in ("fp32", "tf32")]


@pytest.mark.parametrize("row", KEEPING, ids=lambda row: row.id)
def test_saved_bytes_of_every_operator(row: Row) -> None:
    config = config_of(row)
    assert walk_run(config).saved_by == saved_bytes(config)


@pytest.mark.parametrize("row", LONG, ids=lambda row: row.id)
def test_peaks_of_five_blocks(row: Row) -> None:
    """Walked with those between added at once, and whole as for an allocator; both are what the replay sees."""
    config = long_config_of(row)
    whole = {p.phase: p.bytes for p in walk_run(config, events=[]).phases}
    for phase in phase_peaks(config):
        assert abs(phase.difference) <= SCALARS, phase
        assert abs(whole[phase.phase] - phase.replayed) <= SCALARS, phase


@pytest.mark.parametrize(
    "row",
    [
        Row("gpt2", "autocast", "mixed-bf16", "none"),
        Row("dropout", "eager", "mixed-bf16", "none"),
        Row("gpt2", "eager", "mixed-bf16", "none"),
    ],
    ids=lambda row: row.id,
)
def test_peak_of_evaluation(row: Row) -> None:
    (found,) = (p for p in phase_peaks(long_config_of(row)) if p.phase == "evaluation")
    assert abs(found.difference) <= SCALARS, found


@pytest.mark.parametrize("row", LONG, ids=lambda row: row.id)
def test_saved_bytes_of_five_blocks(row: Row) -> None:
    config = long_config_of(row)
    assert walk_run(config).saved_by == saved_bytes(config)


def test_units_between_the_ends_are_added_rightly_at_any_depth() -> None:
    """Seven and eight blocks of the same runs, where a unit does not go into them: every phase as the whole walk's."""
    for row in random.Random(1).sample(LONG, 12):
        for layers in (7, 8):
            config = long_config_of(row, layers)
            whole = {p.phase: p.bytes for p in walk_run(config, events=[]).phases}
            for phase in walk_run(config).phases:
                assert abs(phase.bytes - whole[phase.phase]) <= SCALARS, (row.id, layers, phase.phase)


def test_the_cases_reach_every_way_of_checkpointing_and_differ() -> None:
    """The comparison can fail: of two ways of checkpointing none allocates what the other does."""
    for case in PLAIN:
        made = [walked_allocations(config_of(Row(case, "eager", "mixed-bf16", mode))) for mode in CHECKPOINTING]
        assert made[0] != made[1] != made[2] and made[2] == made[3]  # offloaded is full on a processor
        assert seen_allocations(config_of(Row(case, "eager", "mixed-bf16", "full"))) != made[0]
        assert first_difference(config_of(Row(case, "eager", "mixed-bf16", "none"), micro_batch=2)) == ""
