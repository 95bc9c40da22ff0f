"""Ranks on GPUs that are not there: each has its own, set before anything else; NCCL for tensors, gloo for words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from planner.errors import InputError, PlanError
from reference_trainer import execute as executing
from reference_trainer.device.device import device_of_rank, pick_device
from reference_trainer.device.os_signals import StopSignals
from reference_trainer.distributed import ranks as ranks_module
from reference_trainer.distributed.ranks import Ranks, process_group
from reference_trainer.distributed.requests import ASKED, Requests
from reference_trainer.execute import execute
from reference_trainer.step.options import RunOptions
from tests.reference_trainer.conftest import config_of
from tests.reference_trainer.fake_cuda import FakeCuda
from tests.reference_trainer.predictions.sharded import group_of


def test_a_rank_has_the_gpu_of_its_number(fake_cuda: FakeCuda) -> None:
    assert device_of_rank(None, 1, joined=True) == device_of_rank("cuda", 1, joined=True) == "cuda:1"
    assert device_of_rank("cpu", 1, joined=True) == "cpu"
    assert device_of_rank("cuda:0", 1, joined=False) == "cuda:0"
    assert pick_device("cuda:1") == torch.device("cuda:1") and fake_cuda.current == 1
    with pytest.raises(InputError, match="--device cuda:0 with several ranks"):
        device_of_rank("cuda:0", 1, joined=True)
    with pytest.raises(PlanError, match="no device 'cuda:7'"):
        pick_device(device_of_rank(None, 7, joined=True))


def test_the_gpu_is_set_before_the_group_is_made(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[int, torch.device]] = []

    @contextmanager
    def made(ranks: Ranks, device: torch.device) -> Iterator[Ranks]:
        seen.append((fake_cuda.current, device))
        raise PlanError("enough is known")
        yield ranks

    monkeypatch.setattr(executing, "process_group", made)
    with pytest.raises(PlanError, match="enough is known"):
        execute(config_of(gpus=2), tmp_path / "run", False, RunOptions(), print, Ranks(1, 2, 1, joined=True))
    assert seen == [(1, torch.device("cuda:1"))]


@pytest.mark.parametrize(("kind", "backend"), [("cuda:1", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")])
def test_the_group_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch, kind: str, backend: str) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(ranks_module, "rendezvous", lambda url: iter([(dist.HashStore(), 1, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda name, **rest: given.update(rest, backend=name))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: given.update(destroyed=True))
    device = torch.device(kind)
    with process_group(Ranks(1, 2, 1, joined=True), device) as group:
        assert group.store is not None and not given.get("destroyed")
    assert given["backend"] == backend and given["destroyed"]
    assert (given["rank"], given["world_size"]) == (1, 2)
    assert given["device_id"] == (device if device.type == "cuda" else None)


def test_ranks_that_do_not_meet_are_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str) -> Any:
        raise dist.DistNetworkError("The server socket has failed to listen\non any address")

    monkeypatch.setattr(ranks_module, "rendezvous", refused)
    with (
        pytest.raises(PlanError, match="rank 1 of 2 does not reach the others") as caught,
        process_group(Ranks(1, 2, 1, joined=True), torch.device("cpu")),
    ):
        pass
    assert caught.value.why == "The server socket has failed to listen"


def test_what_ranks_ask_is_told_without_a_wait() -> None:
    """On tensors without data: a number that the host read, or wrote, could not be there."""
    with group_of(4):
        requests = Requests(StopSignals(), 0.0, Ranks(1, 4, 1, joined=True))
        numbers = requests.with_loss(torch.ones((), device="meta"))
    assert set(numbers) == {"loss", *ASKED}
    assert all(number.is_meta and number.dim() == 0 for number in numbers.values())


def test_all_ranks_learn_who_was_asked() -> None:
    requests = Requests(StopSignals(), None, Ranks(0, 4, 0, joined=True))
    quiet = dict.fromkeys(ASKED, 0.0)
    requests.learn(quiet)
    assert not requests.stop() and not requests.take_save() and requests.exit_code == 0
    requests.learn(quiet | {"save_asked": 1.0})
    assert requests.take_save() and not requests.take_save()
    requests.learn(quiet | {"terminated": 1.0, "asked_rank": 3.0})
    assert requests.stop() and requests.exit_code == 143 and requests.asked_rank == 3
    requests.learn(quiet | {"interrupted": 2.0, "asked_rank": 3.0})
    assert requests.exit_code == 143, "the first one counts"
    timed = Requests(StopSignals(), 0.0, Ranks(0, 4, 0, joined=True))
    assert not timed.stop(), "its own time is up, but nobody knows yet"
    timed.learn(quiet | {"out_of_time": 2.0})
    assert timed.stop() and timed.exit_code == 0
