"""The numbers of an exported torchtitan module as keys of run.toml."""

from __future__ import annotations

from typing import Any

from planner.engines.python_values import assignments
from planner.engines.source import EngineFile, FileReading, Settings, per_gpu
from planner.engines.torchtitan_module import PIPELINES, RECIPES_THERE
from planner.errors import InputError

_MODEL = {
    "layers": "layers", "dim": "hidden", "n_heads": "heads", "n_kv_heads": "kv_heads", "head_dim": "head_dim",
    "hidden_dim": "ffn", "vocab_size": "vocab", "max_seq_len": "context",
}  # fmt: skip


def read_torchtitan(source: EngineFile) -> FileReading:
    """The keys of a module that `gptplan export --to torchtitan` wrote, numbers in it changed or not."""
    run = assignments(source.text, source.path).get("RUN")
    found = FileReading(source)
    parts = {name: _part(run, name, source) for name in (
        "model", "optimizer", "lr_scheduler", "training", "parallelism", "checkpoint", "validator",
    )}  # fmt: skip
    top = Settings(run if isinstance(run, dict) else {}, {}, source.path)
    m, t, p = parts["model"], parts["training"], parts["parallelism"]
    shard, replicate, pp = (
        p.count(n) for n in ("data_parallel_shard_degree", "data_parallel_replicate_degree", "pipeline_parallel_degree")
    )
    tp, cp, ep = (p.count(f"{kind}_parallel_degree") for kind in ("tensor", "context", "expert"))
    micro = p.count("pipeline_parallel_microbatch_size") if pp > 1 else t.count("local_batch_size")
    dp, seq, steps = shard * replicate, t.count("seq_len"), t.count("steps")
    fsdp = shard > 1 or p.value("fsdp_reshard_after_forward") == "never"
    per_stage = p.value("pipeline_parallel_layers_per_stage")
    interleave = (
        m.count("layers") // (int(per_stage) * pp) if pp > 1 and isinstance(per_stage, int) and per_stage else 1
    )
    chunks, validator, checkpoint = top.count("loss_chunks", 0), parts["validator"], parts["checkpoint"]
    there = (t.value("dtype"), t.value("mixed_precision_param"))
    recipe = next((r for r, types in RECIPES_THERE.items() if types == there), None)
    if recipe is None:
        raise InputError(f"{source.path}: dtype and mixed_precision_param = {there}", remedy="no recipe has them")
    found.values = {
        **{f"model.{ours}": m.count(theirs) for theirs, ours in _MODEL.items()},
        "model.name": str(m.value("name")), "model.rope_base": m.number("theta"), "model.norm_eps": m.number("eps"),
        "model.init_std": m.number("init_std"),
        "model.init_residual": "scaled" if m.truth("scaled_residual") else "same",
        "model.qk_norm": "head" if m.truth("qk_norm") else "none",
        "model.tied_embeddings": m.truth("enable_weight_tying"), "model.moe": _moe(m.value("moe"), source),
        "training.steps": steps, "training.seq": seq, "training.micro_batch": micro,
        "training.accumulation": per_gpu(t.count("global_batch_size"), micro, dp, "global_batch_size"),
        "training.recipe": recipe, "training.runtime": "compiled" if top.truth("compile") else "eager",
        "training.attention_kernel": "flash", "training.document_masking": False,
        "training.loss": "chunked" if chunks else "plain", "training.loss_chunks": chunks or 8,
        "training.activation_checkpointing": "full" if top.truth("full_checkpointing") else "none",
        "training.seed": top.count("seed", 0),
        "training.checkpoint_every": checkpoint.count("interval") if checkpoint.truth("enable") else None,
        **_optimizer(parts["optimizer"], t), "optimizer.implementation": top.value("implementation"),
        **_schedule(parts["lr_scheduler"], parts["optimizer"].number("lr"), steps),
        "parallel.fsdp": fsdp, "parallel.reshard": p.value("fsdp_reshard_after_forward") != "never",
        "parallel.hsdp": shard * cp if fsdp and replicate > 1 else None,
        "parallel.tp": tp, "parallel.sp": p.truth("enable_sequence_parallel"), "parallel.pp": pp,
        "parallel.interleave": interleave,
        "parallel.pp_schedule": p.choice("pipeline_parallel_schedule", {at: ours for ours, at in PIPELINES.items()}),
        "parallel.cp": cp, "parallel.ep": ep,
        "evaluation.every": validator.count("freq") if validator.truth("enable") else None,
        "evaluation.tokens": validator.count("steps") * micro * seq * dp,
        "checkpoints.keep": checkpoint.count("keep_latest_k") if checkpoint.truth("enable") else 3,
        "checkpoints.asynchronous": checkpoint.value("async_mode") == "async",
        "hardware.gpus": dp * tp * pp * cp,
    }  # fmt: skip
    if m.value("attention") == "flex" and cp == 1:
        found.values |= {"training.attention_kernel": "flex", "training.document_masking": True}
    return found


def _part(run: Any, name: str, source: EngineFile) -> Settings:
    values = run.get(name) if isinstance(run, dict) else None
    if not isinstance(values, dict):
        why = f"RUN has no {name!r}: it is no module that gptplan wrote"
        raise InputError(f"{source.path} is not understood", why=why, remedy="give an exported gptplan_torchtitan.py")
    return Settings(values, {}, source.path)


def _moe(values: Any, source: EngineFile) -> dict[str, Any] | None:
    if values is None:
        return None
    s = Settings(values if isinstance(values, dict) else {}, {}, source.path)
    rate = s.value("load_balance_coeff")
    return {
        "experts": s.count("num_experts"), "top_k": s.count("top_k"), "expert_ffn": s.count("hidden_dim"),
        "shared_ffn": s.count("shared_dim", 0), "first_dense_layers": s.count("first_dense_layers", 0),
        "balancing": "none" if rate is None else "bias", "balancing_rate": rate,
    }  # fmt: skip


def _optimizer(o: Settings, t: Settings) -> dict[str, Any]:
    betas = o.value("betas")
    first, second = betas if isinstance(betas, list | tuple) and len(betas) == 2 else (None, None)
    clip = t.value("max_norm")
    return {
        "optimizer.beta1": first, "optimizer.beta2": second, "optimizer.eps": o.number("eps"),
        "optimizer.weight_decay": o.number("weight_decay"), "optimizer.clip_norm": clip or None,
    }  # fmt: skip


def _schedule(s: Settings, peak: float, steps: int) -> dict[str, Any]:
    ratio, shape = s.value("decay_ratio"), s.choice("decay_type", {"cosine": "cosine", "linear": "linear"})
    cool = 0 if ratio is None else round(s.number("decay_ratio") * steps)
    return {
        "schedule.kind": shape if ratio is None else "wsd" if cool else "constant",
        "schedule.peak_lr": peak, "schedule.min_lr": s.number("min_lr_factor") * peak,
        "schedule.warmup_steps": s.count("warmup_steps", 0), "schedule.cooldown_steps": cool,
    }  # fmt: skip
