"""Properties of the caching allocator's model on random sequences: no gap, no overlap, never over capacity."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import OutOfMemoryError
from planner.memory.allocator import AllocationEvent, CachingAllocator, replay_allocations
from planner.memory.allocator_pools import FREE, IN_USE, MIB, UNMAPPED
from tests.examples import examples

BOTH = pytest.mark.parametrize("expandable", [False, True])
SIZES = st.one_of(
    st.integers(1, 4096),
    st.integers(1, 2 * MIB),
    st.integers(MIB, 60 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 2 * MIB, 10 * MIB - 1, 10 * MIB, 12 * MIB, 20 * MIB, 40 * MIB]),
)


@st.composite
def sequences(draw: st.DrawFn) -> list[AllocationEvent]:
    """Allocations and releases, in any order, of at most 60 handles; some are never released."""
    events: list[AllocationEvent] = []
    live: list[int] = []
    for key in range(draw(st.integers(1, 60))):
        events.append((key, draw(SIZES)))
        live.append(key)
        while live and draw(st.booleans()):
            events.append((live.pop(draw(st.integers(0, len(live) - 1))), 0))
    return events


def check_state(allocator: CachingAllocator, expandable: bool) -> None:
    """The blocks of each segment tile it: no gap, no overlap, and no two neighbours that should have merged."""
    in_use = free = 0
    for blocks in allocator.blocks():
        for left, right in itertools.pairwise(blocks):
            assert left.address + left.size == right.address and left.after is right and right.before is left
            assert left.state == IN_USE or left.state != right.state
        assert all(b.size > 0 and b.size % 512 == 0 for b in blocks)
        in_use += sum(b.size for b in blocks if b.state == IN_USE)
        free += sum(b.size for b in blocks if b.state == FREE)
        assert expandable or all(b.state != UNMAPPED for b in blocks)
    assert in_use == allocator.allocated
    assert in_use + free == allocator.reserved


@BOTH
@given(events=sequences(), emptied=st.booleans())
@examples(100)
def test_what_always_holds(expandable: bool, events: list[AllocationEvent], emptied: bool) -> None:
    allocator = CachingAllocator(expandable=expandable)
    sizes: dict[int, int] = {}
    peaks = allocator.peaks
    for key, size in events:
        if size:
            allocator.malloc(key, size)
            sizes[key] = size
        else:
            allocator.free(key)
            del sizes[key]
        if emptied:
            allocator.empty_cache()
        check_state(allocator, expandable)
        assert allocator.requested == sum(sizes.values())
        assert allocator.reserved >= allocator.allocated >= sum(-(-s // 512) * 512 for s in sizes.values())
        now = allocator.peaks
        assert now.requested >= peaks.requested and now.allocated >= peaks.allocated
        assert now.reserved >= peaks.reserved and now.segments >= peaks.segments
        peaks = now
    for key in list(sizes):
        allocator.free(key)
    assert allocator.allocated == allocator.requested == 0
    allocator.empty_cache()
    check_state(allocator, expandable)
    assert allocator.reserved == allocator.segments == 0


@BOTH
@given(events=sequences(), share=st.floats(0.0, 1.0))
@examples(100)
def test_a_device_is_never_overdrawn(expandable: bool, events: list[AllocationEvent], share: float) -> None:
    free = replay_allocations(events, expandable=expandable)
    assert replay_allocations(events, expandable=expandable, capacity=free.reserved) == free
    capacity = int(free.reserved * share)
    allocator = CachingAllocator(expandable=expandable, capacity=capacity)
    try:
        for key, size in events:
            allocator.malloc(key, size) if size else allocator.free(key)
            assert allocator.reserved <= capacity
    except OutOfMemoryError:
        assert capacity < free.reserved
        check_state(allocator, expandable)


def scan(events: list[AllocationEvent]) -> tuple[int, int]:
    """Allocated and reserved peaks of the default setting by another way: segments as lists, searched to the end."""
    segments: list[tuple[bool, int, list[list[int]]]] = []  # small?, number, [offset, size, handle or -1]
    allocated = top = 0
    for key, size in events:
        if not size:
            for _, _, blocks in segments:
                for block in blocks:
                    if block[2] == key:
                        block[2] = -1
                        allocated -= block[1]
                for i in range(len(blocks) - 1, 0, -1):
                    if blocks[i][2] == blocks[i - 1][2] == -1:
                        blocks[i - 1][1] += blocks.pop(i)[1]
            continue
        rounded = -(-size // 512) * 512
        small = rounded <= 2**20
        fitting = [
            (b[1], number, b[0], i)
            for is_small, number, blocks in segments
            for i, b in enumerate(blocks)
            if is_small == small and b[2] == -1 and b[1] >= rounded
        ]
        if not fitting:
            new = 2**21 if small else 20 * 2**20 if rounded < 10 * 2**20 else -(-rounded // 2**21) * 2**21
            segments.append((small, len(segments), [[0, new, -1]]))
            fitting = [(new, len(segments) - 1, 0, 0)]
        _, number, _, i = min(fitting)
        block = segments[number][2][i]
        rest = block[1] - rounded
        if rest >= 512 if small else rest > 2**20:
            segments[number][2].insert(i + 1, [block[0] + rounded, rest, -1])
            block[1] = rounded
        block[2] = key
        allocated += block[1]
        top = max(top, allocated)
    return top, sum(b[1] for _, _, blocks in segments for b in blocks)


@given(events=sequences())
@examples(100)
def test_a_plain_search_finds_the_same(events: list[AllocationEvent]) -> None:
    peaks = replay_allocations(events)
    assert (peaks.allocated, peaks.reserved) == scan(events)
