"""nanoGPT: a config file of assignments that train.py executes.

Learning rates agree step by step: its warm-up of W - 1 iterations gives (it + 1) / W, and its decay that ends at
iteration T - 1 has the progress (k - W) / (T - W) of update k = it + 1. It makes max_iters + 1 updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.config.run import CPU, RunConfig
from planner.counts.run import sequences_per_step, steps_of
from planner.engines.engine import Engine, Start
from planner.engines.fates import Carried, Differs, Fates, Irrelevant, autocast_of_nothing, casts_by_autocast, fixed
from planner.units import format_count_exact as spell

DEFAULT_VOCAB = 50_304  # rows of its table where the data has no meta.pkl
_NEVER = 10**9  # an interval that no run reaches
_DTYPES = {"autocast": "bfloat16", "mixed-bf16": "bfloat16", "mixed-fp16": "float16", "tf32": "float32"}
CONFIG, META = "gptplan_nanogpt.py", "write_meta.py"

_FATES: Fates = {
    "model.layers": Carried("n_layer"),
    "model.hidden": Carried("n_embd"),
    "model.heads": Carried("n_head"),
    "model.kv_heads": Carried("n_head"),
    "model.head_dim": Carried("n_embd / n_head"),
    "model.ffn": Carried("4 n_embd"),
    "model.vocab": Carried("meta.pkl, which write_meta.py writes beside the data"),
    "model.context": Carried("block_size"),
    "model.position": fixed("learned"),
    "model.rotary_dim": fixed(None),
    "model.rope_base": fixed(10_000.0),
    "model.norm": fixed("layernorm"),
    "model.norm_parameters": Carried("bias", ("gain", "gain+bias")),
    "model.norm_eps": fixed(1e-5),
    "model.init_std": fixed(0.02),
    "model.init_residual": fixed("scaled"),
    "model.qk_norm": fixed("none"),
    "model.residual": fixed("sequential"),
    "model.mlp": fixed("gelu"),
    "model.biases": Carried("bias", ("none", "all")),
    "model.tied_embeddings": fixed(True),
    "training.tokens": Carried("max_iters"),
    "training.steps": Carried("max_iters"),
    "training.seq": Carried("block_size"),
    "training.micro_batch": Carried("batch_size"),
    "training.accumulation": Carried("gradient_accumulation_steps"),
    "training.recipe": Carried("dtype", tuple(_DTYPES)),
    "training.runtime": Carried("compile", ("eager", "autocast", "compiled")),
    "training.dropout": Carried("dropout"),
    "training.activation_checkpointing": fixed("none"),
    "training.seed": Differs((1337,), "1337 there, written in train.py"),
    "training.returns_logits": Differs((True,), "logits are returned there, and stay in memory until the next step"),
    "training.checkpoint_every": Carried("eval_interval, always_save_checkpoint"),
    "optimizer.beta1": Carried("beta1"),
    "optimizer.beta2": Carried("beta2"),
    "optimizer.eps": fixed(1e-8),
    "optimizer.weight_decay": Carried("weight_decay"),
    "optimizer.clip_norm": Carried("grad_clip"),
    "schedule.kind": Carried("decay_lr", ("cosine", "constant")),
    "schedule.peak_lr": Carried("learning_rate"),
    "schedule.min_lr": Carried("min_lr"),
    "schedule.warmup_steps": Carried("warmup_iters"),
    "evaluation.every": Carried("eval_interval"),
    "evaluation.tokens": Carried("eval_iters"),
    "checkpoints.keep": Irrelevant("one file is written over and over"),
}


def _problems(config: RunConfig) -> Iterator[str]:
    m, t = config.model, config.training
    yield from autocast_of_nothing(config)
    if m.kv_heads != m.heads or m.heads * m.head_dim != m.hidden:
        yield f"model.kv_heads = {m.kv_heads}, model.head_dim = {m.head_dim} (its {m.heads} heads share out n_embd)"
    if m.ffn != 4 * m.hidden:
        yield f"model.ffn = {spell(m.ffn)} (it has 4 n_embd = {spell(4 * m.hidden)})"
    if m.context != t.seq:
        yield f"model.context = {m.context} beside training.seq = {t.seq} (block_size is both)"
    if (m.norm_parameters == "gain+bias") != (m.biases == "all"):
        yield f"model.norm_parameters = {m.norm_parameters} beside model.biases = {m.biases} (bias is of both)"
    every, save = config.evaluation.every, t.checkpoint_every
    if every and save and every != save:
        yield f"training.checkpoint_every = {save} beside evaluation.every = {every} (eval_interval is both)"
    if config.schedule.kind == "constant" and config.schedule.warmup_steps:
        yield f"schedule.warmup_steps = {config.schedule.warmup_steps} beside kind = constant (it has no warm-up then)"


def _differences(config: RunConfig) -> Iterator[str]:
    yield "model.mlp: GELU by the error function there, by tanh here (apart by less than 0.0005)"
    yield "data: sequences are drawn with replacement there, each read once an epoch here"
    yield from casts_by_autocast(config)
    if config.evaluation.every and not config.training.checkpoint_every:
        yield "training.checkpoint_every: a checkpoint is written there after each better evaluation"
    if config.training.checkpoint_every:
        yield "checkpoints.keep: one checkpoint there, written over"


def nanogpt_values(config: RunConfig) -> dict[str, Any]:
    """The assignments of a config file."""
    m, t, o, s = config.model, config.training, config.optimizer, config.schedule
    steps, every = steps_of(config), config.evaluation.every or t.checkpoint_every
    return {
        "n_layer": m.layers, "n_head": m.heads, "n_embd": m.hidden, "block_size": t.seq, "bias": m.biases == "all",
        "dropout": t.dropout,
        "batch_size": t.micro_batch,
        # of all processes together: train.py divides it by their number
        "gradient_accumulation_steps": sequences_per_step(config) // t.micro_batch,
        "learning_rate": s.peak_lr, "min_lr": s.min_lr, "decay_lr": s.kind == "cosine",
        "warmup_iters": s.warmup_steps - 1, "lr_decay_iters": steps - 1, "max_iters": steps - 1,
        "weight_decay": o.weight_decay, "beta1": o.beta1, "beta2": o.beta2, "grad_clip": o.clip_norm or 0.0,
        "eval_interval": every or _NEVER, "always_save_checkpoint": t.checkpoint_every is not None,
        "eval_iters": -(-config.evaluation.tokens // (t.micro_batch * t.seq)) if config.evaluation.every else 1,
        "device": "cpu" if config.hardware.gpu == CPU else "cuda",
        "dtype": _DTYPES[t.recipe], "compile": t.runtime == "compiled",
    }  # fmt: skip


def _files(config: RunConfig) -> dict[str, str]:
    lines = [f"{name} = {value!r}" for name, value in nanogpt_values(config).items()]
    meta = [
        "# the vocabulary of the data, which train.py reads; run it in the folder of train.bin",
        "import pickle",
        f'pickle.dump({{"vocab_size": {config.model.vocab}}}, open("meta.pkl", "wb"))',
    ]
    files = {CONFIG: "\n".join([f"# {NANOGPT.stamp}", *lines, ""])}
    return files if config.model.vocab == DEFAULT_VOCAB else files | {META: "\n".join([*meta, ""])}


def _start(config: RunConfig) -> Start:
    return Start(("train.py", f'"$HERE/{CONFIG}"'), folder="NANOGPT")


NANOGPT = Engine(
    "nanogpt", "nanoGPT", "of 2025-11-12", "3adf61e154c3", "github.com/karpathy/nanoGPT: train.py, model.py",
    (
        "git clone https://github.com/karpathy/nanoGPT && git -C nanoGPT checkout 3adf61e154c3",
        "pip install torch numpy",
    ),
    _FATES, _files, _start, _problems, _differences, on_cpu=True,
)  # fmt: skip
