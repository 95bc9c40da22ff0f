"""Experts' products: the grouped kernel against one product after the other, to the bit, and without waiting."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reference_trainer.model import grouped
from reference_trainer.model.grouped import grouped_linear, has_grouped_kernel

ROWS = {"uneven": (10, 0, 20, 18, 0), "all to one": (0, 48, 0, 0, 0), "even": (10, 10, 10, 9, 9)}
TYPES = (torch.float32, torch.bfloat16, torch.float16)
NEEDS_KERNEL = pytest.mark.skipif(grouped.GROUPED_MM is None, reason="this PyTorch has no grouped product")


def operands(dtype: torch.dtype, rows: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    ends = torch.tensor(rows).cumsum(0).to(torch.int32)
    x, weight = torch.randn(sum(rows), 16), torch.randn(len(rows), 16, 24)
    return (
        x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), ends, torch.randn(sum(rows), 24).to(dtype),
    )  # fmt: skip


def results(dtype: torch.dtype, rows: tuple[int, ...]) -> list[Tensor]:
    x, weight, ends, grad = operands(dtype, rows)
    out = grouped_linear(x, weight, ends)
    out.backward(grad)
    assert x.grad is not None and weight.grad is not None
    return [out.detach(), x.grad, weight.grad]


@NEEDS_KERNEL
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_one_kernel_is_the_loop_to_the_bit(
    dtype: torch.dtype, rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has_grouped_kernel(*operands(dtype, rows)[:2])
    kernel = results(dtype, rows)
    monkeypatch.setattr(grouped, "GROUPED_MM", None)
    assert not has_grouped_kernel(*operands(dtype, rows)[:2])
    for a, b in zip(kernel, results(dtype, rows), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(kernel[2][i], torch.zeros(16, 24, dtype=dtype)) for i, n in enumerate(rows) if n == 0)


def test_each_row_meets_the_matrix_of_its_expert() -> None:
    for rows in ROWS.values():
        x, weight, ends, _ = operands(torch.float64, rows)  # no kernel has this type
        assert not has_grouped_kernel(x, weight)
        expected = [x[a:b] @ w for (a, b), w in zip(pairwise([0, *ends.tolist()]), weight, strict=True)]
        assert torch.allclose(grouped_linear(x, weight, ends), torch.cat(expected), rtol=1e-12)
        assert torch.autograd.gradcheck(lambda x, w: grouped_linear(x, w, ends), (x, weight))  # noqa: B023


class _Reads(TorchDispatchMode):
    """Counts what makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten._to_copy.default)
        return func(*args, **(kwargs or {}))


@NEEDS_KERNEL
def test_the_host_does_not_wait_for_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tolist` of a tensor on a device copies it; here it would be seen as the use of the function that calls it."""
    monkeypatch.setattr(grouped, "rows_per_expert", lambda *_: pytest.fail("the host reads the counts"))
    with _Reads() as reads:
        results(torch.float32, ROWS["uneven"])
    assert reads.count == 1  # the ends of `operands` become int32


def test_a_gpu_needs_bf16_and_rows_of_whole_16_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        is_cuda, is_meta, device = True, False, torch.device("cuda", 0)

        def __init__(self, dtype: torch.dtype, *shape: int) -> None:
            self.dtype, self.shape = dtype, shape

        def element_size(self) -> int:
            return self.dtype.itemsize

    def has(dtype: torch.dtype, inputs: int, outputs: int, capability: tuple[int, int] = (9, 0)) -> bool:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(grouped, "GROUPED_MM", print)
        return has_grouped_kernel(OnGpu(dtype, 8, inputs), OnGpu(dtype, 4, inputs, outputs))  # type: ignore[arg-type]

    assert has(torch.bfloat16, 64, 128) and has(torch.bfloat16, 64, 8)
    assert not has(torch.bfloat16, 64, 12) and not has(torch.bfloat16, 60, 128)
    assert not has(torch.float32, 64, 128) and not has(torch.float16, 64, 128)
    assert not has(torch.bfloat16, 64, 128, capability=(7, 5))
