"""`gptplan run --nproc N`: the same command once for each rank."""

from __future__ import annotations

import shlex
import sys

from gptplan.request import Request


def run_as_ranks(request: Request, nproc: int) -> int:
    """Start `nproc` ranks of this very command and wait for them; returns the exit code of the run.

    Raises PlanError, before any process starts, for a config of another number of GPUs.
    """
    from reference_trainer.distributed.launch import launch
    from reference_trainer.distributed.layouts import refuse_layout_of_ranks
    from reference_trainer.distributed.ranks import Ranks

    refuse_layout_of_ranks(request.config, Ranks(0, nproc, 0, joined=True))
    again = f"gptplan run --resume {shlex.quote(str(request.directory))} --nproc {nproc}"
    return launch(nproc, [sys.executable, "-m", "gptplan", *sys.argv[1:]], again)
