"""`gptplan run --nproc 2` as people start it: real processes under the agent, one is killed, the run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.config.parallel import ParallelConfig
from planner.inputs.run_toml import write_config
from tests.processes import child
from tests.reference_trainer.conftest import config_of

WAIT_SECONDS = 180.0


def ranks_of(launcher: int) -> list[int]:
    """The processes that the launcher has started, those of ranks 0, 1, … in order."""
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=False).stdout
    named = [(pid, Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")) for pid in found.split()]
    ranks = {int(word[5:]): int(pid) for pid, words in named for word in words if word.startswith(b"RANK=")}
    return [pid for _, pid in sorted(ranks.items())]


@pytest.mark.soak  # six processes that load PyTorch
@pytest.mark.timeout(590)
@pytest.mark.parametrize("fsdp", [False, True])
def test_fault_24_a_rank_is_killed_and_the_run_goes_on(tmp_path: Path, machine_cache: Path, fsdp: bool) -> None:
    config = config_of(gpus=2, steps=60, checkpoint_every=5)
    config = config.model_copy(update={"parallel": ParallelConfig(fsdp=fsdp)})
    write_config(tmp_path / "run.toml", config, overwrite=False)
    command = [sys.executable, "-m", "gptplan", "run", "--nproc", "2", "--device", "cpu"]
    environment = os.environ | {"XDG_CACHE_HOME": str(machine_cache), "PYTHONPATH": str(Path(__file__).parents[2])}
    out, end = tmp_path / "run", time.monotonic() + WAIT_SECONDS
    started = [*command, str(tmp_path / "run.toml"), "--out", str(out)]
    with child(started, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as run:
        while not list(out.glob("checkpoints/step-*")) and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(ranks_of(run.pid)[1], signal.SIGKILL)
        _, said = run.communicate(timeout=WAIT_SECONDS)
    assert run.returncode == 2 and "error: rank 1 of 2 died: SIGKILL" in said, said
    assert "Traceback" not in said
    rest = [*command, "--resume", str(out)]
    done = subprocess.run(rest, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert done.returncode == 0 and "continues after step" in done.stderr, done.stderr
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))
