"""torchtitan: a Python module with the function that its --module and --config options name.

Its rates agree with ours through warm-up; a decay there begins one update later, and so ends above min_lr.
"""

from __future__ import annotations

from collections.abc import Iterator
from pprint import pformat
from typing import Any

from planner.config.run import RunConfig
from planner.counts.run import sequences_per_step, steps_of
from planner.engines.engine import Engine, Start
from planner.engines.fates import Carried, Differs, Fates, fixed
from planner.engines.torchtitan_text import MODULE_TEXT

MODULE = "gptplan_torchtitan"
RECIPES_THERE = {
    "mixed-bf16": ("float32", "bfloat16"),
    "autocast": ("float32", "bfloat16"),
    "tf32": ("float32", "float32"),
    "pure-bf16": ("bfloat16", "bfloat16"),
}
PIPELINES = {"1f1b": "1F1B", "interleaved": "Interleaved1F1B"}
_FATES: Fates = {
    "model.name": Carried("flavor"),
    "model.layers": Carried("layers"),
    "model.hidden": Carried("dim"),
    "model.heads": Carried("n_heads"),
    "model.kv_heads": Carried("n_kv_heads"),
    "model.head_dim": Carried("head_dim"),
    "model.ffn": Carried("hidden_dim of the feed-forward"),
    "model.vocab": Carried("vocab_size"),
    "model.context": Carried("max_seq_len of the rotary embedding"),
    "model.position": fixed("rotary"),
    "model.rotary_dim": fixed(None),
    "model.rope_base": Carried("theta of the rotary embedding"),
    "model.norm": fixed("rmsnorm"),
    "model.norm_parameters": fixed("gain"),
    "model.norm_eps": Carried("eps of every RMSNorm"),
    "model.init_std": Carried("param_init of every matrix"),
    "model.init_residual": Carried("param_init of wo and w2"),
    "model.qk_norm": Carried("qk_norm", ("none", "head")),
    "model.residual": fixed("sequential"),
    "model.mlp": fixed("swiglu"),
    "model.biases": fixed("none"),
    "model.tied_embeddings": Carried("enable_weight_tying"),
    "model.moe": Carried("moe of each block"),
    "model.moe.experts": Carried("num_experts"),
    "model.moe.top_k": Carried("top_k"),
    "model.moe.expert_ffn": Carried("hidden_dim of the routed experts"),
    "model.moe.shared_ffn": Carried("shared_experts"),
    "model.moe.shared_gate": fixed(False),
    "model.moe.first_dense_layers": Carried("feed_forward of the first blocks"),
    "model.moe.every": fixed(None),
    "model.moe.router_bias": fixed(False),
    "model.moe.expert_biases": fixed(False),
    "model.moe.balancing": Carried("load_balance_coeff", ("none", "bias")),
    "model.moe.balancing_rate": Carried("load_balance_coeff"),
    "training.tokens": Carried("training.steps"),
    "training.steps": Carried("training.steps"),
    "training.seq": Carried("training.seq_len"),
    "training.micro_batch": Carried("training.local_batch_size, pipeline_parallel_microbatch_size"),
    "training.accumulation": Carried("training.global_batch_size"),
    "training.recipe": Carried("training.dtype, mixed_precision_param", tuple(RECIPES_THERE)),
    "training.runtime": Carried("compile.enable", ("eager", "compiled")),
    "training.attention_kernel": Carried("inner_attention", ("flash", "flex")),
    "training.document_masking": Differs((True,), "attention stays within a document there, always"),
    "training.loss": Carried("loss", ("plain", "chunked")),
    "training.loss_chunks": Carried("num_chunks"),
    "training.dropout": fixed(0.0),
    "training.activation_checkpointing": Carried("activation_checkpoint", ("none", "full")),
    "training.seed": Carried("debug.seed"),
    "training.checkpoint_every": Carried("checkpoint.interval"),
    "optimizer.implementation": Carried("implementation", ("fused", "foreach", "for-loop")),
    "optimizer.beta1": Carried("betas"),
    "optimizer.beta2": Carried("betas"),
    "optimizer.eps": Carried("eps"),
    "optimizer.weight_decay": Carried("weight_decay, 0 for norms"),
    "optimizer.clip_norm": Carried("training.max_norm"),
    "schedule.kind": Carried("decay_type, decay_ratio", ("cosine", "linear", "constant", "wsd")),
    "schedule.peak_lr": Carried("lr"),
    "schedule.min_lr": Carried("min_lr_factor"),
    "schedule.warmup_steps": Carried("lr_scheduler.warmup_steps"),
    "schedule.cooldown_steps": Carried("decay_ratio"),
    "parallel.fsdp": Carried("data_parallel_shard_degree"),
    "parallel.reshard": Carried("fsdp_reshard_after_forward"),
    "parallel.hsdp": Carried("data_parallel_replicate_degree"),
    "parallel.tp": Carried("tensor_parallel_degree"),
    "parallel.sp": Carried("enable_sequence_parallel"),
    "parallel.pp": Carried("pipeline_parallel_degree"),
    "parallel.interleave": Carried("pipeline_parallel_layers_per_stage"),
    "parallel.pp_schedule": Carried("pipeline_parallel_schedule", tuple(PIPELINES)),
    "parallel.cp": Carried("context_parallel_degree"),
    "parallel.ep": Carried("expert_parallel_degree"),
    "evaluation.every": Carried("validator.freq"),
    "evaluation.tokens": Carried("validator.steps"),
    "checkpoints.keep": Carried("checkpoint.keep_latest_k"),
    "checkpoints.asynchronous": Carried("checkpoint.async_mode"),
}


