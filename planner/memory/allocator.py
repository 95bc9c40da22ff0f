"""Simulates PyTorch's CUDA caching allocator: the memory that a sequence of allocations takes from the driver.

Requests are rounded up to blocks of whole 512 bytes. Blocks are split off segments, which come from the driver. Freed
blocks are cached, merged with free neighbours in their segment, and reused: the smallest that is large enough first.
So three numbers differ: requested (bytes of tensors) <= allocated (blocks in use) <= reserved (segments).

The constants are those of torch 2.13, the rules those of two earlier versions, which agree (docs/why/allocator.md). One
stream, no graph capture, default options (`max_split_size_mb` unlimited, `large_segment_size_mb` 20,
`roundup_power2_divisions` and garbage collection off), or these with `expandable_segments:True`. Two things are not
knowable and assumed: the driver hands out ascending addresses (they break ties among free blocks of one size), and
the virtual range of expandable segments never runs out.

Source: PyTorch, c10/cuda/CUDACachingAllocator.cpp and c10/core/AllocatorConfig.h. A test reproduces the numbers of
PyTorch's own, in both settings: test/test_cuda.py, test_graph_memory_stats_and_use_result_after_destroy_graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from planner.errors import OutOfMemoryError
from planner.memory.allocator_pools import (
    IN_USE,
    LARGEST_SMALL,
    ROUND,
    VIRTUAL_RANGE,
    ExpandablePool,
    MemoryBlock,
    Pool,
)
from planner.units import format_bytes

AllocationEvent = tuple[int, int]  # handle, requested bytes; 0 bytes free the handle's allocation


@dataclass(frozen=True, slots=True)
class AllocatorPeaks:
    """The maximum of each number since the start or `reset_peaks`, in bytes; each has its own moment."""

    requested: int  # bytes of tensors
    allocated: int  # blocks in use, `torch.cuda.max_memory_allocated`
    reserved: int  # segments or pages, `torch.cuda.max_memory_reserved`
    segments: int  # number; with expandable segments, ranges with any memory
    inactive_split_at_peak: int  # bytes reserved and not allocated when reserved came to its peak


class CachingAllocator:
    """The state of the allocator on one device: `malloc` and `free` by handle, as tensors come and go.

    capacity: bytes of the driver; None is unlimited. Raises OutOfMemoryError if an allocation does not fit even after
    every unused segment has been released.
    """

    def __init__(self, *, expandable: bool = False, capacity: int | None = None) -> None:
        kind = ExpandablePool if expandable else Pool
        self._small, self._large = kind(small=True), kind(small=False)
        self._live: dict[int, MemoryBlock | None] = {}
        self.capacity = capacity
        self.requested = self.allocated = 0
        self.reset_peaks()

    @property
    def reserved(self) -> int:
        """Bytes taken from the driver and not released."""
        return self._small.reserved + self._large.reserved

    @property
    def segments(self) -> int:
        """Segments of both pools."""
        return self._small.segments + self._large.segments

    @property
    def peaks(self) -> AllocatorPeaks:
        """The highest of each number since the last `reset_peaks`."""
        return AllocatorPeaks(
            self._top_requested, self._top_allocated, self._top_reserved, self._top_segments, self._inactive
        )

    def reset_peaks(self) -> None:
        """Begin a phase: peaks start again from what is alive now."""
        self._top_requested, self._top_allocated = self.requested, self.allocated
        self._top_reserved, self._top_segments = self.reserved, self.segments
        self._inactive = self._top_reserved - self.allocated

    def malloc(self, key: int, size: int) -> None:
        """Allocate `size` requested bytes under the handle `key`; 0 bytes, an empty tensor, take no block."""
        assert size >= 0 and key not in self._live, f"handle {key} is in use, or the size {size} is negative"
        if size == 0:
            self._live[key] = None
            return
        rounded = (size + ROUND - 1) & -ROUND
        pool = self._small if rounded <= LARGEST_SMALL else self._large
        block = pool.find(rounded)
        grown = block is None
        if block is None:
            block = self._from_driver(pool, rounded)
        block.state = IN_USE
        if block.size - rounded >= pool.least_rest:
            pool.cut(block, rounded)
        block.requested = size
        self._live[key] = block
        self.requested += size
        self.allocated += block.size
        if self.requested > self._top_requested:
            self._top_requested = self.requested
        if self.allocated > self._top_allocated:
            self._top_allocated = self.allocated
        if grown:
            self._note_growth()

    def _from_driver(self, pool: Pool, size: int) -> MemoryBlock:
        """More memory for `pool` from the driver; if none is left, unused memory is released first."""
        block = pool.grow(size, self._room())
        if block is None:
            self.empty_cache()
            block = pool.grow(size, self._room())
        if block is not None:
            return block
        raise OutOfMemoryError(
            f"out of memory: {format_bytes(size)} do not fit",
            why=f"{format_bytes(self.allocated)} of {format_bytes(self.capacity or 0)} are allocated and "
            f"{format_bytes(self.reserved - self.allocated)} more lie in segments that are partly in use",
            remedy="a smaller micro-batch or activation checkpointing"
            + ("" if isinstance(pool, ExpandablePool) else "; PYTORCH_ALLOC_CONF=expandable_segments:True"),
        )

    def _room(self) -> int | None:
        return None if self.capacity is None else self.capacity - self.reserved

    def _note_growth(self) -> None:
        self._top_segments = max(self._top_segments, self.segments)
        if self.reserved >= self._top_reserved:
            self._top_reserved = self.reserved
            self._inactive = self.reserved - self.allocated

    def free(self, key: int) -> None:
        """Free the allocation of `key`. Raises KeyError if there is none: our own mistake."""
        block = self._live.pop(key)
        if block is None:
            return
        self.requested -= block.requested
        self.allocated -= block.size
        (self._small if block.address < VIRTUAL_RANGE else self._large).free(block)

    def empty_cache(self) -> None:
        """Release unused memory to the driver: whole segments, or whole pages of expandable ones."""
        self._small.release()
        self._large.release()

    def blocks(self) -> Iterator[list[MemoryBlock]]:
        """The blocks of each segment, or of each expandable range, in the order of their addresses."""
        for head in [*self._small.heads.values(), *self._large.heads.values()]:
            found, after = [head], head.after
            while after is not None:
                found.append(after)
                after = after.after
            yield found


def replay_allocations(
    events: Iterable[AllocationEvent], *, expandable: bool = False, capacity: int | None = None
) -> AllocatorPeaks:
    """The peaks of a sequence of allocations and releases, from an empty allocator.

    events: handle and requested bytes of each allocation; handle and 0 of each release.
    Raises OutOfMemoryError where `capacity` (bytes that the driver can give) does not suffice.
    """
    allocator = CachingAllocator(expandable=expandable, capacity=capacity)
    malloc, free = allocator.malloc, allocator.free
    for key, size in events:
        if size:
            malloc(key, size)
        else:
            free(key)
    return allocator.peaks
