"""Which process this is among those that train together, and what they tell each other outside of a step.

A rank is one process with one device. `torchrun`, or `gptplan run --nproc N`, starts them and says in the environment
who each one is. On a GPU tensors of the device go by NCCL; what the host says to hosts goes by gloo, so that nobody
waits for a device to exchange a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from planner.errors import InputError, PlanError

GROUP_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # by the type of the ranks' device
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets for each rank
SILENCE_SECONDS = 1800.0  # a message that does not come for so long ends the process; faults are found sooner


@dataclass(frozen=True, slots=True)
class Ranks:
    """`rank` of `world` processes, the `local`-th on its machine; joined: they are a group, perhaps of one.

    store: words that outlive a broken group, by name; None before the group is there. group: who hears what is said;
    None: the group of all.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    joined: bool = False
    store: Store | None = None
    group: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this rank writes the log, the checkpoints and the report."""
        return self.rank == 0

    def share(self, text: str = "") -> str:
        """The leader's `text`, on every rank. Text, and no objects of Python: what comes is data and runs nothing."""
        if self.world == 1:
            return text
        length = int(self.sums([len(text.encode()) if self.leads else 0])[0])
        room = torch.frombuffer(bytearray(text.encode()) if self.leads else bytearray(length), dtype=torch.uint8)
        dist.broadcast(room, src=0, group=self.group)
        return room.numpy().tobytes().decode()

    def gather(self, text: str) -> list[str]:
        """The `text` of every rank, in order, on every rank."""
        if self.world == 1:
            return [text]
        mine = text.encode()
        lengths = [int(n) for n in self.sums([len(mine) if r == self.rank else 0 for r in range(self.world)])]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(mine)] = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
        found = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(found, padded, group=self.group)
        return [room[:n].numpy().tobytes().decode() for room, n in zip(found, lengths, strict=True)]

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Each number, summed over all ranks in double precision, on the host."""
        if self.world == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(found, group=self.group)
        return [float(number) for number in found]

    def any_of(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        """A function that says on every rank whether `ask` is true on any; all ranks call it together."""
        return ask if self.world == 1 else lambda: self.sums([float(ask())])[0] > 0

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.sums([0.0])

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all ranks, in place, on its device; the host does not wait."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor /= self.world
        return tensor


ALONE = Ranks()


def ranks_of_environment() -> Ranks | None:
    """Who this process is, as torchrun has told it; None where nobody started it as a rank.

    Raises InputError for numbers that cannot be.
    """
    if not all(os.environ.get(name) for name in _ENVIRONMENT):
        return None
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if not 0 <= rank < world or local < 0:
            raise ValueError(f"RANK {rank} of WORLD_SIZE {world}, LOCAL_RANK {local}")
    except ValueError as error:
        raise InputError(
            "RANK, WORLD_SIZE and LOCAL_RANK of the environment are not those of a rank",
            why=str(error),
            remedy="start the ranks with torchrun or with --nproc, or unset these variables",
        ) from None
    return Ranks(rank, world, local, joined=True)


@contextmanager
def process_group(ranks: Ranks, device: torch.device) -> Iterator[Ranks]:
    """The ranks with their process group, for as long as the block runs; a process on its own has none.

    Raises PlanError where the ranks do not find each other.
    """
    if not ranks.joined:
        yield ranks
        return
    try:
        store, rank, world = next(rendezvous("env://"))
        dist.init_process_group(
            GROUP_BACKENDS[device.type],
            store=PrefixStore("group", store),
            rank=rank,
            world_size=world,
            device_id=device if device.type == "cuda" else None,
            timeout=timedelta(seconds=SILENCE_SECONDS),
        )
    except (RuntimeError, ValueError) as error:  # of the network, of a port that is taken, of NCCL
        raise PlanError(
            f"rank {ranks.rank} of {ranks.world} does not reach the others",
            why=str(error).strip().partition("\n")[0],
            remedy="check MASTER_ADDR and MASTER_PORT, and that every machine reaches the first",
        ) from error
    yield replace(ranks, store=PrefixStore("words", store))
    dist.destroy_process_group()  # not after an error: it could wait for a rank that is gone


def with_own_group(ranks: Ranks) -> Ranks:
    """The same ranks, whose words do not mix with those of other threads. All ranks call it together."""
    made = dist.new_group(backend="gloo", timeout=timedelta(seconds=SILENCE_SECONDS))
    return replace(ranks, group=made)


def refuse_ranks(what: str) -> None:
    """Raises InputError if this process is one of several ranks, and `what` runs on one device."""
    ranks = ranks_of_environment()
    if ranks is not None and ranks.world > 1:
        raise InputError(
            f"{what} runs on one device, and this is rank {ranks.rank} of {ranks.world}",
            why="each rank would do the same, and write the same files",
            remedy="start it without torchrun",
        )
