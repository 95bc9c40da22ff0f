"""LitGPT: the YAML of `litgpt pretrain --config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.config.run import RunConfig
from planner.counts.run import sequences_per_step, steps_of, tokens_per_step
from planner.engines.engine import Engine, Start, machines_of
from planner.engines.fates import Carried, Differs, Fates, Irrelevant, casts_by_autocast, fixed
from planner.engines.plain_yaml import yaml_text

PRETRAIN = "pretrain.yaml"
PRECISIONS = {"autocast": "bf16-mixed", "mixed-bf16": "bf16-mixed", "pure-bf16": "bf16-true", "tf32": "32-true"}
MLP_CLASSES = {"gelu": "GptNeoxMLP", "swiglu": "LLaMAMLP", "geglu": "GemmaMLP"}
RESIDUALS = {"sequential": (False, False), "parallel": (True, False), "parallel-one-norm": (True, True)}

_FATES: Fates = {
    "model.name": Carried("name"),
    "model.layers": Carried("n_layer"),
    "model.hidden": Carried("n_embd"),
    "model.heads": Carried("n_head"),
    "model.kv_heads": Carried("n_query_groups"),
    "model.head_dim": Carried("head_size"),
    "model.ffn": Carried("intermediate_size"),
    "model.vocab": Carried("padded_vocab_size"),
    "model.tokenizer_vocab": Carried("vocab_size"),
    "model.context": Carried("block_size"),
    "model.position": fixed("rotary"),
    "model.rotary_dim": Carried("rotary_percentage"),
    "model.rope_base": Carried("rope_base"),
    "model.norm": Carried("norm_class_name"),
    "model.norm_parameters": Carried("norm_class_name", ("gain", "gain+bias")),
    "model.norm_eps": Carried("norm_eps"),
    "model.init_std": Differs((), "sqrt(2 / (5 n_embd)) there"),
    "model.init_residual": Differs((), "1 / (sqrt(n_embd) n_layer) there"),
    "model.qk_norm": Carried("norm_qk", ("none", "head")),
    "model.residual": Carried("parallel_residual, shared_attention_norm", tuple(RESIDUALS)),
    "model.mlp": Carried("mlp_class_name, gelu_approximate", tuple(MLP_CLASSES)),
    "model.biases": Carried("bias, attn_bias", ("none", "qkv", "all")),
    "model.head_bias": Carried("lm_head_bias"),
    "model.tied_embeddings": Carried("train.tie_embeddings"),
    "model.logit_softcap": Carried("final_logit_softcapping"),
    "training.tokens": Carried("train.max_tokens"),
    "training.steps": Carried("train.max_tokens"),
    "training.seq": Carried("train.max_seq_length"),
    "training.micro_batch": Carried("train.micro_batch_size"),
    "training.accumulation": Carried("train.global_batch_size"),
    "training.recipe": Carried("precision", tuple(PRECISIONS)),
    "training.runtime": fixed("compiled"),
    "training.dropout": fixed(0.0),
    "training.activation_checkpointing": fixed("none"),
    "training.seed": Carried("seed"),
    "training.checkpoint_every": Carried("train.save_interval"),
    "optimizer.beta1": Carried("betas"),
    "optimizer.beta2": Carried("betas"),
    "optimizer.eps": Carried("eps"),
    "optimizer.weight_decay": Carried("weight_decay"),
    "optimizer.clip_norm": Carried("train.max_norm"),
    "schedule.kind": fixed("cosine"),
    "schedule.peak_lr": Carried("lr"),
    "schedule.min_lr": Carried("train.min_lr"),
    "schedule.warmup_steps": Carried("train.lr_warmup_steps"),
    "parallel.fsdp": Carried("devices: several are FSDP"),
    "parallel.hsdp": Carried("num_nodes: several are FSDP in each node, replicas among them"),
    "evaluation.every": Carried("eval.interval"),
    "evaluation.tokens": Carried("eval.max_iters"),
    "checkpoints.keep": Irrelevant("all checkpoints are kept there"),
    "hardware.gpus": Carried("devices, num_nodes"),
}


def _problems(config: RunConfig) -> Iterator[str]:
    m, p, gpus = config.model, config.parallel, config.hardware.gpus
    if (m.norm == "layernorm") != (m.norm_parameters == "gain+bias"):
        yield f"model.norm_parameters = {m.norm_parameters} beside model.norm = {m.norm} (only layernorm has a bias)"
    if m.rope_base != int(m.rope_base):
        yield f"model.rope_base = {m.rope_base} (rope_base takes a whole number)"
    if config.optimizer.clip_norm is None:
        yield "optimizer.clip_norm = None (it always clips)"
    if m.moe is not None:
        return
    machines = machines_of(config)
    group = machines.processes if machines.nodes > 1 else None
    if p.fsdp != (gpus > 1):
        yield f"parallel.fsdp = {p.fsdp} on {gpus} GPUs (several GPUs are FSDP there, one is not)"
    if p.fsdp and p.hsdp not in (group, None if machines.nodes == 1 else group):
        yield f"parallel.hsdp = {p.hsdp} on {machines.nodes} nodes (groups are nodes there: {group})"


def _differences(config: RunConfig) -> Iterator[str]:
    yield "schedule: rates change with every micro-batch there, and are at most one update apart"
    yield "optimizer.weight_decay: on every parameter there, norms and biases too"
    yield "data: LitData reads the folder data/ there; set data in the YAML to another of its modules"
    yield from casts_by_autocast(config)
    if config.parallel.fsdp:
        yield "parallel.fsdp: FSDP1 there, whose flat parameters gather as many bytes"


def litgpt_values(config: RunConfig) -> dict[str, Any]:
    """The arguments of `litgpt pretrain`."""
    t, o, s = config.training, config.optimizer, config.schedule
    steps, machines, every = steps_of(config), machines_of(config), config.evaluation.every
    return {
        "model_name": config.model.name,
        "model_config": litgpt_model(config),
        "out_dir": "out",
        "precision": PRECISIONS[t.recipe],
        "data": {"class_path": "litgpt.data.LitData", "init_args": {"data_path": "data"}},
        "train": {
            "save_interval": t.checkpoint_every,
            "log_interval": 1,
            "global_batch_size": sequences_per_step(config),
            "micro_batch_size": t.micro_batch,
            "lr_warmup_steps": s.warmup_steps,
            "max_tokens": steps * tokens_per_step(config),
            "max_seq_length": t.seq,
            "tie_embeddings": config.model.tied_embeddings,
            "max_norm": o.clip_norm,
            "min_lr": s.min_lr,
        },
        "eval": {
            "interval": every or steps + 1,
            "max_iters": -(-config.evaluation.tokens // (t.micro_batch * t.seq * config.hardware.gpus)),
            "final_validation": every is not None,
        },
        "optimizer": {
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": s.peak_lr, "weight_decay": o.weight_decay, "betas": [o.beta1, o.beta2], "eps": o.eps},
        },
        "devices": machines.processes,
        "num_nodes": machines.nodes,
        "logger_name": "csv",
        "seed": t.seed,
    }


def litgpt_model(config: RunConfig) -> dict[str, Any]:
    """The fields of litgpt.Config."""
    m = config.model
    parallel, shared = RESIDUALS[m.residual]
    return {
        "name": m.name,
        "block_size": m.context,
        "vocab_size": m.tokenizer_vocab or m.vocab,
        "padded_vocab_size": m.vocab,
        "n_layer": m.layers,
        "n_embd": m.hidden,
        "n_head": m.heads,
        "head_size": m.head_dim,
        "n_query_groups": m.kv_heads,
        "intermediate_size": m.ffn,
        "rotary_percentage": m.rope_dim / m.head_dim,
        "rope_base": int(m.rope_base),
        "norm_class_name": "LayerNorm" if m.norm == "layernorm" else "RMSNorm",
        "norm_eps": m.norm_eps,
        "norm_qk": m.qk_norm == "head",
        "parallel_residual": parallel,
        "shared_attention_norm": shared,
        "bias": m.biases == "all",
        "attn_bias": m.biases in ("qkv", "all"),
        "mlp_class_name": MLP_CLASSES[m.mlp],
        "gelu_approximate": "none" if m.mlp == "swiglu" else "tanh",
        "lm_head_bias": m.head_bias,
        **({"final_logit_softcapping": m.logit_softcap} if m.logit_softcap is not None else {}),
    }


def _files(config: RunConfig) -> dict[str, str]:
    return {PRETRAIN: f"# {LITGPT.stamp}\n{yaml_text(litgpt_values(config))}"}


def _start(config: RunConfig) -> Start:
    return Start(("-m", "litgpt", "pretrain", "--config", PRETRAIN))


LITGPT = Engine(
    "litgpt", "LitGPT", "0.5.13", "26857050fe3f", "litgpt on PyPI: args.py, config.py, pretrain.py",
    ('pip install "litgpt[extra]==0.5.13"',), _FATES, _files, _start, _problems, _differences,
)  # fmt: skip
