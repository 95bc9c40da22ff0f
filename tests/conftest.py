"""Fixtures for all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

USUAL_HANDLERS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGUSR1: signal.SIG_DFL,
}


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """No signal is ignored, in this process and its children, even if pytest itself was started by nohup or with &."""
    before = {number: signal.signal(number, handler) for number, handler in USUAL_HANDLERS.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
