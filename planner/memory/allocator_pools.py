"""The two kinds of memory pool of PyTorch's CUDA caching allocator: their segments and free blocks.

A segment comes from the driver and is split into blocks. A freed block merges with its free neighbours in the segment.
`Pool` takes segments of fixed size; `ExpandablePool` (`expandable_segments:True`) has one range of addresses, to which
memory is mapped page by page. `allocator.py` chooses the pool and counts.

Source of the constants: PyTorch 2.13, c10/core/AllocatorConfig.h. Of the rules: c10/cuda/CUDACachingAllocator.cpp,
whose function is named in the docstring of ours.
"""

from __future__ import annotations

from bisect import bisect_left

# after each its name in AllocatorConfig.h
MIB = 2**20
ROUND = 512  # bytes, kMinBlockSize: every block is a multiple of it
LARGEST_SMALL = MIB  # bytes, kSmallSize: up to here a block comes from the small pool
SMALL_SEGMENT = 2 * MIB  # bytes, kSmallBuffer; with expandable segments the page of the small pool
LARGE_SEGMENT = 20 * MIB  # bytes, large_segment_size; with expandable segments the page of the large pool
OWN_SEGMENT_FROM = 10 * MIB  # bytes, kMinLargeAlloc: from here a request gets a segment of its own size,
OWN_SEGMENT_ROUND = 2 * MIB  # bytes, kRoundLarge: rounded up to a multiple of this

IN_USE, FREE, UNMAPPED = range(3)
_ADDRESS_BITS = 48  # of a free block's sorting key: its size, then its address
VIRTUAL_RANGE = 2**46  # bytes of addresses for each pool, the small one first: no device holds as much


class MemoryBlock:
    """Neighbouring bytes of one segment in one state; `before` and `after` are its neighbours in the segment."""

    __slots__ = ("address", "after", "before", "requested", "size", "state")

    def __init__(self, address: int, size: int, state: int) -> None:
        self.address, self.size, self.state = address, size, state
        self.requested = 0
        self.before: MemoryBlock | None = None
        self.after: MemoryBlock | None = None


