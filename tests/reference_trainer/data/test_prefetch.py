"""Prefetching changes no micro-batch: each belongs to its step, whatever was prefetched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from reference_trainer.data.prefetch import Prefetcher

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)
pytestmark = pytest.mark.usefixtures("fake_cuda")  # the thread makes the card its current one


class HostBatch:
    """Stands for a micro-batch: `moved` notes that it was called, since no GPU is here to pin memory for."""

    def __init__(self, step: int, micro: int) -> None:
        self.position, self.moves = (step, micro), 0

    def moved(self, move: Callable[[Any], Any]) -> HostBatch:
        self.moves += 1
        return self


class Maker:
    """Makes batches and notes which, and in which thread."""

    def __init__(self) -> None:
        self.made: list[tuple[int, int]] = []
        self.threads: set[str] = set()

    def __call__(self, step: int, micro: int) -> Any:
        self.made.append((step, micro))
        self.threads.add(threading.current_thread().name)
        return HostBatch(step, micro)


@pytest.fixture
def made() -> Maker:
    return Maker()


@pytest.fixture(params=[CPU, GPU], ids=["cpu", "cuda"])
def prefetcher(request: pytest.FixtureRequest, made: Maker) -> Iterator[Prefetcher]:
    found = Prefetcher(made, 3, request.param)
    yield found
    found.close()


def positions(prefetcher: Prefetcher, wanted: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [prefetcher.take(step, micro).position for step, micro in wanted]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "wanted",
    [
        [(step, micro) for step in (1, 2, 3) for micro in range(3)],
        [(1, 0), (1, 1), (1, 2), (2, 0), (1, 0), (1, 1)],  # a rollback to step 1 in the middle of what was ahead
        [(5, 2), (9, 0), (9, 0)],  # skipped data, and the same again
    ],
    ids=["in order", "rollback", "skip"],
)
def test_each_micro_batch_is_that_of_its_position(prefetcher: Prefetcher, wanted: list[tuple[int, int]]) -> None:
    assert positions(prefetcher, wanted) == wanted


def test_a_cpu_makes_each_batch_when_it_is_taken(made: Maker) -> None:
    prefetcher = Prefetcher(made, 3, CPU)
    positions(prefetcher, [(1, 0), (1, 1)])
    prefetcher.close()
    assert made.made == [(1, 0), (1, 1)] and made.threads == {threading.current_thread().name}


def test_for_a_gpu_the_next_batch_is_made_by_a_thread_once_and_goes_past_the_end_of_a_step(made: Maker) -> None:
    prefetcher = Prefetcher(made, 2, GPU)
    positions(prefetcher, [(1, 0), (1, 1), (2, 0)])
    prefetcher.close()
    assert made.made[:3] == [(1, 0), (1, 1), (2, 0)] and set(made.made[3:]) <= {(2, 1)}
    assert any(name.startswith("prefetch") for name in made.threads)


def test_for_a_gpu_a_batch_is_pinned_and_then_copied(made: Maker) -> None:
    prefetcher = Prefetcher(made, 1, GPU)
    taken: list[Any] = [prefetcher.take(step, 0) for step in (1, 2)]
    prefetcher.close()
    assert [batch.moves for batch in taken] == [2, 2]


def test_an_error_in_the_thread_is_raised_where_the_batch_is_taken() -> None:
    def broken(step: int, micro: int) -> Any:
        if step == 2:
            raise ValueError("a damaged shard")
        return HostBatch(step, micro)

    prefetcher = Prefetcher(broken, 1, GPU)
    prefetcher.take(1, 0)
    with pytest.raises(ValueError, match="a damaged shard"):
        prefetcher.take(2, 0)
    prefetcher.close()


def test_the_time_waited_is_reported_once(prefetcher: Prefetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 20.0, 20.5])
    monkeypatch.setattr("reference_trainer.data.prefetch.time.perf_counter", lambda: next(clock))
    positions(prefetcher, [(1, 0), (1, 1)])
    assert prefetcher.waited() == 3.0 and prefetcher.waited() == 0.0
