"""How a rank ends when it, or another one, cannot go on: one message, of the rank that knows what happened.

Whoever started the ranks ends all when one has ended. A rank that fails says why, the first rank before all others,
because a mistake in a config or in data is everybody's. A rank that only lost its connection has nothing to say.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from planner.errors import PlanError
from planner.log import Log
from reference_trainer.device.os_signals import StopSignals
from reference_trainer.distributed.launch import LOST_OTHERS
from reference_trainer.distributed.ranks import Ranks

FIRST_SPEAKS_SECONDS = 1.5  # other ranks wait so long, and each a little longer than the one before
EACH_SECONDS = 0.3
QUIET_SECONDS = 5.0  # in which whoever started the ranks ends one that has lost the others


@contextmanager
def spoken_once(ranks: Ranks, log: Log) -> Iterator[None]:
    """In this block a PlanError names its rank, and is said once; a broken connection ends the process quietly."""
    try:
        yield
    except PlanError as error:
        if ranks.world > 1:
            _wait_to_be_ended(0.0 if ranks.leads else FIRST_SPEAKS_SECONDS + EACH_SECONDS * ranks.rank)
            if not ranks.leads:
                error.what = f"rank {ranks.rank} of {ranks.world}: {error.what}"
        raise
    except RuntimeError as error:
        if ranks.world == 1 or not is_lost_connection(error):
            raise
        if not StopSignals.told_to_stop:  # by whoever has seen another rank end before this one could
            _wait_to_be_ended(QUIET_SECONDS)
            log(f"rank {ranks.rank} of {ranks.world} lost the others: {str(error).strip().partition(chr(10))[0]}")
        sys.stderr.flush()
        os._exit(LOST_OTHERS)  # the group is broken: tidying it up could wait for the dead


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether another rank is gone, as gloo, NCCL and the store say it."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in ("gloo", "NCCL", "ProcessGroup"))


def _wait_to_be_ended(seconds: float) -> None:
    """Sleep; a SIGTERM ends the process at once."""
    if seconds and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(seconds)
