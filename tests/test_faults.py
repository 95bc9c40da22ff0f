"""Every fault that the trainer must survive has a test named after it, or says why it has none."""

from __future__ import annotations

from docs.faults import faults, named_after_faults


def test_every_fault_has_a_test_or_a_reason() -> None:
    tests = named_after_faults()
    for fault in faults():
        named = bool(tests.get(fault["number"])) or "soak" in fault
        assert named != ("missing" in fault), f"fault {fault['number']}: {fault['what']}"
    assert [fault["number"] for fault in faults()] == list(range(1, len(faults()) + 1))


def test_no_test_names_a_fault_that_is_not_listed() -> None:
    assert set(named_after_faults()) <= {fault["number"] for fault in faults()}
