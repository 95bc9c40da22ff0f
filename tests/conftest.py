"""For every test: it and its children react to signals even where `make test` runs in the background."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.machine_profile import shared_cache
from tests.processes import restore_for_children

# One thread in every test process and its children, before any of them loads PyTorch: there is a worker for each core,
# and matrices as small as those of tests gain nothing from threads. The compiler starts no processes of its own.
os.environ |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

# Our modules are compiled once, in __pycache__, and not anew by each of 150 child processes and at every collection:
# a quarter of the seconds of a short command. Containers often set this variable.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    import tests.examples  # noqa: F401  # settings of every property, loaded before any test module

    # not the process that starts the workers: they are its children, and go on ignoring what it ignores
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        restore_for_children()


@pytest.fixture(scope="session")
def machine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For XDG_CACHE_HOME: a cache with a profile of this machine, one for all workers."""
    base = tmp_path_factory.getbasetemp()
    return shared_cache(base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and collected tests stay to the end: the garbage collector need not walk them, now or in any test.

    A quarter of the seconds of tests/tui went into that.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)
        gc.enable()