def _problems(config: RunConfig) -> Iterator[str]:
    m, p, t = config.model, config.parallel, config.training
    if m.layers % (p.pp * p.interleave):
        yield f"parallel.pp = {p.pp}, parallel.interleave = {p.interleave} (model.layers = {m.layers} is no multiple)"
    if m.tied_embeddings and p.pp > 1:
        yield f"model.tied_embeddings = True beside parallel.pp = {p.pp} (it ties them on one stage only)"
    if p.hsdp is not None and p.hsdp % p.cp:
        yield f"parallel.hsdp = {p.hsdp} beside parallel.cp = {p.cp} (its groups are a multiple of cp)"
    if config.hardware.gpus > 1 and not p.fsdp and p.cp > 1:
        yield f"parallel.fsdp = False beside parallel.cp = {p.cp} (weights are cut among the cp GPUs there)"
    if config.checkpoints.keep == 1 and t.checkpoint_every:
        yield "checkpoints.keep = 1 (keep_latest_k is 0 or at least 2)"
    if t.recipe == "autocast" and (p.fsdp or p.tp > 1 or p.pp > 1):
        yield "training.recipe = autocast (sharded weights are cast there as in mixed-bf16, not by torch.autocast)"


def _differences(config: RunConfig) -> Iterator[str]:
    if config.schedule.kind != "constant":
        yield "schedule: the decay is one update late there"
    if config.training.recipe == "mixed-bf16" and config.hardware.gpus == 1:
        yield "training.recipe = mixed-bf16: residual stream in bf16 there"
    elif config.training.recipe == "mixed-bf16":
        yield "training.recipe = mixed-bf16: a block computes in bf16 there, its residual stream too"
    elif config.training.recipe == "autocast":
        yield "training.recipe = autocast: FSDP2's casts there, in a mesh of one"
    if config.training.attention_kernel == "flash":
        other = "FlexAttention, which context parallelism needs" if config.parallel.cp > 1 else "variable-length flash"
        yield f"training.attention_kernel = flash: {other} there"
    yield "data: c4 there; set dataloader, and hf_assets_path, a folder with a tokenizer, in the module"


