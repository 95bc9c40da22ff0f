"""The ledger: bytes by component, peaks by phase, and the list of events."""

from __future__ import annotations

from planner.memory.kernel_scratch import ColumnSum
from planner.memory.ledger import Ledger, LocalMaximum


def test_a_peak_is_the_most_bytes_alive_at_once_in_its_phase() -> None:
    ledger = Ledger()
    ledger.phase("first")
    ledger.allocate("activations", 10)
    ledger.allocate("temporary", 5)
    ledger.release("temporary", 5)
    ledger.allocate("temporary", 4)
    ledger.phase("second")
    ledger.release("activations", 10)
    first, second = ledger.phases
    assert (first.phase, first.peak_bytes) == ("first", 15)
    assert first.at_peak["activations"] == 10 and first.at_peak["temporary"] == 5
    assert (second.phase, second.peak_bytes) == ("second", 14)
    assert ledger.total == 4
    assert ledger.max_by_component["temporary"] == 5


def test_relabelled_bytes_change_the_component_and_not_the_total() -> None:
    ledger = Ledger()
    ledger.allocate("temporary", 7)
    ledger.relabel("temporary", "activations", 3)
    assert ledger.total == 7
    assert (ledger.live["temporary"], ledger.live["activations"]) == (4, 3)
    assert ledger.max_by_component["activations"] == 3


def test_a_change_is_repeated_without_a_peak_of_its_own() -> None:
    """What falls is released before what grows is allocated, as it would be block by block."""
    ledger = Ledger()
    ledger.phase("blocks")
    ledger.allocate("activations", 100)
    before = dict(ledger.live)
    ledger.allocate("gradients", 20)
    ledger.release("activations", 10)
    ledger.repeat(before, 3)
    assert ledger.live["activations"] == 100 - 4 * 10
    assert ledger.live["gradients"] == 4 * 20
    assert ledger.phases[-1].peak_bytes == 60 + 80


def test_events_pair_each_release_with_its_allocation_and_leave_out_empty_ones() -> None:
    events: list[tuple[int, int]] = []
    ledger = Ledger(events)
    one, none, two = (ledger.allocate("temporary", size) for size in (8, 0, 16))
    ledger.release("temporary", 16, two)
    ledger.release("temporary", 0, none)
    ledger.release("temporary", 8, one)
    assert events == [(one, 8), (two, 16), (two, 0), (one, 0)]


def test_scratch_of_a_kernel_raises_the_peak_while_it_runs_and_leaves_nothing() -> None:
    events: list[tuple[int, int]] = []
    ledger, kernel = Ledger(events), ColumnSum(8, 4, 2)
    ledger.maxima = []
    ledger.phase("backward")
    before = ledger.allocate("gradients", 100)
    ledger.run_kernel(kernel, (30, 2))
    after = ledger.allocate("gradients", 5)
    ledger.release("gradients", 5, after)
    ledger.run_kernel(kernel, ())
    assert ledger.phases[-1].peak_bytes == 132
    assert ledger.phases[-1].at_peak["temporary"] == 32 == ledger.max_by_component["temporary"]
    assert ledger.total == 100 and ledger.live["temporary"] == 0
    one, two = before + 1, before + 2
    assert events == [(before, 100), (one, 30), (two, 2), (one, 0), (two, 0), (after, 5), (after, 0)]
    runs = LocalMaximum("backward", 100, kernel)
    assert ledger.maxima == [runs, LocalMaximum("backward", 105), runs]
