"""The pool of operands: views that do not overlap, of the requested shape and dtype; new tensors at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from reference_trainer.measure import kernel_pool
from reference_trainer.measure.kernel_pool import TIMED_DTYPES, TensorPool

ELEMENTS = 1000


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorPool]:
    monkeypatch.setattr(kernel_pool, "POOL_ELEMENTS", ELEMENTS)
    yield TensorPool(torch.device("cpu"))


def span(t: torch.Tensor) -> range:
    return range(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size())


@pytest.mark.parametrize("dtype", TIMED_DTYPES)
def test_views_have_their_shape_and_do_not_overlap(pool: TensorPool, dtype: str) -> None:
    views = [pool.random(dtype, 10, 20), pool.random(dtype, 300), pool.scratch(dtype, 5, 5, 4), pool.scratch(dtype, 7)]
    assert [tuple(v.shape) for v in views] == [(10, 20), (300,), (5, 5, 4), (7,)]
    assert all(v.is_contiguous() for v in views) and len({v.dtype for v in views}) == 1
    for i, one in enumerate(views):
        assert not any(set(span(one)) & set(span(other)) for other in views[i + 1 :])


@pytest.mark.parametrize("dtype", TIMED_DTYPES)
def test_random_numbers_lie_in_the_unit_interval_and_vary(pool: TensorPool, dtype: str) -> None:
    values = pool.random(dtype, 500).float()
    assert values.abs().max() <= 1.0 and values.std() > 0.3


def test_a_scratch_is_zero_each_time_it_is_handed_out(pool: TensorPool) -> None:
    first = pool.scratch("fp32", 50)
    assert not first.any()
    first.fill_(3.0)
    pool.reset()
    again = pool.scratch("fp32", 50)
    assert again.data_ptr() == first.data_ptr() and not again.any()


def test_writing_to_a_scratch_leaves_the_operands_alone(pool: TensorPool) -> None:
    operand = pool.random("fp32", ELEMENTS)
    before = operand.clone()
    pool.scratch("fp32", ELEMENTS).fill_(1e30)
    assert torch.equal(operand, before)


@pytest.mark.parametrize("dtype", TIMED_DTYPES)
def test_beyond_its_end_the_pool_makes_new_tensors(pool: TensorPool, dtype: str) -> None:
    inside = [pool.random(dtype, ELEMENTS), pool.scratch(dtype, ELEMENTS)]
    beyond = [pool.random(dtype, ELEMENTS + 1), pool.scratch(dtype, 3)]
    assert [t.numel() for t in beyond] == [ELEMENTS + 1, 3] and beyond[0].abs().max() <= 1.0 and not beyond[1].any()
    assert not any(set(span(new)) & set(span(old)) for new in beyond for old in inside)
    pool.reset()
    assert pool.random(dtype, 1).data_ptr() == inside[0].data_ptr()
