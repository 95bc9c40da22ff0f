"""Faults of one rank of two: the other stops in time, one message has the rank's number, the last checkpoint is good.

Ranks are forks that meet by gloo. What torchrun's agent does, to end the others when one has ended, the harness does.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

import reference_trainer.step.optimizer_step as steps
from planner.config.parallel import ParallelConfig
from planner.errors import PlanError
from reference_trainer.checkpoint import atomic, checkpoint
from reference_trainer.checkpoint.atomic import list_checkpoints, problem_with
from reference_trainer.data.samples import MicroBatch
from reference_trainer.distributed.launch import exit_code_of
from reference_trainer.distributed.ranks import Ranks
from reference_trainer.distributed.watch import Told, who_hangs
from reference_trainer.step.optimizer_step import summed_loss
from tests.reference_trainer.conftest import written_text
from tests.reference_trainer.distributed.gloo_ranks import train_on
from tests.reference_trainer.distributed.test_replicas import on, rows_of
from tests.soak import some

AGAIN = "gptplan run --resume RUN --nproc 2"


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def out_of_memory() -> None:
    """The next forward pass finds no memory."""

    def refused(model: nn.Module, inputs: MicroBatch) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    vars(steps)["summed_loss"] = refused


def nonsense() -> None:
    """The losses of this rank are NaN from now on."""

    def odd(model: nn.Module, inputs: MicroBatch) -> Tensor:
        return summed_loss(model, inputs) * math.nan

    vars(steps)["summed_loss"] = odd


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def asleep() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def harmed(tmp_path: Path, fault: Callable[[], None], **options: object) -> tuple[list[int], list[str]]:
    """A run on two ranks that saves after every second step; before step 4 the fault befalls rank 1 alone."""

    def befall(rank: int, step: int) -> None:
        if (rank, step) == (1, 4):
            fault()

    config = on(2, steps=40, checkpoint_every=2)
    return train_on(2, config, tmp_path / "run", written_text(tmp_path), before_step=befall, **options)


def last_is_good(tmp_path: Path, step: int = 2) -> bool:
    """Whether the newest checkpoint is that of `step`, and whole."""
    newest = list_checkpoints(tmp_path / "run/checkpoints")[-1]
    return newest.name == f"step-{step:08d}" and not problem_with(newest)


def test_fault_24_a_rank_dies(tmp_path: Path) -> None:
    codes, said = harmed(tmp_path, killed)
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    assert "Traceback" not in said[0] and last_is_good(tmp_path)
    with pytest.raises(PlanError, match="rank 1 of 2 died: SIGKILL") as caught:
        exit_code_of(dict(enumerate(codes)), 2, AGAIN)
    assert AGAIN in caught.value.remedy


def test_fault_24_a_rank_alone_runs_out_of_memory(tmp_path: Path) -> None:
    codes, said = harmed(tmp_path, out_of_memory)
    assert codes[1] == 2 and exit_code_of(dict(enumerate(codes)), 2, AGAIN) == 2
    assert "error: rank 1 of 2: this machine ran out of memory in step 4" in said[1]
    assert "error" not in said[0] and "Traceback" not in said[0] and last_is_good(tmp_path)


# one that sleeps and takes no signal is ended by the same watch: in `make soak`
@pytest.mark.parametrize("fault", some([stopped, asleep], lambda fault: fault is stopped))
def test_fault_25_a_rank_hangs(tmp_path: Path, fault: Callable[[], None]) -> None:
    codes, said = harmed(tmp_path, fault, rank_timeout=2.0)
    assert codes == [2, -signal.SIGKILL], said
    assert "error: rank 1 of 2 hangs: nothing has moved for 2 s" in said[0] and "Traceback" not in said[0]
    assert last_is_good(tmp_path)


def test_fault_24_the_loss_of_a_rank_alone_is_not_finite(tmp_path: Path) -> None:
    """All skip the update, as one rank would, and stop together with a report."""
    codes, said = harmed(tmp_path, nonsense)
    assert codes == [2, 2] and said[1] == "", said
    assert "step 4: loss nan, gradient norm nan (the loss of rank 1 alone is not finite); the update was" in said[0]
    assert said[0].count("error: training stopped at step") == 1
    rows = rows_of(tmp_path / "run")
    assert [row["updated"] for row in rows][2:4] == [True, False] and (tmp_path / "run/report.md").exists()
    assert not problem_with(list_checkpoints(tmp_path / "run/checkpoints")[-1])


def test_fault_07_a_shard_that_the_disk_refuses_fails_the_save_on_all_ranks(tmp_path: Path) -> None:
    """Of rank 1 while it writes its rows, then of rank 0 before anybody writes: the next save is whole."""
    once = list[str]()

    def refuse(module: Any, name: str) -> None:
        before = getattr(module, name)

        def refused(*args: Any) -> Any:
            if name not in once:
                once.append(name)
                raise OSError(errno.ENOSPC, "No space left on device")
            return before(*args)

        vars(module)[name] = refused

    def befall(rank: int, step: int) -> None:
        if (rank, step) == (1, 4):
            refuse(checkpoint, "save_file")
        elif (rank, step) == (0, 6):
            refuse(atomic, "sync")

    config = on(2, steps=8, checkpoint_every=2).model_copy(update={"parallel": ParallelConfig(fsdp=True)})
    codes, said = train_on(2, config, tmp_path / "run", written_text(tmp_path), before_step=befall)
    assert codes == [0, 0] and said[1] == "", said
    assert "the checkpoint of step 4 could not be written" in said[0] and "rank 1: [Errno 28]" in said[0]
    assert "the checkpoint of step 6 could not be written" in said[0]
    saved = list_checkpoints(tmp_path / "run/checkpoints")
    assert [path.name for path in saved] == ["step-00000002", "step-00000008"]
    assert not any(map(problem_with, saved)) and not list((tmp_path / "run/checkpoints").glob(".tmp*"))


R2 = Ranks(0, 3, joined=True)


@pytest.mark.parametrize(
    ("counts", "beats", "words"),
    [
        ((9, 8, 9), (3, 3, 3), "rank 1 of 3 hangs"),
        ((9, 8, 8), (3, 3, 3), "ranks 1, 2 of 3 hang:"),
        ((9, 9, 9), (3, 2, 3), "rank 1 of 3 hangs"),
        ((9, 9, 9), (3, 3, 3), "all ranks hang"),
        ((8, 9, 9), (3, 3, 3), None),  # this one hangs itself: rank 1 says so
    ],
)
def test_who_hangs(counts: tuple[int, ...], beats: tuple[int, ...], words: str | None) -> None:
    before = {rank: Told(2, count) for rank, count in enumerate(counts)}
    now = {rank: Told(beat, count) for rank, (beat, count) in enumerate(zip(beats, counts, strict=True))}
    found = who_hangs(before, now, R2, 600.0)
    assert (found is None) if words is None else (found is not None and words in found.what)
    moved = now | {2: Told(3, counts[2] + 1)}
    assert who_hangs(before, moved, R2, 600.0) is None, "they move again"


def test_the_code_of_a_run_is_that_of_the_rank_that_says_why() -> None:
    assert exit_code_of({}, 2, AGAIN) == 0
    assert exit_code_of({0: 75, 1: 2}, 2, AGAIN) == 2
    assert exit_code_of({0: -signal.SIGTERM, 1: 143}, 2, AGAIN) == 143
    with pytest.raises(PlanError, match="rank 1 of 2 died: SIGSEGV"):
        exit_code_of({0: -signal.SIGTERM, 1: -signal.SIGSEGV}, 2, AGAIN)
