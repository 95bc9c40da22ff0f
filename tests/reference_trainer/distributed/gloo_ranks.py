"""Ranks for tests: forks of this process, which has loaded PyTorch already, that meet by gloo.

The store is here, as an agent's would be: no port has to be guessed, and it outlives any rank.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

import reference_trainer.train as loop
from planner.config.run import RunConfig
from planner.errors import PlanError
from reference_trainer.distributed.endings import spoken_once
from reference_trainer.distributed.ranks import Ranks, ranks_of_environment
from reference_trainer.execute import execute
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import StepContext, train_step
from reference_trainer.step.step_results import PendingStep

WAIT_SECONDS = 100.0
KILL_SECONDS = 5.0  # from SIGTERM to SIGKILL; the agent gives 30
BeforeStep = Callable[[int, int], None]


class RankProcesses:
    """`world` forks that call `work(ranks)`; its return value is the exit code. Their stderr is a file of `folder`."""

    def __init__(self, world: int, work: Callable[[Ranks], int], folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        self.pids = [self._fork(rank, world, work) for rank in range(world)]

    def _fork(self, rank: int, world: int, work: Callable[[Ranks], int]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
            pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            warnings.simplefilter("ignore")  # of PyTorch itself, when it compiles
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(self._store.port)}
            os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            sys.stderr = (self.folder / f"stderr-{rank}").open("w", encoding="utf-8")
            ranks = ranks_of_environment()
            assert ranks is not None
            code = work(ranks)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> list[int]:
        """The exit codes, a signal as a negative one. When a rank fails the others are ended, as torchrun does."""
        codes: dict[int, int] = {}
        end, told = time.monotonic() + WAIT_SECONDS, False
        while len(codes) < len(self.pids):
            for pid in set(self.pids) - set(codes):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
            if any(codes.values()) and not told:
                told, end = True, min(end, time.monotonic() + KILL_SECONDS)
                for pid in set(self.pids) - set(codes):
                    os.kill(pid, signal.SIGTERM)
            time.sleep(0.01)
        return [codes[pid] for pid in self.pids]

    def said(self, rank: int) -> str:
        """What a rank wrote to stderr."""
        return (self.folder / f"stderr-{rank}").read_text(encoding="utf-8")


def training(
    config: RunConfig, directory: Path, data: Path, before_step: BeforeStep | None = None, **options: Any
) -> Callable[[Ranks], int]:
    """The work of one rank of `gptplan run`: exit code 2 and a message for a mistake. before_step: (rank, step)."""

    resume = bool(options.pop("resume", False))
    values: dict[str, Any] = {"device": "cpu", "data_path": data} | options
    chosen = RunOptions(**values)

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def step_of(rank: int) -> Callable[[StepContext, int], PendingStep]:
        def step(context: StepContext, number: int) -> PendingStep:
            if before_step is not None:
                before_step(rank, number)
            return train_step(context, number)

        return step

    def work(ranks: Ranks) -> int:
        vars(loop)["train_step"] = step_of(ranks.rank)  # this process is a fork: nothing has to be put back
        try:
            with spoken_once(ranks, log):
                return execute(config, directory, resume, chosen, log, ranks).exit_code
        except PlanError as error:
            log(f"error: {error.message()}")
            return 2

    return work


def train_on(world: int, config: RunConfig, directory: Path, data: Path, **options: Any) -> tuple[list[int], list[str]]:
    """Train on `world` ranks until they end; returns their exit codes, and what each wrote to stderr."""
    work = training(config, directory, data, **options)
    started = RankProcesses(world, work, directory.parent / f"{directory.name}-ranks")
    return started.wait(), [started.said(rank) for rank in range(world)]
