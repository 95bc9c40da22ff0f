"""The allocations of a replayed step, as the model of the CUDA caching allocator takes them."""

from __future__ import annotations

import pytest

from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.memory.allocator import replay_allocations
from reference_trainer.measure.replay import Allocation, StorageEvent, replay


def config_of(checkpointing: str) -> RunConfig:
    flags = Flags(
        family="gpt2",
        layers="4",
        hidden="256",
        heads="4",
        vocab="50257",
        seq="256",
        micro_batch="8",
        accumulation="2",
        steps="10",
        precision="bf16",
        activation_checkpointing=checkpointing,
    )
    return draft(flags, as_of="2026-11-21", version="test")


@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_allocations_tell_what_events_tell_and_which_storage_is_freed(checkpointing: str) -> None:
    events: list[StorageEvent] = []
    allocations: list[Allocation] = []
    replay(config_of(checkpointing), events, allocations)
    live: dict[int, int] = {}
    changes = []
    for storage, size in allocations:
        changes.append(size or -live[storage])
        if size:
            assert storage not in live
            live[storage] = size
        else:
            del live[storage]
    assert changes == [change for _, change, _ in events if change]


@pytest.mark.parametrize("checkpointing", ["none", "full"])
def test_the_allocator_takes_what_the_step_requests(checkpointing: str) -> None:
    allocations: list[Allocation] = []
    peak = replay(config_of(checkpointing), None, allocations).peak.peak_bytes
    default, expandable = (replay_allocations(allocations, expandable=e) for e in (False, True))
    assert default.requested == expandable.requested == peak
    # cut to 512 bytes, expandable blocks waste less than that each; by default a large one can keep up to 1 MiB
    alive = sum(1 if size else 0 for _, size in allocations)
    assert peak <= expandable.allocated < peak + 512 * alive
    assert expandable.allocated <= default.allocated <= default.reserved
    # a device of exactly the reserved bytes suffices, and nothing is ever released on it
    assert replay_allocations(allocations, capacity=default.reserved) == default
