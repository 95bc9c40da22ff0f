"""nanochat of October 2025: the settings of scripts/base_train.py.

Later versions have value embeddings, a window pattern and scalars on the residual, which a run.toml cannot describe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.config.run import RunConfig
from planner.counts.run import steps_of, tokens_per_step
from planner.engines.engine import Engine, Start
from planner.engines.fates import Carried, Differs, Fates, Irrelevant, casts_by_autocast, fixed

BASE_CONFIG = "gptplan_nanochat.py"
ASPECT, HEAD = 64, 128  # width of a layer's share, and of a head at most
TUNED_WIDTH = 768  # embedding and head rates are scaled by the root of it over the width

_FATES: Fates = {
    "model.layers": Carried("depth"),
    "model.hidden": Carried("depth: 64 times"),
    "model.heads": Carried("depth: its width over 128, rounded up"),
    "model.kv_heads": Carried("depth: as many as heads"),
    "model.head_dim": Carried("depth: its width over its heads"),
    "model.ffn": Carried("depth: 4 times its width"),
    "model.vocab": fixed(65_536, why="its tokenizer's, unless you train another"),
    "model.context": Irrelevant("rotary embedding has no table"),
    "model.position": fixed("rotary"),
    "model.rotary_dim": fixed(None),
    "model.rope_base": fixed(10_000.0),
    "model.norm": fixed("rmsnorm"),
    "model.norm_parameters": fixed("none"),
    "model.norm_eps": Differs((), "F.rms_norm's own there, by the type of its input"),
    "model.init_std": Differs((), "by the sides of each matrix there, 1 for the embedding, 0 for the head"),
    "model.init_residual": Differs((), "0 there"),
    "model.qk_norm": fixed("head"),
    "model.embedding_norm": fixed(True),
    "model.residual": fixed("sequential"),
    "model.mlp": fixed("relu2"),
    "model.biases": fixed("none"),
    "model.tied_embeddings": fixed(False),
    "model.logit_softcap": fixed(15.0),
    "training.tokens": Carried("num_iterations"),
    "training.steps": Carried("num_iterations"),
    "training.seq": Carried("max_seq_len"),
    "training.micro_batch": Carried("device_batch_size"),
    "training.accumulation": Carried("total_batch_size"),
    "training.recipe": Carried("autocast to bf16, as always", ("autocast", "mixed-bf16")),
    "training.runtime": fixed("compiled"),
    "training.dropout": fixed(0.0),
    "training.activation_checkpointing": fixed("none"),
    "training.seed": Differs((42,), "42 there"),
    "training.checkpoint_every": fixed(None, why="one at the end"),
    "optimizer.name": fixed("muon"),
    "optimizer.implementation": fixed("fused"),
    "optimizer.momentum": Differs((), "0.85 to 0.95 over the first 300 updates there"),
    "optimizer.beta1": Differs((0.8,), "0.8 there"),
    "optimizer.beta2": Differs((0.95,), "0.95 there"),
    "optimizer.eps": Differs((1e-10,), "1e-10 there"),
    "optimizer.weight_decay": Carried("weight_decay"),
    "optimizer.clip_norm": Carried("grad_clip"),
    "schedule.kind": Carried("warmdown_ratio", ("wsd", "constant")),
    "schedule.peak_lr": Carried("matrix_lr, embedding_lr, unembedding_lr"),
    "schedule.min_lr": Carried("final_lr_frac"),
    "schedule.warmup_steps": Carried("warmup_ratio"),
    "schedule.cooldown_steps": Carried("warmdown_ratio"),
    "evaluation.every": Carried("eval_every"),
    "evaluation.tokens": Carried("eval_tokens"),
    "checkpoints.keep": Irrelevant("one checkpoint at the end"),
    "hardware.allocator": fixed("expandable", why="base_train.py sets it"),
}


def _problems(config: RunConfig) -> Iterator[str]:
    m = config.model
    width = ASPECT * m.layers
    heads = max(1, -(-width // HEAD))
    shape = {"hidden": width, "heads": heads, "kv_heads": heads, "head_dim": width // heads, "ffn": 4 * width}
    for key, value in shape.items():
        if getattr(m, key) != value:
            yield f"model.{key} = {getattr(m, key)} (a depth of {m.layers} has {value})"


def _differences(config: RunConfig) -> Iterator[str]:
    if config.schedule.kind == "wsd":
        yield "schedule: the cooldown is one update late there"
    if config.optimizer.weight_decay:
        yield f"optimizer.weight_decay = {config.optimizer.weight_decay}: of the embedding and the head only there"
    if config.hardware.gpus > 1:
        yield "parallel.zero = 0: the optimizers' state is shared out among the GPUs there"
    yield "training.recipe: the embedding is bf16 there"
    yield "data: documents of its own parquet shards, packed one after the other"
    yield from casts_by_autocast(config)


def nanochat_values(config: RunConfig) -> dict[str, Any]:
    """The assignments that base_train.py executes."""
    t, o, s, steps = config.training, config.optimizer, config.schedule, steps_of(config)
    other = s.peak_lr * (config.model.hidden / TUNED_WIDTH) ** 0.5
    return {
        "depth": config.model.layers, "max_seq_len": t.seq, "num_iterations": steps,
        "device_batch_size": t.micro_batch, "total_batch_size": tokens_per_step(config),
        "matrix_lr": s.peak_lr, "embedding_lr": other, "unembedding_lr": other,
        "weight_decay": o.weight_decay, "grad_clip": o.clip_norm or 0.0,
        "warmup_ratio": s.warmup_steps / steps,
        "warmdown_ratio": s.cooldown_steps / steps if s.kind == "wsd" else 0.0,
        "final_lr_frac": s.min_lr / s.peak_lr if s.kind == "wsd" else 1.0,
        # -1 would evaluate at every step: step % -1 is 0
        "eval_every": config.evaluation.every or steps + 1,
        "eval_tokens": config.evaluation.tokens if config.evaluation.every else t.micro_batch * t.seq,
        "core_metric_every": -1, "sample_every": steps + 1,
    }  # fmt: skip


def _files(config: RunConfig) -> dict[str, str]:
    lines = [f"{name} = {value!r}" for name, value in nanochat_values(config).items()]
    return {BASE_CONFIG: "\n".join([f"# {NANOCHAT.stamp}", *lines, ""])}


def _start(config: RunConfig) -> Start:
    return Start(("-m", "scripts.base_train", f'"$HERE/{BASE_CONFIG}"'), folder="NANOCHAT")


NANOCHAT = Engine(
    "nanochat", "nanochat", "of 2025-10-30", "dfc88334b61a", "github.com/karpathy/nanochat: scripts/base_train.py",
    ("git clone https://github.com/karpathy/nanochat && git -C nanochat checkout dfc88334", "cd nanochat && uv sync"),
    _FATES, _files, _start, _problems, _differences,
)  # fmt: skip
