"""Measures how much an option changes the numbers of a run: the losses of 20 updates with and without it.

`python -m benchmarks.equality` measures on this machine's processor and writes results/equality.json, from which
docs/why/numerics.md has its table. The model is tiny and its loss falls by half a nat; what differs is rounding, which
grows from update to update.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.header import write
from planner.config.model import ModelConfig
from planner.config.run import HardwareConfig, OptimizerConfig, Provenance, RunConfig, ScheduleConfig, TrainingConfig
from planner.counts.run import rate_at

FILE = Path(__file__).parent / "results" / "equality.json"
STEPS, SEQUENCES, SEQ, VOCAB = 20, 8, 32, 128
FP32, BF16 = {"recipe": "fp32"}, {"recipe": "mixed-bf16"}
EXACT = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """Options of two runs, and the largest difference of a loss in nats that is allowed."""

    what: str
    recipe: str
    one: Mapping[str, Any]
    other: Mapping[str, Any]
    tolerance: float


def changes() -> tuple[Change, ...]:
    """The changes that every test run compares; compiling is separate, because it takes half a minute."""
    found = []
    for name, base, loose in (("fp32", FP32, 1e-5), ("mixed-bf16", BF16, 2e-3)):
        split = {"micro_batch": 1, "accumulation": SEQUENCES}
        found += [
            Change("the same run twice", name, base, base, EXACT),
            Change("8 sequences in one micro-batch, or in 8", name, base, base | split, loose),
            Change("selective activation checkpointing", name, base, _with(base, "selective"), EXACT),
            Change("full activation checkpointing", name, base, _with(base, "full"), EXACT),
            Change("chunked loss", name, base, base | {"loss": "chunked"}, loose),
            Change("fused loss", name, base, base | {"loss": "fused"}, loose),
            Change("attention math, not flash", name, base, base | {"attention_kernel": "math"}, loose),
            Change("AdamW foreach, not fused", name, base, base | {"implementation": "foreach"}, loose),
            Change("AdamW for-loop, not fused", name, base, base | {"implementation": "for-loop"}, loose),
        ]
    autocast = {"recipe": "autocast", "runtime": "autocast"}
    found.append(Change("torch.autocast, not explicit casts", "mixed-bf16", BF16, autocast, 2e-3))
    for recipe in ("mixed-bf16", "mixed-fp16", "master-bf16", "master-bf16-grad16", "pure-bf16"):
        allowed = 1e-1 if recipe == "pure-bf16" else 5e-3
        found.append(Change(f"the recipe {recipe}, not fp32", recipe, FP32, {"recipe": recipe}, allowed))
    return tuple(found)


def compiled() -> tuple[Change, ...]:
    """The changes that need a compiler."""
    return tuple(
        Change("torch.compile, not eager", name, base, base | {"runtime": "compiled"}, loose)
        for name, base, loose in (("fp32", FP32, 1e-5), ("mixed-bf16", BF16, 2e-3))
    )


def _with(base: Mapping[str, Any], checkpointing: str) -> dict[str, Any]:
    return {**base, "activation_checkpointing": checkpointing}


def config_of(options: Mapping[str, Any]) -> RunConfig:
    """The config of a model of two blocks; `options` are keys of [training] or [optimizer]."""
    training: dict[str, Any] = {"steps": STEPS, "seq": SEQ, "micro_batch": SEQUENCES, "accumulation": 1, "seed": 7}
    training |= {"activation_checkpointing": "none", "loss_chunks": 3}
    optimizer: dict[str, Any] = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
    for key, value in options.items():
        (training if key in TrainingConfig.model_fields else optimizer)[key] = value
    return RunConfig(
        model=ModelConfig(
            name="tiny", layers=2, hidden=32, heads=2, kv_heads=2, head_dim=16, ffn=64, vocab=VOCAB, context=SEQ,
            position="learned", norm="layernorm", mlp="gelu", biases=True, tied_embeddings=True, source="a benchmark",
        ),
        training=TrainingConfig(**training),
        optimizer=OptimizerConfig(**optimizer),
        schedule=ScheduleConfig(peak_lr=3e-3, min_lr=3e-4, warmup_steps=4),
        hardware=HardwareConfig(gpu="cpu", gpus=1),
        provenance=Provenance(as_of="2026-11-21", gptplan="0"),
    )  # fmt: skip


def losses_of(options: Mapping[str, Any]) -> list[float]:
    """Mean loss of every update, nats per token, by the trainer's own model, loss, clipping and optimizer."""
    import torch

    from reference_trainer.measure.measure import build_model
    from reference_trainer.optim.updater import make_optimizer

    config = config_of(options)
    torch.manual_seed(config.training.seed)
    model = build_model(config)
    updater = make_optimizer(model, config)
    if config.training.runtime == "compiled":
        model.make_tables(SEQ, torch.device("cpu"))
        model.compile(dynamic=False)
    draws = torch.Generator().manual_seed(11)
    likely = torch.arange(1, VOCAB + 1).float().reciprocal()  # tokens as unequal as words are
    found = []
    for step in range(1, STEPS + 1):
        tokens = torch.multinomial(likely, SEQUENCES * (SEQ + 1), replacement=True, generator=draws)
        tokens = tokens.reshape(SEQUENCES, SEQ + 1)
        updater.set_lr(rate_at(config, step))
        total = torch.zeros(())
        for part in tokens.split(config.training.micro_batch):
            loss = model(part[:, :-1], part[:, 1:]) / (SEQUENCES * SEQ)
            updater.backward(loss)
            total += loss.detach()
        updater.step(updater.clip(config.optimizer.clip_norm).isfinite())
        updater.zero_grad()
        found.append(float(total))
    return found


def difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest difference of two losses of the same update, nats."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def measured(changes_to_measure: Sequence[Change]) -> list[dict[str, Any]]:
    """Each change with its measured difference; a run that several changes share is made once."""
    runs: dict[str, list[float]] = {}

    def run(options: Mapping[str, Any]) -> list[float]:
        key = json.dumps(dict(options), sort_keys=True)
        if key not in runs:
            runs[key] = losses_of(options)
        return runs[key]

    rows = []
    for change in changes_to_measure:
        other = losses_of(change.other) if change.one == change.other else run(change.other)
        seen = difference(run(change.one), other)
        rows.append({**asdict(change), "difference_nats": seen, "falls_by_nats": other[0] - other[-1]})
    return rows


def table() -> str:
    """The recorded results as Markdown."""
    recorded = json.loads(FILE.read_text(encoding="utf-8"))
    lines = ["| change | recipe | largest difference of a loss, nats | allowed by the test |", "|---|---|--:|--:|"]
    for row in recorded["rows"]:
        seen, allowed = (f"{x:.1e}" if x else "0, to the bit" for x in (row["difference_nats"], row["tolerance"]))
        lines.append(f"| {row['what']} | `{row['recipe']}` | {seen} | {allowed} |")
    made = recorded["header"]
    return "\n".join([f"torch {made['versions']['torch']} on a processor, {made['date']}.", "", *lines])


def main() -> None:
    """Measure all changes and write the results."""
    import torch

    torch.set_num_threads(1)
    rows = measured((*changes(), *compiled()))
    write({"steps": STEPS, "rows": rows}, FILE)
    print(table())


if __name__ == "__main__":
    main()
