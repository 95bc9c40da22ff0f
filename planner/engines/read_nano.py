"""nanoGPT's and nanochat's config files as keys of run.toml. Defaults are those of the commits exported for."""

from __future__ import annotations

import re

from planner.config.run import CPU
from planner.engines.nanochat_args import ASPECT, HEAD, TUNED_WIDTH
from planner.engines.nanogpt import DEFAULT_VOCAB, META
from planner.engines.python_values import assignments
from planner.engines.source import EngineFile, FileReading, Settings, per_gpu
from planner.errors import InputError

GPT_DEFAULTS = {
    "n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "bias": False, "dropout": 0.0, "batch_size": 12,
    "gradient_accumulation_steps": 40, "learning_rate": 6e-4, "min_lr": 6e-5, "decay_lr": True, "warmup_iters": 2000,
    "lr_decay_iters": 600_000, "max_iters": 600_000, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "grad_clip": 1.0,
    "eval_interval": 2000, "eval_iters": 200, "always_save_checkpoint": True, "device": "cuda", "dtype": "bfloat16",
    "compile": True,
}  # fmt: skip
CHAT_DEFAULTS = {
    "depth": 20, "max_seq_len": 2048, "num_iterations": -1, "device_batch_size": 32, "total_batch_size": 524_288,
    "matrix_lr": 0.02, "weight_decay": 0.0, "grad_clip": 1.0, "warmup_ratio": 0.0, "warmdown_ratio": 0.2,
    "final_lr_frac": 0.0, "eval_every": 250, "eval_tokens": 20 * 524_288,
}  # fmt: skip
# names that change no number of the run
_QUIET = {
    "out_dir", "log_interval", "eval_only", "init_from", "wandb_log", "wandb_project", "wandb_run_name", "dataset",
    "backend", "run", "device_type", "model_tag", "core_metric_every", "core_metric_max_per_task", "sample_every",
}  # fmt: skip
_VOCAB = re.compile(r'"vocab_size": (\d{1,12})')


def read_nanogpt(source: EngineFile) -> FileReading:
    """The keys of a nanoGPT config file."""
    s, found = Settings(assignments(source.text, source.path), GPT_DEFAULTS, source.path), FileReading(source)
    hidden, heads, block, micro = (s.count(n) for n in ("n_embd", "n_head", "block_size", "batch_size"))
    if hidden % heads:
        raise InputError(
            f"{source.path}: n_embd = {hidden} is not divisible by n_head = {heads}", remedy="mend it there"
        )
    gpus, bias, steps = source.gpus or 1, s.truth("bias"), s.count("max_iters", 0) + 1
    together = "gradient_accumulation_steps"
    meta = _VOCAB.search(source.beside(META) or "")
    every = s.count("eval_interval")
    decays, end = s.truth("decay_lr"), s.count("lr_decay_iters", 0) + 1
    found.values = {
        "model.layers": s.count("n_layer"), "model.hidden": hidden, "model.heads": heads, "model.kv_heads": heads,
        "model.head_dim": hidden // heads, "model.ffn": 4 * hidden, "model.context": block,
        "model.vocab": int(meta[1]) if meta else DEFAULT_VOCAB,
        "model.biases": "all" if bias else "none", "model.norm_parameters": "gain+bias" if bias else "gain",
        "training.steps": steps, "training.seq": block, "training.micro_batch": micro,
        "training.accumulation": per_gpu(s.count(together), 1, gpus, together),
        "training.recipe": s.choice("dtype", {"bfloat16": "autocast", "float16": "mixed-fp16", "float32": "tf32"}),
        "training.runtime": "compiled" if s.truth("compile") else "eager",
        "training.dropout": s.number("dropout"), "training.returns_logits": True,
        "training.checkpoint_every": every if s.truth("always_save_checkpoint") and every <= steps else None,
        "optimizer.beta1": s.number("beta1"), "optimizer.beta2": s.number("beta2"),
        "optimizer.weight_decay": s.number("weight_decay"), "optimizer.clip_norm": s.number("grad_clip") or None,
        "schedule.kind": "cosine" if decays else "constant", "schedule.peak_lr": s.number("learning_rate"),
        "schedule.min_lr": s.number("min_lr"),
        "schedule.warmup_steps": s.count("warmup_iters", -1) + 1 if decays else 0,
        "evaluation.every": every if every <= steps else None,
        "evaluation.tokens": s.count("eval_iters") * micro * block,
        "hardware.gpus": gpus,
    }  # fmt: skip
    if str(s.value("device")).startswith("cpu"):
        found.values["hardware.gpu"] = CPU
    if decays and end != steps:
        found.leave("lr_decay_iters", end - 1, f"the decay ends with the run here, after {steps} steps")
    if found.values["training.runtime"] == "eager" and found.values["training.recipe"] == "autocast":
        found.values["training.runtime"] = "autocast"
    found.leave_all(s.given, s.asked | _QUIET)
    return found


def read_nanochat(source: EngineFile) -> FileReading:
    """The keys of a config file of nanochat's base_train.py."""
    s, found = Settings(assignments(source.text, source.path), CHAT_DEFAULTS, source.path), FileReading(source)
    depth, seq, micro, gpus = s.count("depth"), s.count("max_seq_len"), s.count("device_batch_size"), source.gpus or 1
    width = ASPECT * depth
    heads = max(1, -(-width // HEAD))
    steps, peak = s.count("num_iterations"), s.number("matrix_lr")
    warm, cool = round(s.number("warmup_ratio") * steps), round(s.number("warmdown_ratio") * steps)
    every, batch = s.count("eval_every"), s.count("total_batch_size")
    found.values = {
        "model.layers": depth, "model.hidden": width, "model.heads": heads, "model.kv_heads": heads,
        "model.head_dim": width // heads, "model.ffn": 4 * width, "model.context": seq,
        "training.steps": steps, "training.seq": seq, "training.micro_batch": micro,
        "training.accumulation": per_gpu(batch, micro * seq, gpus, "total_batch_size"), "training.recipe": "autocast",
        "optimizer.weight_decay": s.number("weight_decay"), "optimizer.clip_norm": s.number("grad_clip") or None,
        "schedule.kind": "wsd" if cool else "constant", "schedule.peak_lr": peak,
        "schedule.min_lr": s.number("final_lr_frac") * peak if cool else 0.0,
        "schedule.warmup_steps": warm, "schedule.cooldown_steps": cool,
        "evaluation.every": every if every <= steps else None, "evaluation.tokens": s.count("eval_tokens"),
        "hardware.gpus": gpus,
    }  # fmt: skip
    for name in ("embedding_lr", "unembedding_lr"):
        rate = s.value(name)
        if rate is not None and abs(float(rate) - peak * (width / TUNED_WIDTH) ** 0.5) > 1e-9 * peak:
            found.leave(name, rate, "one rate for all parameters here; optimizer.groups can say others")
    found.leave_all(s.given, s.asked | _QUIET)
    return found
