"""For every test: it and its children react to signals even where `make test` runs in the background."""

from __future__ import annotations

import pytest

from tests.processes import restore_for_children


def pytest_configure(config: pytest.Config) -> None:
    # not the process that starts the workers: they are its children, and go on ignoring what it ignores
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        restore_for_children()
