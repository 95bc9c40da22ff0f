"""A YAML of `litgpt pretrain` as keys of run.toml."""

from __future__ import annotations

from typing import Any

from planner.engines.litgpt_yaml import MLP_CLASSES, PRECISIONS, RESIDUALS
from planner.engines.read_yaml import yaml_values
from planner.engines.source import EngineFile, FileReading, Settings, per_gpu
from planner.errors import InputError

_MODEL_DEFAULTS = {
    "norm_class_name": "LayerNorm", "norm_eps": 1e-5, "rotary_percentage": 0.25, "rope_base": 10_000, "bias": True,
    "parallel_residual": True, "mlp_class_name": "GptNeoxMLP", "block_size": 4096, "padding_multiple": 512,
}  # fmt: skip
_TRAIN_DEFAULTS = {
    "save_interval": 1000, "global_batch_size": 512, "micro_batch_size": 4, "max_tokens": int(3e12), "max_norm": 1.0,
    "min_lr": 4e-5, "lr_warmup_steps": 2000, "tie_embeddings": False,
}  # fmt: skip
_ADAM = {"lr": 1e-3, "weight_decay": 0.01, "betas": [0.9, 0.999], "eps": 1e-8}
_QUIET = {
    "model_name", "model_config", "out_dir", "data", "train", "eval", "optimizer", "logger_name", "resume", "log",
    "initial_checkpoint_dir", "tokenizer_dir",
}  # fmt: skip


def read_litgpt(source: EngineFile) -> FileReading:
    """The keys of a YAML of `litgpt pretrain` that has its model's shape."""
    values, found = yaml_values(source.text, source.path), FileReading(source)
    top = Settings(values, {"devices": 1, "num_nodes": 1, "seed": 42, "precision": "bf16-mixed"}, source.path)
    shape = values.get("model_config")
    if not isinstance(shape, dict):
        why = f"model_name = {values.get('model_name')} stands for a shape that only LitGPT knows"
        raise InputError(f"{source.path} has no model_config", why=why, remedy="write the shape under model_config")
    m = Settings(shape, _MODEL_DEFAULTS, source.path)
    t = Settings(_mapping(values, "train"), _TRAIN_DEFAULTS, source.path)
    e = Settings(_mapping(values, "eval"), {"interval": 1000, "max_iters": 100}, source.path)
    o = Settings(_mapping(_mapping(values, "optimizer"), "init_args"), _ADAM, source.path)
    known = isinstance(values.get("devices"), int)
    devices, nodes = (top.count("devices") if known else source.gpus or 1), top.count("num_nodes")
    gpus, model = devices * nodes if known else devices, _model(m, t)
    seq = t.count("max_seq_length") if t.value("max_seq_length") is not None else model["model.context"]
    micro, batch = t.count("micro_batch_size"), t.count("global_batch_size")
    steps, every = t.count("max_tokens") // (batch * seq), e.count("interval")
    betas = o.value("betas")
    first, second = betas if isinstance(betas, list) and len(betas) == 2 else (None, None)
    found.values = {
        **model, "training.steps": steps, "training.seq": seq, "training.micro_batch": micro,
        "training.accumulation": per_gpu(batch, micro, gpus, "global_batch_size"),
        "training.recipe": top.choice("precision", {there: ours for ours, there in reversed(PRECISIONS.items())}),
        "training.seed": top.count("seed", 0), "training.checkpoint_every": t.value("save_interval"),
        "optimizer.beta1": first, "optimizer.beta2": second, "optimizer.eps": o.number("eps"),
        "optimizer.weight_decay": o.number("weight_decay"), "optimizer.clip_norm": t.number("max_norm"),
        "schedule.peak_lr": o.number("lr"), "schedule.min_lr": t.number("min_lr"),
        "schedule.warmup_steps": t.count("lr_warmup_steps", 0),
        "parallel.fsdp": gpus > 1, "parallel.hsdp": devices if nodes > 1 and devices > 1 else None,
        "evaluation.every": every if every <= steps else None,
        "evaluation.tokens": e.count("max_iters") * micro * seq * gpus, "hardware.gpus": gpus,
    }  # fmt: skip
    if nodes > 1:
        found.values["hardware.gpus_per_node"] = devices
    for section, settings in (("model_config", m), ("train", t), ("eval", e), ("optimizer", o)):
        settings.asked |= {"name", "log_interval", "final_validation", "initial_validation"}
        found.leave_all({f"{section}.{k}": v for k, v in settings.given.items() if k not in settings.asked}, set())
    found.leave_all(top.given, top.asked | _QUIET)
    return found


def _mapping(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return {k: v for k, v in found.items() if v is not None} if isinstance(found, dict) else {}


def _model(m: Settings, t: Settings) -> dict[str, Any]:
    hidden, heads = m.count("n_embd"), m.count("n_head")
    width = m.count("head_size") if m.value("head_size") is not None else hidden // heads
    padded, vocab = m.value("padded_vocab_size"), m.value("vocab_size")
    if padded is None:
        multiple = m.count("padding_multiple")
        padded = -(-m.count("vocab_size") // multiple) * multiple
    layernorm = m.choice("norm_class_name", {"LayerNorm": True, "RMSNorm": False})
    residual = (m.truth("parallel_residual"), m.truth("shared_attention_norm"))
    turned = int(m.number("rotary_percentage") * width)
    ffn = m.count("intermediate_size") if m.value("intermediate_size") is not None else 4 * hidden
    m.asked.add("gelu_approximate")
    return {
        "model.name": str(m.value("name")), "model.layers": m.count("n_layer"), "model.hidden": hidden,
        "model.heads": heads,
        "model.kv_heads": m.count("n_query_groups") if m.value("n_query_groups") is not None else heads,
        "model.head_dim": width, "model.ffn": ffn, "model.vocab": padded,
        "model.tokenizer_vocab": vocab if vocab != padded else None, "model.context": m.count("block_size"),
        "model.rotary_dim": turned if turned != width else None, "model.rope_base": m.number("rope_base"),
        "model.norm": "layernorm" if layernorm else "rmsnorm",
        "model.norm_parameters": "gain+bias" if layernorm else "gain", "model.norm_eps": m.number("norm_eps"),
        "model.qk_norm": "head" if m.truth("norm_qk") else "none",
        "model.residual": next((ours for ours, both in RESIDUALS.items() if both == residual), "sequential"),
        "model.mlp": m.choice("mlp_class_name", {there: ours for ours, there in MLP_CLASSES.items()}),
        "model.biases": "all" if m.truth("bias") else "qkv" if m.truth("attn_bias") else "none",
        "model.head_bias": m.truth("lm_head_bias"), "model.tied_embeddings": t.truth("tie_embeddings"),
        "model.logit_softcap": m.value("final_logit_softcapping"),
    }  # fmt: skip
