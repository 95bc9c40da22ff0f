"""Models of five blocks with every option: the peak of each phase and the saved bytes, against the replay.

Of a run of alike units the planner simulates the first and the last, and adds the others at once. Every row checks that
this equals the full simulation; some rows also check that the full simulation equals PyTorch. `python -m
benchmarks.drift` replays them all.
"""

from __future__ import annotations

import pytest

from benchmarks.memory_reference import SCALARS, phase_peaks, saved_bytes
from benchmarks.option_cases import Row, long_config_of, long_rows
from planner.counts.run import resolve
from planner.memory.phases import simulate_run
from tests.soak import one_in

LONG = list(long_rows())
# cases whose units are of several kinds, or hold something that other blocks lack
UNEVEN = ("every other block sees all", "experts", "first blocks dense, latent attention")


def is_new(row: Row) -> bool:
    """Whether a replay checks something that no other does.

    Each case runs eagerly without recomputation. Recomputing and casting are the same for every unit: they are tried
    on the plainest case and on the uneven ones. The cases about recomputation are plain without it.
    """
    if "recomputed" in row.case:
        return row.checkpointing == "full"
    return row.case in ("gpt2", *UNEVEN) or (row.runtime, row.checkpointing) == ("eager", "none")


REPLAYED = [row for row in LONG if is_new(row)]


@pytest.mark.parametrize("row", one_in(6, REPLAYED), ids=lambda row: row.id)
def test_peaks_of_five_blocks(row: Row) -> None:
    found = phase_peaks(long_config_of(row))
    assert {"forward_end", "backward_block", "optimizer_step", "evaluation"} <= {phase.phase for phase in found}
    for phase in found:
        assert abs(phase.difference) <= SCALARS, phase


@pytest.mark.parametrize("row", one_in(6, REPLAYED[1:]), ids=lambda row: row.id)
def test_saved_bytes_of_five_blocks(row: Row) -> None:
    config = long_config_of(row)
    assert simulate_run(resolve(config)).saved_by_operator == saved_bytes(config)


@pytest.mark.parametrize("row", LONG, ids=lambda row: row.id)
def test_units_between_the_ends_are_added_rightly_at_any_depth(row: Row) -> None:
    """Also seven and eight blocks, where a unit does not go into them: every phase equals the full simulation's."""
    for layers in (5, 7, 8):
        config = long_config_of(row, layers)
        whole = {p.phase: p.peak_bytes for p in simulate_run(resolve(config), events=[]).phases}
        for phase in simulate_run(resolve(config)).phases:
            assert abs(phase.peak_bytes - whole[phase.phase]) <= SCALARS, (layers, phase.phase)
