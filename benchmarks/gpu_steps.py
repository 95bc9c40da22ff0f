"""Steps of many configs on a GPU, in one process: bytes and seconds, predicted beside measured.

    python -m benchmarks.gpu_steps --gpu h200 [--minutes 4] [--only REGEX] [--json FILE]

Every row is one config: three steps, then the allocator's peaks; some timed steps; one profiled step, whose kernels
are summed by name. Rows are written as soon as they are there. The first ones tell most; the compiled ones come last.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.header import write
from benchmarks.loop_speed import OurLoop
from planner.config.run import RunConfig
from planner.inputs.draft import draft
from planner.inputs.flags import Flags
from planner.plan import estimate
from reference_trainer.data.corpus.formats import header
from reference_trainer.data.corpus.sources import UINT16_VALUES
from reference_trainer.device.device import pick_device
from reference_trainer.measure.measure import build_model
from reference_trainer.model.gpt import GPT
from reference_trainer.step.precision import uses_tf32
from reference_trainer.step.step import numerics

_EAGER = {"accumulation": "1", "runtime": "eager"}
_GPT2 = {"model": "gpt2", "pad_vocab": "64", "seq": "1024", "micro_batch": "16", **_EAGER}
_LLAMA = {"model": "llama-3.2-1b", "seq": "4096", "micro_batch": "2", **_EAGER}
_EXPERTS = _GPT2 | {"experts": "8", "top_k": "2", "micro_batch": "8"}
CASES: dict[str, dict[str, str]] = {
    "gpt2": _GPT2,
    "compiled": _GPT2 | {"runtime": "compiled"},
    "compiled, micro-batch 64": _GPT2 | {"runtime": "compiled", "micro_batch": "64"},
    "vocabulary of 50,257": _GPT2 | {"pad_vocab": "1"},
    "micro-batch 1, accumulation 8": _GPT2 | {"micro_batch": "1", "accumulation": "8"},
    "micro-batch 4": _GPT2 | {"micro_batch": "4"},
    "compiled, full": _GPT2 | {"runtime": "compiled", "activation_checkpointing": "full"},
    "compiled, selective": _GPT2 | {"runtime": "compiled", "activation_checkpointing": "selective"},
    "compiled, gpt2-xl": _GPT2 | {"model": "gpt2-xl", "runtime": "compiled"},
    "compiled, llama": _LLAMA | {"runtime": "compiled"},
    "compiled, llama, full": _LLAMA | {"runtime": "compiled", "activation_checkpointing": "full"},
    "autocast": _GPT2 | {"runtime": "autocast"},
    "full": _GPT2 | {"activation_checkpointing": "full"},
    "offloaded": _GPT2 | {"activation_checkpointing": "offloaded"},
    "fp32": _GPT2 | {"recipe": "fp32", "micro_batch": "8"},
    "tf32": _GPT2 | {"recipe": "tf32", "micro_batch": "8"},
    "fused loss": _GPT2 | {"loss_kind": "fused"},
    "math attention": _GPT2 | {"attention": "math"},
    "8 experts": _EXPERTS,
    "llama": _LLAMA,
    "llama, full": _LLAMA | {"activation_checkpointing": "full"},
    "llama, 16k": _LLAMA | {"activation_checkpointing": "full", "seq": "16384", "micro_batch": "1"},
    "llama, flash": _LLAMA | {"attention": "flash-only"},
    "llama, efficient": _LLAMA | {"attention": "efficient"},
    "muon": _GPT2 | {"optimizer": "muon"},
    "documents": _GPT2 | {"document_masking": "yes"},
    "documents, flex": _GPT2 | {"document_masking": "yes", "attention": "flex"},
    "window": _LLAMA | {"sliding_window": "1024"},
    "compiled, muon": _GPT2 | {"runtime": "compiled", "optimizer": "muon"},
    "compiled, chunked loss": _GPT2 | {"runtime": "compiled", "loss_kind": "chunked", "loss_chunks": "8"},
    "compiled, fused loss": _GPT2 | {"runtime": "compiled", "loss_kind": "fused"},
    "micro-batch 64": _GPT2 | {"micro_batch": "64"},
    "selective": _GPT2 | {"activation_checkpointing": "selective"},
    "chunked loss": _GPT2 | {"loss_kind": "chunked", "loss_chunks": "8"},
    "dropout": _GPT2 | {"dropout": "0.1"},
    "GELU written out": _GPT2 | {"mlp": "gelu-written-out"},
    "foreach": _GPT2 | {"optimizer_implementation": "foreach"},
    "for-loop": _GPT2 | {"optimizer_implementation": "for-loop"},
    "lion": _GPT2 | {"optimizer": "lion"},
    "pure bf16": _GPT2 | {"recipe": "pure-bf16"},
    "gpt2-medium": _GPT2 | {"model": "gpt2-medium"},
    "gpt2-xl": _GPT2 | {"model": "gpt2-xl", "micro_batch": "8"},
}
_TOKENS = 2_000_000


def config_of(words: dict[str, str], gpu: str) -> RunConfig:
    """The config of a case on a card."""
    return draft(Flags(**{**words, "gpu": gpu, "steps": "16"}), version="benchmark", as_of=time.strftime("%Y-%m-%d"))


def tokens_file(folder: Path, vocab: int) -> Path:
    """Random tokens with llm.c's header, of two or four bytes as the vocabulary needs."""
    kind = "<u2" if vocab <= UINT16_VALUES else "<u4"
    path = folder / f"tokens{kind[1:]}.bin"
    if not path.exists():
        ids = np.random.default_rng(1).integers(0, min(vocab, 50_000), _TOKENS).astype(kind)
        path.write_bytes(header(_TOKENS, kind) + ids.tobytes())
    return path


