"""The model of PyTorch's CUDA caching allocator: each rule by hand, a full device, and PyTorch's own numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from planner.errors import OutOfMemoryError
from planner.memory.allocator import AllocatorPeaks, CachingAllocator
from planner.memory.allocator_pools import FREE, IN_USE, LARGE_SEGMENT, MIB, SMALL_SEGMENT, UNMAPPED

BOTH = pytest.mark.parametrize("expandable", [False, True])


def filled(sizes: Sequence[int], *, expandable: bool = False, capacity: int | None = None) -> CachingAllocator:
    """An allocator after requests of `sizes`, under the handles 0, 1, 2, …"""
    allocator = CachingAllocator(expandable=expandable, capacity=capacity)
    for key, size in enumerate(sizes):
        allocator.malloc(key, size)
    return allocator


def addresses(allocator: CachingAllocator) -> list[int]:
    """Of the blocks in use, each counted from the start of its segment, segment by segment."""
    return [b.address - blocks[0].address for blocks in allocator.blocks() for b in blocks if b.state == IN_USE]


@BOTH
@pytest.mark.parametrize(("size", "allocated"), [(1, 512), (512, 512), (513, 1024), (1000, 1024)])
def test_blocks_are_multiples_of_512_bytes(size: int, allocated: int, expandable: bool) -> None:
    allocator = filled([size], expandable=expandable)
    assert (allocator.requested, allocator.allocated, allocator.reserved) == (size, allocated, 2 * MIB)


@BOTH
def test_no_bytes_take_nothing(expandable: bool) -> None:
    allocator = filled([0], expandable=expandable)
    assert (allocator.allocated, allocator.reserved, allocator.segments) == (0, 0, 0)
    allocator.free(0)
    assert allocator.allocated == 0


@pytest.mark.parametrize(
    ("size", "reserved"),
    [
        (MIB, 2 * MIB),  # the largest of the small pool
        (MIB + 1, 20 * MIB),  # rounded to 1 MiB + 512 bytes: large
        (10 * MIB - 512, 20 * MIB),  # the last that shares a segment
        (10 * MIB - 511, 10 * MIB),  # rounded to 10 MiB: a segment of its own,
        (10 * MIB + 1, 12 * MIB),  # of whole 2 MiB
        (97 * MIB, 98 * MIB),
    ],
)
def test_size_of_a_new_segment(size: int, reserved: int) -> None:
    assert filled([size]).reserved == reserved


def test_small_blocks_share_a_segment() -> None:
    # 1 MiB + 1 MiB - 512 leave 512 bytes, which the smallest cut still gives; the fourth needs another segment
    allocator = filled([MIB, MIB - 512, 512, 512])
    assert (allocator.allocated, allocator.reserved, allocator.segments) == (2 * MIB + 512, 4 * MIB, 2)


@pytest.mark.parametrize(
    ("size", "allocated"),
    [
        (11 * MIB, 12 * MIB),  # of a segment of 12 MiB 1 MiB is left: not more than 1 MiB, not cut, and allocated
        (11 * MIB - 512, 11 * MIB - 512),  # 1 MiB + 512 bytes are left: cut
        (12 * MIB, 12 * MIB),
    ],
)
def test_large_blocks_are_cut_for_more_than_a_mebibyte(size: int, allocated: int) -> None:
    assert filled([size]).allocated == allocated


def test_expandable_blocks_are_cut_for_512_bytes() -> None:
    allocator = filled([11 * MIB, 9 * MIB - 512], expandable=True)
    assert (allocator.allocated, allocator.reserved) == (20 * MIB - 512, 20 * MIB)
    allocator.malloc(2, MIB + 512)  # the 512 bytes left do not hold it: another page
    assert allocator.reserved == 40 * MIB


def test_the_smallest_block_that_fits_is_taken() -> None:
    allocator = filled([30 * MIB, 14 * MIB, 40 * MIB])
    for key in range(3):
        allocator.free(key)
    allocator.malloc(3, 13 * MIB)  # of 14, 30 and 40 MiB: 14, and the 1 MiB left is not cut
    assert (allocator.allocated, allocator.reserved) == (14 * MIB, 84 * MIB)
    allocator.malloc(4, 13 * MIB)  # 30 MiB, cut: 17 are left
    assert (allocator.allocated, allocator.reserved) == (27 * MIB, 84 * MIB)


def test_of_equal_blocks_the_lowest_address_is_taken() -> None:
    allocator = filled([2 * MIB, 3 * MIB, 2 * MIB, 3 * MIB])  # at 0, 2, 5 and 7 of one segment
    allocator.free(2)
    allocator.free(0)
    allocator.malloc(4, 2 * MIB)
    assert addresses(allocator) == [0, 2 * MIB, 7 * MIB]


def test_neighbours_merge_on_both_sides() -> None:
    allocator = filled([5 * MIB, 5 * MIB, 5 * MIB])  # and 5 free, in one segment of 20
    allocator.free(2)  # 10 free behind
    allocator.malloc(3, 9 * MIB)
    allocator.free(3)
    allocator.free(0)  # 5 free before
    assert allocator.reserved == 20 * MIB
    allocator.free(1)  # all 20 are one block again
    assert [[b.size for b in blocks] for blocks in allocator.blocks()] == [[20 * MIB]]
    allocator.malloc(4, 20 * MIB)
    assert allocator.reserved == 20 * MIB


def test_neighbouring_segments_do_not_merge() -> None:
    allocator = filled([10 * MIB, 10 * MIB])
    allocator.free(0)
    allocator.free(1)
    allocator.malloc(2, 20 * MIB)
    assert allocator.reserved == 40 * MIB  # the same in one expandable range: the two 10 become one 20
    expandable = filled([10 * MIB, 10 * MIB], expandable=True)
    expandable.free(0)
    expandable.free(1)
    expandable.malloc(2, 20 * MIB)
    assert expandable.reserved == 20 * MIB


@BOTH
def test_the_pools_do_not_lend_to_each_other(expandable: bool) -> None:
    allocator = filled([15 * MIB], expandable=expandable)
    reserved = allocator.reserved
    allocator.free(0)
    allocator.malloc(1, MIB)
    assert allocator.reserved == reserved + SMALL_SEGMENT


def test_emptying_the_cache_gives_whole_segments_back() -> None:
    allocator = filled([4 * MIB, 4 * MIB, 30 * MIB, 512])
    for key in (0, 2, 3):
        allocator.free(key)
    allocator.empty_cache()  # the 20 MiB that hold handle 1 stay
    assert (allocator.allocated, allocator.reserved, allocator.segments) == (4 * MIB, 20 * MIB, 1)


def test_expandable_memory_grows_page_by_page() -> None:
    # 12 MiB: one page of 20. 24 MiB: two pages. By default two segments of 12 MiB
    assert filled([12 * MIB, 12 * MIB], expandable=True).reserved == 40 * MIB
    assert filled([12 * MIB, 12 * MIB]).reserved == 24 * MIB


def test_expandable_memory_grows_from_the_free_end() -> None:
    allocator = filled([30 * MIB], expandable=True)  # two pages
    allocator.free(0)
    allocator.malloc(1, 50 * MIB)  # the 40 MiB at hand and one page more; by default 30 + 50
    assert (allocator.reserved, allocator.segments) == (60 * MIB, 1)


def test_expandable_pages_come_back_at_the_lowest_address() -> None:
    allocator = filled([20 * MIB, 30 * MIB, 10 * MIB], expandable=True)  # pages 0, 1-2 (50 MiB), half of 2
    allocator.free(0)
    allocator.free(1)
    allocator.empty_cache()  # 50 MiB free: pages 0 and 1; page 2 keeps 10 MiB free before handle 2
    assert allocator.reserved == 20 * MIB
    states = [[(b.state, b.size // MIB) for b in blocks[:3]] for blocks in allocator.blocks()]
    assert states[1] == [(UNMAPPED, 40), (FREE, 10), (IN_USE, 10)]
    allocator.malloc(3, 45 * MIB)  # both pages mapped again and merged with the 10 MiB behind
    assert (allocator.reserved, addresses(allocator)) == (60 * MIB, [0, 50 * MIB])


def test_a_block_that_cannot_grow_is_preferred() -> None:
    allocator = filled([12 * MIB, 12 * MIB, 12 * MIB], expandable=True)  # at 0, 12 and 24 MiB of 40 mapped
    allocator.free(0)
    allocator.free(1)  # free now: 0-24 MiB, and 36-40 at the edge
    allocator.malloc(4, 3 * MIB)  # the 4 MiB would fit better, but can grow: 0-24 is taken
    assert addresses(allocator) == [0, 24 * MIB]


def test_peaks_and_phases() -> None:
    allocator = filled([600, 30 * MIB])
    allocator.free(1)
    assert allocator.peaks == AllocatorPeaks(30 * MIB + 600, 30 * MIB + 1024, 32 * MIB, 2, 2 * MIB - 1024)
    allocator.reset_peaks()  # reserved stays: 30 MiB are cached
    assert allocator.peaks == AllocatorPeaks(600, 1024, 32 * MIB, 2, 32 * MIB - 1024)
    allocator.empty_cache()
    allocator.reset_peaks()
    assert allocator.peaks == AllocatorPeaks(600, 1024, 2 * MIB, 1, 2 * MIB - 1024)


@BOTH
def test_unused_memory_is_given_back_before_giving_up(expandable: bool) -> None:
    """PyTorch, test/test_cuda.py, test_out_of_memory_retry: half the memory twice fails, but not after a release."""
    capacity = 200 * MIB - LARGE_SEGMENT  # the device's 200 MiB less what others hold
    allocator = filled([100 * MIB], expandable=expandable, capacity=capacity)
    with pytest.raises(OutOfMemoryError, match="100 MiB do not fit"):
        allocator.malloc(1, 100 * MIB)
    assert (allocator.allocated, allocator.peaks.allocated) == (100 * MIB, 100 * MIB)
    allocator.free(0)
    allocator.malloc(1, 120 * MIB)
    assert allocator.allocated == 120 * MIB <= allocator.reserved <= capacity


def test_whole_segments_make_room_for_a_larger_one() -> None:
    allocator = filled([12 * MIB] * 7, capacity=84 * MIB)  # seven segments
    for key in (0, 2, 4, 6):
        allocator.free(key)
    allocator.malloc(7, 30 * MIB)  # none of 12 MiB holds it: the four are released, 30 of their 48 MiB taken again
    assert allocator.reserved == 3 * 12 * MIB + 30 * MIB


def test_fragments_make_room_for_nothing() -> None:
    allocator = filled([5 * MIB] * 16, capacity=80 * MIB)  # four segments of 20 MiB
    for key in range(0, 16, 2):
        allocator.free(key)
    with pytest.raises(OutOfMemoryError) as refused:
        allocator.malloc(16, 10 * MIB)  # 40 MiB are free, no two neighbours of them
    assert "40 MiB of 80 MiB are allocated and 40 MiB more" in refused.value.message()
    assert "expandable_segments:True" in refused.value.remedy


def test_pages_mapped_before_the_end_of_memory_stay() -> None:
    allocator = filled([30 * MIB], expandable=True, capacity=60 * MIB)
    with pytest.raises(OutOfMemoryError) as refused:
        allocator.malloc(1, 50 * MIB)  # 10 MiB at hand, 40 to map, 20 of room
    assert "expandable_segments" not in refused.value.remedy
    assert allocator.reserved == 40 * MIB
    allocator.malloc(1, 30 * MIB)
    assert allocator.reserved == 60 * MIB


CLONES = [  # bytes of a tensor; segments and reserved bytes by default; reserved bytes with expandable segments
    (512, 1, 2 * MIB, 2 * MIB),
    (MIB, 2, 4 * MIB, 4 * MIB),
    (MIB + 512, 1, 20 * MIB, 20 * MIB),
    (10 * MIB - 512, 2, 40 * MIB, 40 * MIB),
    (10 * MIB + 512, 3, 36 * MIB, 40 * MIB),
]
AFTER = {  # reserved bytes when one tensor is left and the cache emptied: default, expandable
    512: (2 * MIB, 2 * MIB),
    MIB: (2 * MIB, 2 * MIB),
    MIB + 512: (20 * MIB, 20 * MIB),
    10 * MIB - 512: (20 * MIB, 40 * MIB),  # the tensor lies across the two pages
    10 * MIB + 512: (12 * MIB, 20 * MIB),
}


@pytest.mark.parametrize(("size", "segments", "default", "expandable"), CLONES)
def test_the_numbers_of_pytorchs_own_test(size: int, segments: int, default: int, expandable: int) -> None:
    """`b = a.clone()`, then five times `b = b.clone() + 1`, in a pool of its own beside two numbers of random state.

    Source: PyTorch, test/test_cuda.py, test_graph_memory_stats_and_use_result_after_destroy_graph, which states
    segments and reserved bytes in both settings (in the form where the random state lies in the graph's pool).
    """
    for setting, reserved in ((False, default), (True, expandable)):
        allocator = filled([8, 8, size], expandable=setting)  # random state, random state, b
        b = 2
        for key in range(3, 13, 2):
            clone, total = key, key + 1
            allocator.malloc(clone, size)
            allocator.malloc(total, size)
            allocator.free(clone)
            allocator.free(b)
            b = total
        in_small = size <= MIB
        other = 0 if in_small else SMALL_SEGMENT  # the test reads the statistics of the tensor's pool only
        assert allocator.reserved - other == reserved
        assert setting or allocator.segments - (not in_small) == segments
        allocator.free(0)
        allocator.free(1)
        allocator.empty_cache()
        assert allocator.reserved == AFTER[size][setting]
