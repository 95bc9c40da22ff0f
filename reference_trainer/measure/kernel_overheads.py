"""Times of a step outside its kernels: new memory pages, graph nodes, and starts of the autograd engine."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

from reference_trainer.measure.kernel_pool import KernelCall, TensorPool

CHAIN = 64  # nodes in the graph whose time, divided by them, is the cost of one
# Larger blocks are mapped afresh and given back when freed, and each page costs a fault (glibc 2.41, mallopt(3):
# DEFAULT_MMAP_THRESHOLD_MAX on 64-bit systems). GPUs keep their memory.
HEAP_LARGEST = 32 << 20
TINY = 16  # elements of a tensor that costs its overhead only


def backward_call(out: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> KernelCall:
    """A call of autograd for these inputs; the graph is kept."""
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


def leaves_of(*tensors: Tensor) -> list[Tensor]:
    """The tensors as leaves of a graph."""
    return [tensor.detach().requires_grad_() for tensor in tensors]


def fresh_pages(pool: TensorPool, dtype: str, sizes: tuple[int, ...]) -> KernelCall:
    """Zeros in newly mapped memory."""
    size = sizes[0]
    if pool.device.type == "cpu" and size > HEAP_LARGEST:
        # as the C library does it, but where the heap happens to have such a hole it would fill that instead
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # Python's default is shared pages, which cost twice as much
        return lambda: torch.frombuffer(mmap.mmap(-1, size, flags=private), dtype=torch.uint8).zero_()
    return lambda: torch.empty(size, dtype=torch.uint8, device=pool.device).zero_()


def refill(pool: TensorPool, dtype: str, sizes: tuple[int, ...]) -> KernelCall:
    """Zeros in memory that is mapped already."""
    held = torch.empty(sizes[0], dtype=torch.uint8, device=pool.device)
    return lambda: held.zero_()


def dispatch(pool: TensorPool, dtype: str, sizes: tuple[int, ...]) -> KernelCall:
    """CHAIN graph nodes without a kernel, forward and backward."""
    (leaf,) = leaves_of(pool.random(dtype, TINY))
    grad = pool.random(dtype, TINY)

    def call() -> object:
        out = leaf
        for _ in range(CHAIN):
            out = out.view(TINY)  # a node with no kernel: what it takes is bookkeeping
        return torch.autograd.grad(out, leaf, grad)

    return call


def engine(pool: TensorPool, dtype: str, sizes: tuple[int, ...]) -> KernelCall:
    """The start of the autograd engine for one node."""
    (leaf,) = leaves_of(pool.random(dtype, TINY))
    return backward_call(leaf.view(TINY), [leaf], pool.random(dtype, TINY))
