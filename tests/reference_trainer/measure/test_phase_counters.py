"""The allocator's counters read at the borders of phases, on an allocator of our own."""

from __future__ import annotations

import pytest
import torch

from reference_trainer.measure.phase_counters import PhaseCounters

GPU = torch.device("cuda", 0)


class Allocator:
    """Counts as CUDA's caching allocator does: bytes now, and their peak since the last reset."""

    def __init__(self, bytes_before: int) -> None:
        self.now = self.peak = bytes_before

    def take(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)

    def reset(self, device: torch.device) -> None:
        assert device == GPU
        self.peak = self.now

    def stats(self, device: torch.device) -> dict[str, int]:
        assert device == GPU
        return {"requested_bytes.all.current": self.now, "requested_bytes.all.peak": self.peak}


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    made = Allocator(bytes_before=1000)
    monkeypatch.setattr(torch.cuda, "memory_stats", made.stats)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", made.reset)
    return made


def test_each_phase_has_its_own_peak_less_what_was_there_before(allocator: Allocator) -> None:
    allocator.take(5000)
    allocator.take(-5000)  # an earlier peak, of the training that went before
    tracker = PhaseCounters(GPU)
    tracker.phase("init")
    allocator.take(100)
    tracker.phase("forward_end")
    allocator.take(40)
    allocator.take(-30)
    tracker.phase("backward_start")
    allocator.take(5)
    allocator.take(-90)
    assert tracker.track.by_phase() == {"init": 100, "forward_end": 140, "backward_start": 115}
    assert tracker.track.peak.phase == "forward_end" and tracker.track.live_bytes == 25


def test_a_phase_that_returns_keeps_its_highest_peak(allocator: Allocator) -> None:
    tracker = PhaseCounters(GPU)
    for size in (10, 70, 30):
        tracker.phase("forward_end")
        allocator.take(size)
        tracker.phase("backward_start")
        allocator.take(-size)
    assert tracker.track.by_phase() == {"forward_end": 70, "backward_start": 70}


def test_nothing_is_watched_while_it_is_entered(allocator: Allocator) -> None:
    tracker = PhaseCounters(GPU)
    with tracker:
        assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