class Pool:
    """Segments of fixed size, the free blocks in them, and how both come and go."""

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.reserved = 0
        self.heads: dict[int, MemoryBlock] = {}  # first block of each segment by its address
        self._next_address = 0 if small else VIRTUAL_RANGE
        # should_split: a cut leaves at least this many bytes; a smaller rest stays in the block, allocated and unused
        self.least_rest = ROUND if small else LARGEST_SMALL + ROUND
        self._keys: list[int] = []  # ascending: the first one large enough is the best fit
        self._blocks: list[MemoryBlock] = []  # of the same index

    @property
    def segments(self) -> int:
        """Segments taken from the driver and not released."""
        return len(self.heads)

    def find(self, size: int) -> MemoryBlock | None:
        """The smallest free block of `size` bytes or more, lowest address first; listed no more (get_free_block)."""
        at = bisect_left(self._keys, size << _ADDRESS_BITS)
        if at == len(self._keys):
            return None
        del self._keys[at]
        return self._blocks.pop(at)

    def grow(self, size: int, room: int | None) -> MemoryBlock | None:
        """A new segment that holds `size` bytes, unless it is larger than `room`; not listed as free (alloc_block)."""
        taken = self._segment_bytes(size)
        if room is not None and taken > room:
            return None
        block = MemoryBlock(self._next_address, taken, FREE)
        self.heads[block.address] = block
        self._next_address += taken
        self.reserved += taken
        return block

    def _segment_bytes(self, size: int) -> int:
        """Bytes that are requested from the driver (get_allocation_size)."""
        if self.small:
            return SMALL_SEGMENT
        if size < OWN_SEGMENT_FROM:
            return LARGE_SEGMENT
        return -(-size // OWN_SEGMENT_ROUND) * OWN_SEGMENT_ROUND

    def cut(self, block: MemoryBlock, size: int) -> None:
        """Split `block` after `size` bytes; the rest becomes a free block."""
        rest = self._split(block, size)
        rest.state = FREE
        self._list(rest)

    @staticmethod
    def _split(block: MemoryBlock, size: int) -> MemoryBlock:
        rest = MemoryBlock(block.address + size, block.size - size, block.state)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.after, block.size = rest, size
        return rest

    def free(self, block: MemoryBlock) -> None:
        """Take a block back, merged with its free neighbours; a segment's first stays its first (free_block)."""
        block.state = FREE
        after, before = block.after, block.before
        if after is not None and after.state == FREE:
            self._unlist(after)
            _absorb(block, after)
        if before is not None and before.state == FREE:
            self._unlist(before)
            _absorb(before, block)
            block = before
        self._list(block)

    def release(self) -> None:
        """Release segments without a block in use to the driver (release_blocks)."""
        for block in [b for b in self._blocks if b.before is None and b.after is None]:
            self._unlist(block)
            del self.heads[block.address]
            self.reserved -= block.size

    def _list(self, block: MemoryBlock) -> None:
        key = block.size << _ADDRESS_BITS | block.address
        at = bisect_left(self._keys, key)
        self._keys.insert(at, key)
        self._blocks.insert(at, block)

    def _unlist(self, block: MemoryBlock) -> None:
        at = bisect_left(self._keys, block.size << _ADDRESS_BITS | block.address)
        del self._keys[at], self._blocks[at]


def _absorb(block: MemoryBlock, after: MemoryBlock) -> None:
    """Merge `after`, the next block, into `block`."""
    block.size += after.size
    block.after = after.after
    if block.after is not None:
        block.after.before = block


class ExpandablePool(Pool):
    """One range of addresses; memory is mapped page by page, and any whole page can be released."""

    def __init__(self, *, small: bool) -> None:
        super().__init__(small=small)
        self.least_rest = ROUND
        self.page = SMALL_SEGMENT if small else LARGE_SEGMENT
        # sorted by address
        self._unmapped = [MemoryBlock(self._next_address, VIRTUAL_RANGE // self.page * self.page, UNMAPPED)]
        self._base = self._next_address
        self.heads[self._base] = self._unmapped[0]

    @property
    def segments(self) -> int:
        """1 while any memory is mapped, else 0; `torch.cuda.memory_stats` counts none of them."""
        return int(self.reserved > 0)

    def find(self, size: int) -> MemoryBlock | None:
        """As in any pool, but a block next to unmapped addresses counts as large as it could grow."""
        keys, blocks = self._keys, self._blocks
        at = bisect_left(keys, size << _ADDRESS_BITS)
        if at == len(keys):
            return None
        while at + 1 < len(keys) and _could_grow_to(blocks[at + 1]) < _could_grow_to(blocks[at]):
            at += 1
        del keys[at]
        return blocks.pop(at)

    def grow(self, size: int, room: int | None) -> MemoryBlock | None:
        """Map pages at the lowest addresses where `size` bytes fit (try_allocate_expandable_block).

        Pages mapped before `room` ran out stay mapped, free.
        """
        block = next(b for b in map(_with_free_before, self._unmapped) if _fits(b, size))
        while block.state == UNMAPPED or block.size < size:
            # an unmapped block is first only where nothing free lies before it
            hole = block if block.state == UNMAPPED else block.after
            assert hole is not None, "the addresses were seen to suffice"
            missing = size if hole is block else size - block.size
            pages = -(-min(missing, hole.size) // self.page) * self.page
            if room is not None:
                room -= pages
                if room < 0:
                    return None
            block = self._map(hole, pages)
        self._unlist(block)
        return block

    def _map(self, hole: MemoryBlock, size: int) -> MemoryBlock:
        """Map memory to the first `size` bytes of `hole`: a free block, merged with its neighbours (map_block)."""
        at = self._unmapped.index(hole)
        self._unmapped[at : at + 1] = [self._split(hole, size)] if size < hole.size else []
        self.reserved += size
        before = hole.before
        self.free(hole)
        return before if before is not None and before.state == FREE else hole

    def release(self) -> None:
        """Release every page without a byte in use to the driver (release_blocks, unmap_block)."""
        for block in list(self._blocks):  # a block's remainder has no whole page, so the copy suffices
            offset = block.address - self._base
            begin = self._base + -(-offset // self.page) * self.page
            end = self._base + (offset + block.size) // self.page * self.page
            if begin < end:
                self._unlist(block)
                self._unmap(block, begin, end)

    def _unmap(self, block: MemoryBlock, begin: int, end: int) -> None:
        self.reserved -= end - begin
        if end < block.address + block.size:
            self._list(self._split(block, end - block.address))
        if block.address < begin:
            hole = self._split(block, begin - block.address)
            self._list(block)
        else:
            hole = block
        hole.state = UNMAPPED
        after, before = hole.after, hole.before
        if after is not None and after.state == UNMAPPED:
            self._unmapped.remove(after)
            _absorb(hole, after)
        if before is not None and before.state == UNMAPPED:
            _absorb(before, hole)
        else:
            self._unmapped.append(hole)
            self._unmapped.sort(key=lambda b: b.address)


def _could_grow_to(block: MemoryBlock) -> int:
    after = block.after
    return block.size + after.size if after is not None and after.state == UNMAPPED else block.size


def _with_free_before(hole: MemoryBlock) -> MemoryBlock:
    return hole.before if hole.before is not None and hole.before.state == FREE else hole


def _fits(block: MemoryBlock | None, size: int) -> bool:
    """Whether `size` bytes not in use begin with `block`, mapped or not."""
    while block is not None and block.state != IN_USE and size > 0:
        size -= block.size
        block = block.after
    return size <= 0
