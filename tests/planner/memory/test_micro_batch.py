"""Runs of identical blocks: every block once, in order, in repeating units."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.option_cases import Row, config_of
from planner.counts.run import resolve
from planner.memory.eager.context import simulation_context
from planner.memory.micro_batch import block_runs


@pytest.mark.parametrize(
    ("case", "changes", "runs"),
    [
        ("gpt2", {"layers": 7}, [(0, 1, 7)]),
        ("window and ALiBi", {"layers": 7}, [(0, 1, 7)]),
        ("every other block unturned", {"layers": 8, "no_position_every": 3}, [(0, 3, 2), (6, 2, 1)]),
        ("every other block unturned", {"layers": 2, "no_position_every": 3}, [(0, 2, 1)]),
    ],
)
def test_runs_of_alike_units(case: str, changes: dict[str, Any], runs: list[tuple[int, int, int]]) -> None:
    config = config_of(Row(case, "eager", "mixed-bf16", "none"), **changes)
    assert block_runs(simulation_context(resolve(config))) == runs


def test_experts_in_every_other_block_make_a_unit_of_two() -> None:
    ctx = simulation_context(
        resolve(config_of(Row("experts in every other block", "eager", "mixed-bf16", "none"), layers=7))
    )
    assert ctx.shape.dense_layers == 4 and [ctx.block_kind(i)[0] for i in range(4)] == [False, True, False, True]
    assert block_runs(ctx) == [(0, 2, 3), (6, 1, 1)]


def test_dense_blocks_and_blocks_with_experts_are_runs_of_their_own() -> None:
    row = Row("first blocks dense, latent attention", "eager", "mixed-bf16", "none")
    ctx = simulation_context(resolve(config_of(row, layers=6)))
    dense = ctx.shape.dense_layers
    assert 0 < dense < 6
    assert block_runs(ctx) == [(0, 1, dense), (dense, 1, 6 - dense)]
    assert {ctx.block_kind(i) for i in range(dense)}.isdisjoint(ctx.block_kind(i) for i in range(dense, 6))
