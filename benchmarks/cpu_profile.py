"""Predicted and measured step time: one profile of this machine's kernels, and real steps of models of many sizes.

    python -m benchmarks.cpu_profile [--json FILE] [--seconds S] [--steps N] [--kept]

The models take turns step by step, so that a busy moment of the machine meets all of them; the median of each one's
steps is compared. With --kept the profile in the cache is used where it is still valid.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch

from benchmarks.header import write
from planner.config.model import ModelConfig
from planner.config.run import HardwareConfig, OptimizerConfig, Provenance, RunConfig, ScheduleConfig, TrainingConfig
from planner.counts.parameters import parameters_of
from planner.counts.run import resolve
from planner.inputs.profile_cache import load_profile, profile_path
from planner.step_time.profile_rates import step_seconds_from_profile
from planner.step_time.step_seconds import StepSeconds
from reference_trainer.data.samples import open_data
from reference_trainer.device.device import device_name
from reference_trainer.loop.startup import build
from reference_trainer.measure.calibrate import is_current, measure_profile
from reference_trainer.step.step import StepContext, numerics, train_step
from reference_trainer.step.step_results import read_one

WARMUP = 3  # steps before the timed ones: the first makes the optimizer's moments


@dataclass(slots=True)
class Model:
    """A model in training, its prediction, and the seconds of its timed steps."""

    name: str
    config: RunConfig
    predicted: StepSeconds
    context: StepContext
    seconds: list[float] = field(default_factory=list)


def gpt(layers: int, hidden: int, heads: int, vocab: int = 256) -> ModelConfig:
    """GPT-2-like: learned positions, LayerNorm, GELU, biases, tied embeddings."""
    return ModelConfig(
        name="gpt", layers=layers, hidden=hidden, heads=heads, kv_heads=heads, head_dim=hidden // heads,
        ffn=4 * hidden, vocab=vocab, context=1024, position="learned", norm="layernorm", mlp="gelu", biases=True,
        tied_embeddings=True, source="benchmark",
    )  # fmt: skip


def llama(layers: int, hidden: int, heads: int, kv_heads: int, ffn: int) -> ModelConfig:
    """Llama-like: rotary positions, RMSNorm, SwiGLU, no biases, untied embeddings, grouped queries."""
    return ModelConfig(
        name="llama", layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads, head_dim=hidden // heads,
        ffn=ffn, vocab=256, context=1024, position="rotary", norm="rmsnorm", mlp="swiglu", biases=False,
        tied_embeddings=False, source="benchmark",
    )  # fmt: skip


def run_of(model: ModelConfig, seq: int, micro_batch: int, accumulation: int = 1, recipe: str = "fp32") -> RunConfig:
    """A run of that model, long enough for any number of timed steps."""
    return RunConfig(
        model=model,
        training=TrainingConfig(
            steps=100_000, seq=seq, micro_batch=micro_batch, accumulation=accumulation, recipe=recipe,
            activation_checkpointing="none", seed=1,
        ),
        optimizer=OptimizerConfig(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0),
        schedule=ScheduleConfig(peak_lr=1e-4, min_lr=1e-5, warmup_steps=10),
        hardware=HardwareConfig(gpu="cpu", gpus=1),
        provenance=Provenance(as_of=date.today().isoformat(), gptplan="benchmark"),
    )  # fmt: skip


RUNS = {
    "gpt 0.3M": run_of(gpt(3, 96, 3), seq=128, micro_batch=8),
    "llama 0.8M": run_of(llama(4, 128, 4, 2, 352), seq=128, micro_batch=8),
    "gpt 6.6M": run_of(gpt(8, 256, 8), seq=256, micro_batch=4),
    "llama 9.5M": run_of(llama(8, 320, 5, 5, 864), seq=128, micro_batch=4, accumulation=2),
    "gpt 16M, 50257 tokens": run_of(gpt(4, 256, 4, vocab=50257), seq=128, micro_batch=4),
    "gpt 0.3M bf16": run_of(gpt(3, 96, 3), seq=64, micro_batch=4, recipe="mixed-bf16"),
}


def measure(profile: dict[str, object], steps: int) -> list[Model]:
    """All models, trained in turns for `steps` timed steps each."""
    device = torch.device("cpu")
    found = []
    for name, config in RUNS.items():
        data = open_data(None, config.model.vocab, config.training.seq)
        predicted = step_seconds_from_profile(resolve(config), profile)  # before the first step
        assert isinstance(predicted, StepSeconds)
        found.append(Model(name, config, predicted, build(config, device, data)))
    with numerics(deterministic=False):
        for step in range(1, WARMUP + steps + 1):
            for model in found:
                done = read_one(train_step(model.context, step))
                if step > WARMUP:
                    model.seconds.append(done.seconds)
            if step % 5 == 0:
                print(f"step {step}/{WARMUP + steps}", file=sys.stderr)
    return found


def row_of(model: Model) -> dict[str, object]:
    """One model's figures, in base units."""
    low, median, high = statistics.quantiles(model.seconds, n=4)
    return {
        "model": model.name,
        "parameters": parameters_of(model.config.model).total,
        "steps": len(model.seconds),
        "predicted_seconds": model.predicted.seconds.value,
        "predicted_low_seconds": model.predicted.seconds.low,
        "predicted_high_seconds": model.predicted.seconds.high,
        "measured_seconds": median,
        "measured_quarter_seconds": low,
        "measured_three_quarter_seconds": high,
        "predicted_over_measured": model.predicted.seconds.value / median,
        "predicted_parts_seconds": model.predicted.parts,
    }


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--seconds", type=float, default=12.0, help="time for the profile")
    parser.add_argument("--steps", type=int, default=20, help="timed steps per model")
    parser.add_argument("--kept", action="store_true", help="use the profile in the cache, if it is still valid")
    asked = parser.parse_args()
    kept = load_profile(profile_path("cpu")) if asked.kept else None
    profile = kept if kept and is_current(kept) else measure_profile("cpu", asked.seconds)
    rows = [row_of(model) for model in measure(profile, asked.steps)]
    machine = {
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "profile_noise": profile["relative_noise"],
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(f"{'model':24}{'parameters':>12}{'predicted':>12}{'measured':>12}{'ratio':>8}{'quartiles of measured':>24}")
    for row in rows:
        quartiles = f"{row['measured_quarter_seconds']:.4f}–{row['measured_three_quarter_seconds']:.4f} s"
        print(
            f"{row['model']:24}{row['parameters']:>12,}{row['predicted_seconds']:>10.4f} s"
            f"{row['measured_seconds']:>10.4f} s{row['predicted_over_measured']:>8.2f}{quartiles:>24}"
        )
    if asked.json:
        write({"machine": machine, "rows": rows}, asked.json)


if __name__ == "__main__":
    main()
