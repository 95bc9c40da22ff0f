"""The reference trainer's loop against a plain one of the same mathematics: tokens per second, bytes of tensors.

    python -m benchmarks.loop_speed [--json FILE] [--pairs N] [--steps N] [--device cpu|cuda]

Both train in one process, in turn: some steps of one, some of the other, and again, so that a busy moment of the
machine meets both. What is compared is the median over the pairs of the ratio of their tokens per second. Ours is the
whole loop: the guard, one row of metrics per step, the journal on disk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cpu_profile import gpt, run_of
from benchmarks.header import write
from benchmarks.plain_loop import PlainLoop
from planner.config.run import RunConfig
from planner.counts.parameters import parameters_of
from reference_trainer.data.corpus.sources import ReadOptions
from reference_trainer.data.samples import open_data
from reference_trainer.device.device import device_name, pick_device
from reference_trainer.loop.job import RunningJob
from reference_trainer.loop.results import handle_results
from reference_trainer.loop.startup import build
from reference_trainer.measure.replay import StorageTracker
from reference_trainer.metrics.run_directory import RunDirectory
from reference_trainer.step.options import RunOptions
from reference_trainer.step.step import numerics, train_step
from reference_trainer.train import log_interval

WARMUP = 3
RUNS = {
    "gpt 0.8M": run_of(gpt(4, 128, 4), seq=128, micro_batch=8),
    "gpt 6.6M": run_of(gpt(8, 256, 8), seq=256, micro_batch=4, accumulation=2),
}


class OurLoop:
    """The trainer's loop body on a run in a directory of its own."""

    def __init__(self, config: RunConfig, data: Path, device: torch.device, root: Path) -> None:
        # token 0 ends a text, for the configs whose attention stays within one
        tokens = open_data(data, config.model.vocab, config.training.seq, reading=ReadOptions(end_of_text=0))
        self.here = RunDirectory(root).__enter__()
        self.job = RunningJob(build(config, device, tokens), self.here, RunOptions(), lambda line: None)
        self.log_every = log_interval(self.job.options, device)

    def step(self) -> None:
        """What the loop does in a step with no evaluation and no checkpoint."""
        job = self.job
        job.done += 1
        job.pending.add(train_step(job.context, job.done))
        if job.done % self.log_every == 0:
            handle_results(job, lambda *_: None, None)

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps."""
        found = []
        for _ in range(count):
            begin = time.perf_counter()
            self.step()
            found.append(time.perf_counter() - begin)
        return found


def compared(config: RunConfig, device: torch.device, pairs: int, steps: int) -> dict[str, Any]:
    """Both loops on one config: seconds per step of every turn, their ratio, and the peak bytes of tensors."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "tokens.bin"
        rng = np.random.default_rng(1)
        rng.integers(0, config.model.vocab, 2_000_000, dtype=np.uint16).tofile(data)
        plain, ours = PlainLoop(config, data, device), OurLoop(config, data, device, Path(folder) / "run")
        turns: list[tuple[float, float]] = []
        with numerics(deterministic=False):
            peaks = {name: peak_of(loop, device) for name, loop in (("plain", plain), ("ours", ours))}
            for loop in (plain, ours):
                loop.steps(WARMUP)
            for turn in range(pairs):
                # who goes first changes: the second finds caches and clocks as the first left them
                order = (plain, ours) if turn % 2 == 0 else (ours, plain)
                spent = {id(loop): sum(loop.steps(steps)) for loop in order}
                turns.append((spent[id(plain)] / steps, spent[id(ours)] / steps))
        ours.here.__exit__(None, None, None)
    ratios = [a / b for a, b in turns]
    tokens = config.training.micro_batch * config.training.accumulation * config.training.seq
    return {
        "parameters": parameters_of(config.model).total,
        "tokens_per_step": tokens,
        "plain_step_seconds": [a for a, _ in turns],
        "ours_step_seconds": [b for _, b in turns],
        "plain_tokens_per_second": tokens / statistics.median(a for a, _ in turns),
        "ours_tokens_per_second": tokens / statistics.median(b for _, b in turns),
        "speed_ratio_median": statistics.median(ratios),
        "speed_ratios": ratios,
        "plain_peak_bytes": peaks["plain"],
        "ours_peak_bytes": peaks["ours"],
        "peak_ratio": peaks["ours"] / peaks["plain"],
    }


def peak_of(loop: PlainLoop | OurLoop, device: torch.device) -> int:
    """Most bytes of tensors alive in two steps, weights and moments included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        loop.steps(2)
        return torch.cuda.max_memory_allocated(device)
    tracker = StorageTracker()
    tracker.phase("two steps")
    model = loop.model if isinstance(loop, PlainLoop) else loop.job.context.model
    tracker.add(list(model.parameters()))
    with tracker:
        loop.step()
        loop.step()
    return tracker.track.peak.peak_bytes


def main() -> None:
    """Print the table, or write it as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    device = pick_device(asked.device)
    rows = {name: compared(config, device, asked.pairs, asked.steps) for name, config in RUNS.items()}
    for name, row in rows.items():
        sys.stderr.write(
            f"{name}: plain {row['plain_tokens_per_second']:,.0f}, ours {row['ours_tokens_per_second']:,.0f} tokens/s; "
            f"ratio {row['speed_ratio_median']:.3f}; peak {row['peak_ratio']:.3f}\n"
        )
    result = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "pairs": asked.pairs,
        "steps_per_turn": asked.steps,
        "runs": rows,
    }
    write(result, asked.json)


if __name__ == "__main__":
    main()
