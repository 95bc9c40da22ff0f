"""Starts the ranks of a run on this machine, by torchrun's elastic agent, and says what became of them.

Each rank is a process of its own that runs the same command; the agent tells it in the environment who it is, and ends
the others when one fails. Signals go to all ranks once: they stop together, after the same step, and save.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from planner.errors import PlanError

LOST_OTHERS = 75  # exit code of a rank that could not go on because another one was gone (EX_TEMPFAIL of sysexits.h)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LOOK_SECONDS = 0.1  # how soon the end of a rank is seen


def launch(nproc: int, command: Sequence[str], resume_with: str) -> int:
    """Run `command` as `nproc` ranks and wait; returns the exit code of the run.

    resume_with: what continues the run. Raises PlanError with the name of a rank that died without a message.
    """
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    _silence_agent()
    # the agent would turn signals into an end within 30 s, in which no large checkpoint is written
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"
    if nproc > 1:  # as many threads as the machine has cores for, among all ranks
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc)))
    here = RendezvousParameters(
        backend="c10d",
        endpoint="localhost:0",
        run_id=uuid.uuid4().hex,
        min_nodes=1,
        max_nodes=1,
        local_addr="localhost",
    )
    spec = WorkerSpec(
        role="rank",
        local_world_size=nproc,
        rdzv_handler=get_rendezvous_handler(here),
        entrypoint=command[0],
        args=tuple(command[1:]),
        max_restarts=0,
        monitor_interval=_LOOK_SECONDS,
    )
    with tempfile.TemporaryDirectory(prefix="gptplan-ranks-") as folder:
        agent = LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=folder))
        with _forwarded(agent):
            result = agent.run()
    return exit_code_of({rank: failure.exitcode for rank, failure in result.failures.items()}, nproc, resume_with)


def exit_code_of(failed: Mapping[int, int], nproc: int, resume_with: str) -> int:
    """The exit code of a run, by those of its ranks that did not end well; a signal is a negative one.

    Raises PlanError with the name of a rank that died of a signal, or that had nobody left to talk to.
    """
    spoken = [code for _, code in sorted(failed.items()) if code > 0 and code != LOST_OTHERS]
    if spoken or not failed:
        return spoken[0] if spoken else 0
    # those that the agent ended because another rank was gone have SIGTERM; a rank itself does not die of it
    killed = {rank: -code for rank, code in failed.items() if code < 0 and code != -signal.SIGTERM} or {
        rank: -code if code < 0 else code for rank, code in failed.items()
    }
    rank, number = min(killed.items())
    name = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {number}"
    raise PlanError(
        f"rank {rank} of {nproc} died: {name}",
        why="the system ends a process that takes too much memory with SIGKILL; see its log (dmesg)"
        if number == signal.SIGKILL
        else "it said nothing before; the other ranks were stopped",
        remedy=f"continue from the last checkpoint: {resume_with}",
    )


def _silence_agent() -> None:
    """The agent's own messages are about its insides; what a user needs is said here."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextmanager
def _forwarded(agent: Any) -> Iterator[None]:
    """Signals to this process go to every rank, once each, while the block runs. What is ignored stays ignored."""

    def forward(number: int, frame: FrameType | None) -> None:
        started = [worker.id for worker in agent.get_worker_group().workers if isinstance(worker.id, int)]
        for process in started:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        if not started and number != signal.SIGUSR1:
            sys.exit(128 + number)  # no rank is there yet

    before = {n: signal.signal(n, forward) for n in FORWARDED if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
