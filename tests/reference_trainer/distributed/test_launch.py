"""The start of ranks, by torchrun's agent: who they are, their exit codes, and signals to the one that started them.

The ranks here are small programs without PyTorch: what they would train is tested in the other files.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.errors import InputError, PlanError
from reference_trainer.distributed.launch import launch
from reference_trainer.distributed.ranks import Ranks, ranks_of_environment, refuse_ranks

NOTE = """
import json, os, pathlib, signal, sys, time
here, rank = pathlib.Path(sys.argv[1]), os.environ["RANK"]
def note(word):
    (here / f"rank-{rank}").write_text(word)
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `launch` sets for its children stays in the test."""
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_SIGNALS_TO_HANDLE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("OMP_NUM_THREADS")
    quit_handler = signal.getsignal(signal.SIGQUIT)
    yield
    signal.signal(signal.SIGQUIT, quit_handler)


def launched(tmp_path: Path, program: str) -> int:
    return launch(2, [sys.executable, "-c", NOTE + program, str(tmp_path)], "gptplan run --resume RUN --nproc 2")


def test_each_rank_knows_who_it_is(tmp_path: Path) -> None:
    names = "RANK WORLD_SIZE LOCAL_RANK OMP_NUM_THREADS"
    assert launched(tmp_path, f"note(json.dumps({{name: os.environ[name] for name in '{names}'.split()}}))") == 0
    told = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert [(each["RANK"], each["WORLD_SIZE"], each["LOCAL_RANK"]) for each in told] == [
        ("0", "2", "0"),
        ("1", "2", "1"),
    ]
    assert int(told[0]["OMP_NUM_THREADS"]) == max(1, (os.cpu_count() or 1) // 2)


def test_a_rank_that_fails_ends_the_others(tmp_path: Path) -> None:
    assert launched(tmp_path, "sys.exit(2) if rank == '1' else time.sleep(60)") == 2


def test_fault_24_a_rank_that_is_killed_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="rank 1 of 2 died: SIGKILL") as caught:
        launched(tmp_path, "os.kill(os.getpid(), signal.SIGKILL) if rank == '1' else time.sleep(60)")
    assert "gptplan run --resume RUN --nproc 2" in caught.value.remedy


def test_fault_21_a_signal_reaches_every_rank_once(tmp_path: Path) -> None:
    """They may take longer than the agent would give them, and end with their own code."""
    program = """
got = []
signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
note("ready")
while not got:
    time.sleep(0.01)
time.sleep(0.3)
note(f"saved {len(got)}")
files = [here / f"rank-{n}" for n in (0, 1)]
while not all(file.read_text().startswith("saved") for file in files):
    time.sleep(0.01)  # as ranks do: when the first has ended the agent ends the others
sys.exit(143)
"""

    def terminate() -> None:
        end = time.monotonic() + 60
        files = [tmp_path / f"rank-{rank}" for rank in (0, 1)]
        while time.monotonic() < end and not all(file.exists() and file.read_text() == "ready" for file in files):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    assert launched(tmp_path, program) == 143
    thread.join()
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["saved 1", "saved 1"]


def test_who_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert ranks_of_environment() is None
    values = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert ranks_of_environment() == Ranks(3, 4, 1, joined=True)
    with pytest.raises(InputError, match="lr-find runs on one device, and this is rank 3 of 4"):
        refuse_ranks("lr-find")
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(InputError, match="not those of a rank"):
        ranks_of_environment()