def predicted(config: RunConfig) -> dict[str, Any]:
    """What the plan says of the numbers that are measured here; bytes and seconds."""
    plan = estimate(config, replay=True)
    m, seconds = plan.memory, plan.throughput.step_seconds
    return {
        "peak_requested_bytes": m.peak_requested_bytes + (m.workspace_bytes or 0),
        "peak_allocated_bytes": None if m.peak_allocated_bytes is None else m.peak_allocated_bytes.value,
        "peak_reserved_bytes": None if m.peak_reserved_bytes is None else m.peak_reserved_bytes.value,
        "step_seconds": None if seconds is None else [seconds.low, seconds.value, seconds.high],
        "phase": m.peak_phase,
    }


def _on_the_card(config: RunConfig) -> GPT:
    """The model with weights drawn on the GPU: other numbers than a run's, a second sooner for each 50 M of them."""
    with torch.device("cuda"):
        return build_model(config)


def measured(config: RunConfig, data: Path, run: Path) -> dict[str, Any]:
    """Peaks, seconds and kernels of one config on the GPU."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with numerics(deterministic=False, tf32=uses_tf32(config)):
        with mock.patch("reference_trainer.loop.startup.build_model", _on_the_card):
            loop = OurLoop(config, data, pick_device("cuda"), run)
        first = _timed(loop, 1)
        _timed(loop, 2)
        counters = torch.cuda.memory_stats()
        once = _timed(loop, 1)
        seconds = _timed(loop, 10 if once < 0.3 else 4)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            _timed(loop, 1)
    kernels: dict[str, list[Any]] = {}
    for event in seen.events() or ():
        row = kernels.setdefault(event.name[:100], [0, 0.0])
        row[0], row[1] = row[0] + 1, row[1] + event.device_time_total / 1e6
    loop.here.__exit__(None, None, None)
    return {
        **{f"peak_{kind}_bytes": counters[f"{kind}_bytes.all.peak"] for kind in ("requested", "allocated", "reserved")},
        "first_step_seconds": first,
        "step_seconds": seconds,
        "device_seconds": sum(row[1] for row in kernels.values()),
        "kernels": sum(row[0] for row in kernels.values()),
        "by_kernel": sorted(([name, *row] for name, row in kernels.items()), key=lambda row: -row[2])[:25],
    }


def _timed(loop: OurLoop, steps: int) -> float:
    """Seconds per step, the device's work included."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    loop.steps(steps)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps


def main() -> None:
    """Print a line for every config, and write all as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu", required=True, help="the preset of the card that is measured")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--only", default=".*", help="a regular expression of whole names of cases")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_steps measures a CUDA device, and PyTorch sees none here")
    end = time.monotonic() + 60 * asked.minutes
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, words in CASES.items():
            if not re.fullmatch(asked.only, case):
                continue
            if time.monotonic() > end - (40 if "compiled" in case else 10):
                sys.stderr.write(f"{case}: no time left\n")
                continue
            config = config_of(words, asked.gpu)
            try:
                row = {"options": words, "predicted": predicted(config)}
                data = tokens_file(folder, config.model.vocab)
                rows[case] = row | {"measured": measured(config, data, folder / f"run-{len(rows)}")}
                sys.stderr.write(f"{case}: {rows[case]['measured']['step_seconds'] * 1e3:.1f} ms\n")
            except Exception as error:  # an hour of a card is dear: one case that fails costs only itself
                rows[case] = {"options": words, "error": f"{type(error).__name__}: {error}"[:500]}
                sys.stderr.write(f"{case}: {rows[case]['error']}\n")
            gc.collect()
            torch._dynamo.reset()
            if asked.json is not None:
                write({"device": torch.cuda.get_device_name(), "rows": rows}, asked.json)
    if asked.json is None:
        write({"device": torch.cuda.get_device_name(), "rows": rows}, None)


if __name__ == "__main__":
    main()
