"""Every test has a time limit, and the suite neither fails nor hangs where it runs in the background."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import at_terminal, child

ROOT = Path(__file__).resolve().parent.parent
IN_BACKGROUND = ("sh", "-c", 'trap "" INT HUP QUIT; exec "$0" "$@"', sys.executable)  # as `nohup … &` in a script


def test_every_test_has_a_time_limit(request: pytest.FixtureRequest) -> None:
    config = request.config
    usual, hardest = float(config.getini("timeout")), float(config.getini("faulthandler_timeout"))
    assert 0 < usual <= 120 and config.getini("timeout_method") == "signal"
    assert config.getini("faulthandler_exit_on_timeout")
    for path in (ROOT / "tests").rglob("test_*.py"):
        for seconds in re.findall(r"mark\.timeout\((.*?)\)", path.read_text(encoding="utf-8")):
            assert 0 < float(seconds) < hardest, path  # the alarm comes first, and the worker lives


HANGING = """
import subprocess, sys, time
from tests.processes import child

def test_hangs():
    with child([sys.executable, "-c", "import time; time.sleep(1000)"]) as process:
        print("child", process.pid, flush=True)
        process.wait()

def test_goes_on():
    pass
"""


def test_a_test_that_hangs_fails_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    options = ("--rootdir", str(tmp_path), "-c", str(ROOT / "pyproject.toml"), "-n", "0", "--timeout", "1")
    done = run_pytest(str(tmp_path / "test_hanging.py"), *options)
    assert done.returncode == 1 and "1 failed, 1 passed" in done.stdout and "Timeout" in done.stdout
    (pid,) = re.findall(r"child (\d+)", done.stdout)
    assert not Path("/proc", pid).exists()


def run_pytest(*words: str, start: tuple[str, ...] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    command = [*start, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_test_that_interrupts_a_program_passes_in_the_background(workers: str) -> None:
    one = "tests/gptplan/test_wizard.py::test_ctrl_c_at_a_terminal_is_130"
    done = run_pytest("-n", workers, one, start=IN_BACKGROUND)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_tests_go_on_ignoring_what_was_ignored() -> None:
    code = (
        "import os, signal, subprocess, sys\n"
        "from tests.processes import restore_for_children\n"
        "print(*sorted(n.name for n in restore_for_children()))\n"
        "for number in (signal.SIGINT, signal.SIGHUP):\n    os.kill(os.getpid(), number)\n"
        "ask = 'import signal; print(*map(repr, map(signal.getsignal, (signal.SIGHUP, signal.SIGINT))))'\n"
        "print(subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True).stdout)"
    )
    done = subprocess.run([*IN_BACKGROUND, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ignored, children = done.stdout.strip().splitlines()
    assert ignored == "SIGHUP SIGINT SIGQUIT"
    assert "SIG_DFL" in children and "default_int_handler" in children


def test_a_child_does_not_outlive_its_block() -> None:
    nested = "import subprocess, sys; subprocess.run(['sleep', '1000'])"
    with child([sys.executable, "-c", nested]) as process:
        time.sleep(0.3)
    assert process.returncode == -signal.SIGKILL


def test_a_terminal_says_what_was_missing() -> None:
    with at_terminal([sys.executable, "-c", "print('some words')"]) as terminal:
        with pytest.raises(AssertionError, match="'other words' was never shown, only b'some words"):
            terminal.until(b"other words")
        assert terminal.rest() == 0