def torchtitan_values(config: RunConfig) -> dict[str, Any]:
    """The numbers of the module, by the sections of torchtitan's own config."""
    m, t, o, s, p = config.model, config.training, config.optimizer, config.schedule, config.parallel
    steps, dp, every = steps_of(config), config.data_parallel, config.evaluation.every
    dtype, products = RECIPES_THERE[t.recipe]
    shard = (p.hsdp // p.cp if p.hsdp else dp) if p.fsdp else 1
    staged = p.pp > 1
    return {
        "model": {
            "name": m.name, "layers": m.layers, "dim": m.hidden, "n_heads": m.heads, "n_kv_heads": m.kv_heads,
            "head_dim": m.head_dim, "hidden_dim": m.ffn, "vocab_size": m.vocab, "max_seq_len": m.context,
            "theta": m.rope_base, "eps": m.norm_eps, "init_std": m.init_std,
            "scaled_residual": m.init_residual == "scaled",
            "qk_norm": m.qk_norm == "head", "enable_weight_tying": m.tied_embeddings,
            "attention": "flex" if t.attention_kernel == "flex" or p.cp > 1 else "varlen", "moe": _moe(config),
        },
        "loss_chunks": t.loss_chunks if t.loss == "chunked" else 0,
        "optimizer": {"lr": s.peak_lr, "betas": [o.beta1, o.beta2], "eps": o.eps, "weight_decay": o.weight_decay},
        "implementation": o.implementation,
        "lr_scheduler": {
            "warmup_steps": s.warmup_steps,
            "decay_ratio": {"wsd": s.cooldown_steps / steps, "constant": 0.0}.get(s.kind),
            "decay_type": "cosine" if s.kind == "cosine" else "linear",
            "min_lr_factor": s.min_lr / s.peak_lr,
        },
        "training": {
            "local_batch_size": t.micro_batch * (t.accumulation if staged else 1),
            "global_batch_size": sequences_per_step(config), "seq_len": t.seq, "steps": steps,
            "max_norm": o.clip_norm, "dtype": dtype, "mixed_precision_param": products, "disable_cuda_graphs": True,
        },
        "parallelism": {
            "data_parallel_replicate_degree": dp // shard, "data_parallel_shard_degree": shard,
            "fsdp_reshard_after_forward": "always" if p.reshard else "never",
            "tensor_parallel_degree": p.tp, "enable_sequence_parallel": p.sp,
            "pipeline_parallel_degree": p.pp, "pipeline_parallel_schedule": PIPELINES[p.pp_schedule],
            "pipeline_parallel_layers_per_stage": m.layers // (p.pp * p.interleave) if staged else None,
            "pipeline_parallel_first_stage_less_layers": 0, "pipeline_parallel_last_stage_less_layers": 0,
            "pipeline_parallel_microbatch_size": t.micro_batch if staged else 1,
            "context_parallel_degree": p.cp, "expert_parallel_degree": p.ep,
        },
        "full_checkpointing": t.activation_checkpointing == "full",
        "compile": t.runtime == "compiled",
        "seed": t.seed,
        "checkpoint": {
            "enable": t.checkpoint_every is not None, "interval": t.checkpoint_every or steps,
            "keep_latest_k": config.checkpoints.keep if t.checkpoint_every else 10, "last_save_model_only": False,
            "async_mode": "async" if config.checkpoints.asynchronous else "disabled",
        },
        "validator": {
            "enable": every is not None, "freq": every or steps,
            "steps": -(-config.evaluation.tokens // (t.micro_batch * t.seq * dp)),
        },
    }  # fmt: skip


def _moe(config: RunConfig) -> dict[str, Any] | None:
    moe = config.model.moe
    if moe is None:
        return None
    return {
        "num_experts": moe.experts, "top_k": moe.top_k, "hidden_dim": moe.expert_ffn, "shared_dim": moe.shared_ffn,
        "first_dense_layers": moe.first_dense_layers,
        "load_balance_coeff": moe.balancing_strength if moe.balancing == "bias" else None,
    }  # fmt: skip


def _files(config: RunConfig) -> dict[str, str]:
    values = pformat(torchtitan_values(config), width=110, sort_dicts=False)
    return {f"{MODULE}.py": f"# {TORCHTITAN.stamp}\n{MODULE_TEXT.replace('@RUN@', values)}"}


def _start(config: RunConfig) -> Start:
    return Start(("-m", "torchtitan.train", "--module", MODULE, "--config", "run"))


TORCHTITAN = Engine(
    "torchtitan", "torchtitan", "0.3.0", "", "torchtitan on PyPI: config/configs.py, models/llama3, models/qwen3",
    ("pip install torchtitan==0.3.0",), _FATES, _files, _start, _problems, _differences,
)  # fmt: skip
