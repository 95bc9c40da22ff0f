"""pytest again and again in children of one process that has imported PyTorch: each saves four seconds of imports."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

MEMORY = 8 << 30  # bytes of data: a fault may allocate without end
OPTIONS = ("-n0", "-x", "-q", "--no-header", "-p", "no:randomly", "-o", "timeout=60", "-p", "no:cacheprovider")


class WarmPytest:
    """Runs tests of a copy of the repository; the process that makes it must not have imported our packages."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        os.environ["OMP_NUM_THREADS"] = "1"
        import numpy  # noqa: F401
        import pydantic  # noqa: F401
        import pytest  # noqa: F401
        import torch
        import typer  # noqa: F401

        torch.set_num_threads(1)

    def first_failure(self, tests: list[str], limit: float) -> str | None:
        """The name of the first test that fails, None if all pass.

        A file that cannot be imported is named itself, and the first file where pytest ends without a word. None too
        where the limit, in seconds, passes first: no test has failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "failed.json"
            child = multiprocessing.get_context("fork").Process(target=_child, args=(self.copy, tests, report))
            child.start()
            child.join(limit)
            ended = child.exitcode
            with suppress(ProcessLookupError, PermissionError):
                assert child.pid is not None
                os.killpg(child.pid, signal.SIGKILL)  # whatever it started, too
            child.join()
            if report.exists():
                named = json.loads(report.read_text(encoding="utf-8"))
                return str(named) if named else None
            # killed, or ended without pytest's word: the file that ran is not known
            return None if ended is None else tests[0]


def _child(copy: Path, tests: list[str], report: Path) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.chdir(copy)
    # the copy's packages, in this process and in the commands that its tests start
    sys.path[:] = [str(copy), *(p for p in sys.path if p and not (Path(p) / "planner").is_dir())]
    os.environ["PYTHONPATH"] = str(copy)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("planner", "benchmarks", "tests", "gptplan")]:
        del sys.modules[name]
    import pytest

    class Failures:
        """Keeps the name of the first failure."""

        first = ""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed and not self.first:
                self.first = report.nodeid

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed and not self.first:
                self.first = report.nodeid

    failures = Failures()
    code = pytest.main([*OPTIONS, *tests], plugins=[failures])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and not failures.first:
        failures.first = tests[0]  # of another kind: conftest.py cannot be imported
    report.write_text(json.dumps(failures.first), encoding="utf-8")
    os._exit(0)
