"""Scratch memory that CUDA kernels take for themselves while they run: sums over rows, and the gradient of a table.

They grow in steps: a kernel cuts its work by the multiprocessors of the card. A plan has them where both numbers of a
card are known (`Multiprocessors`), for the operators of eager PyTorch alone: compiled and fused programs sum in kernels
of their own.

Sources: aten/src/ATen/native/cuda/Reduce.cuh (setReduceConfig, ReduceConfig::global_memory_size) and
aten/src/ATen/native/cuda/EmbeddingBackwardKernel.cu of PyTorch. Checked against the allocations of torch 2.11 on one
H100 (tests/planner/memory/test_kernel_scratch.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from planner.formulas.itemsize import FP32, INT32, INT64
from planner.formulas.ops import ceil_div
from planner.presets import Gpu

THREADS_OF_A_BLOCK = 512  # that a sum uses at most, with one element at a time
WARP = 32
ELEMENTS_AT_ONCE = 4  # neighbouring columns that a thread adds, if their number is divisible
FEWEST_VALUES, MOST_VALUES = 16, 256  # that a thread should add
MOST_OFFSET = 2**31 - 1  # byte: a kernel's largest offset into a tensor; a larger tensor is summed in halves
FEW_INDICES = 3072  # up to which the gradient of a table takes no scratch
ROWS_OF_A_THREAD = 10  # of one index that a thread adds in the gradient of a table


@dataclass(frozen=True, slots=True)
class Multiprocessors:
    """Streaming multiprocessors of a card, and the threads that each holds at most; 0: unknown."""

    number: int
    threads: int


@dataclass(frozen=True, slots=True)
class ColumnSum:
    """The sum over the rows of a contiguous matrix, accumulated in fp32. itemsize: of its elements."""

    rows: int
    columns: int
    itemsize: int

    def sizes(self, card: Multiprocessors) -> tuple[int, ...]:
        """Bytes of the partial sums and of the blocks' semaphores; none if no output is cut among blocks."""
        rows = self.rows
        while rows > 1 and (rows * self.columns - 1) * self.itemsize + 1 > MOST_OFFSET:
            rows = ceil_div(rows, 2)
        at_once = ELEMENTS_AT_ONCE
        while self.columns % at_once:
            at_once //= 2
        groups = self.columns // at_once
        width, height = block_of(groups, rows, THREADS_OF_A_BLOCK // at_once)
        values, grid = ceil_div(rows, height), ceil_div(groups, width)
        target = card.number * (card.threads // (width * height))
        if values < MOST_VALUES or grid > target:
            return ()
        wanted = min(ceil_div(target, grid), ceil_div(values, FEWEST_VALUES))
        parts = max(wanted, ceil_div(values, MOST_VALUES))
        return (FP32 * self.columns * parts * width * at_once, INT32 * grid) if parts > 1 else ()


def block_of(groups: int, rows: int, threads: int) -> tuple[int, int]:
    """Width and height of a sum's blocks of at most so many threads: powers of two."""
    most_groups, most_rows = _power_of_two(min(groups, threads)), _power_of_two(min(rows, threads))
    height = min(most_rows, threads // min(most_groups, WARP))
    return min(most_groups, threads // height), height


def _power_of_two(number: int) -> int:
    """The largest power of two that is not above a positive number."""
    return 1 << (number.bit_length() - 1)


@dataclass(frozen=True, slots=True)
class TableGradient:
    """The gradient of a table of `vocab` rows of `width` from `rows` looked-up ones: sorted, then summed by index."""

    rows: int
    width: int
    vocab: int

    def sizes(self, card: Multiprocessors) -> tuple[int, ...]:
        """Bytes of what is alive beside the gradient at the end, in the order of allocation."""
        if self.rows <= FEW_INDICES or not card.number:
            return ()
        found = min(self.rows, self.vocab)  # different indices at most
        parts = self.rows // ROWS_OF_A_THREAD + found
        by_index = (INT64 * self.rows,) * 3  # sorted indices, their order, where each begins
        by_part = INT64 * found, INT64 * found, INT64, INT64 * parts  # how many parts, where they begin, their number
        return (*by_index, INT64, *by_part, FP32 * parts * self.width)


KernelScratch = ColumnSum | TableGradient


def scratch_sizes(kernel: KernelScratch, card: Multiprocessors) -> tuple[int, ...]:
    """Bytes of each scratch tensor of a kernel on a card; none where the card's multiprocessors are not known."""
    if not card.number or not card.threads:
        return ()
    if isinstance(kernel, ColumnSum):
        return _of_sum(kernel.rows, kernel.columns, kernel.itemsize, card.number, card.threads)
    return _of_table(kernel.rows, kernel.width, kernel.vocab, card.number, card.threads)


# remembered by numbers: comparing the fields of kernels would cost as much as the answer


@lru_cache(4096)
def _of_sum(rows: int, columns: int, itemsize: int, number: int, threads: int) -> tuple[int, ...]:
    return ColumnSum(rows, columns, itemsize).sizes(Multiprocessors(number, threads))


@lru_cache(4096)
def _of_table(rows: int, width: int, vocab: int, number: int, threads: int) -> tuple[int, ...]:
    return TableGradient(rows, width, vocab).sizes(Multiprocessors(number, threads))


def multiprocessors_of(gpu: Gpu | None) -> Multiprocessors:
    """The multiprocessors of a card, unknown (0) where its preset does not have both numbers."""
    if gpu is None or gpu.multiprocessors is None or gpu.threads_per_multiprocessor is None:
        return Multiprocessors(0, 0)
    return Multiprocessors(gpu.multiprocessors, gpu.threads_per_multiprocessor)
