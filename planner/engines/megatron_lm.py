"""Megatron-LM: the arguments of pretrain_gpt.py, one on each line of a file that launch.sh reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.config.run import RunConfig
from planner.counts.run import sequences_per_step, steps_of
from planner.engines.engine import Engine, Start
from planner.engines.fates import Carried, Differs, Fates, Irrelevant, fixed

ARGUMENTS = "megatron_args.txt"
_BACKENDS = {"flash": "flash", "math": "unfused", "cudnn": "fused"}
IMPLEMENTATION = {"eager": "local", "fused": "transformer_engine"}
POSITIONS = {"learned": "learned_absolute", "rotary": "rope", "none": "none"}
MLPS = {"gelu": {}, "relu2": {"squared-relu": True}, "swiglu": {"swiglu": True}}
STYLES = {
    "cosine": "cosine", "linear": "linear", "constant": "constant", "inverse_sqrt": "inverse-square-root", "wsd": "WSD",
}  # fmt: skip
_EXPERTS = Carried("--num-experts and --moe-…")

_FATES: Fates = {
    "model.layers": Carried("--num-layers"),
    "model.hidden": Carried("--hidden-size"),
    "model.heads": Carried("--num-attention-heads"),
    "model.kv_heads": Carried("--group-query-attention, --num-query-groups"),
    "model.head_dim": Carried("--kv-channels"),
    "model.ffn": Carried("--ffn-hidden-size"),
    "model.vocab": Carried("--padded-vocab-size"),
    "model.tokenizer_vocab": Carried("--vocab-size"),
    "model.context": Carried("--max-position-embeddings"),
    "model.position": Carried("--position-embedding-type", tuple(POSITIONS)),
    "model.rotary_dim": Carried("--rotary-percent"),
    "model.rope_base": Carried("--rotary-base"),
    "model.norm": Carried("--normalization"),
    "model.norm_parameters": Carried("--normalization", ("gain", "gain+bias")),
    "model.norm_eps": Carried("--norm-epsilon"),
    "model.init_std": Carried("--init-method-std"),
    "model.init_residual": Differs(("scaled",), "init_std / sqrt(2 layers) there"),
    "model.qk_norm": Carried("--qk-layernorm", ("none", "head")),
    "model.residual": fixed("sequential"),
    "model.mlp": Carried("--swiglu, --squared-relu", tuple(MLPS)),
    "model.biases": Carried("--disable-bias-linear, --add-qkv-bias", ("none", "qkv", "all")),
    "model.tied_embeddings": Carried("--untie-embeddings-and-output-weights"),
    "model.moe": _EXPERTS,
    "model.moe.experts": Carried("--num-experts"),
    "model.moe.top_k": Carried("--moe-router-topk"),
    "model.moe.expert_ffn": Carried("--moe-ffn-hidden-size"),
    "model.moe.shared_ffn": Carried("--moe-shared-expert-intermediate-size"),
    "model.moe.shared_gate": Carried("--moe-shared-expert-gate"),
    "model.moe.first_dense_layers": Carried("--moe-layer-freq"),
    "model.moe.every": fixed(None),
    "model.moe.router_bias": fixed(False),
    "model.moe.expert_biases": fixed(False),
    "model.moe.balancing": Carried("--moe-router-load-balancing-type", ("none", "loss-sum")),
    "model.moe.balancing_rate": Carried("--moe-aux-loss-coeff"),
    "training.tokens": Carried("--train-iters"),
    "training.steps": Carried("--train-iters"),
    "training.seq": Carried("--seq-length"),
    "training.micro_batch": Carried("--micro-batch-size"),
    "training.accumulation": Carried("--global-batch-size"),
    "training.recipe": Carried("--bf16, --grad-reduce-in-bf16", ("master-bf16", "master-bf16-grad16", "fp32")),
    "training.runtime": Carried("--transformer-impl", tuple(IMPLEMENTATION)),
    "training.attention_kernel": Carried("--attention-backend", tuple(_BACKENDS)),
    "training.dropout": Carried("--attention-dropout, --hidden-dropout"),
    "training.activation_checkpointing": Carried("--recompute-granularity", ("none", "selective", "full")),
    "training.seed": Carried("--seed"),
    "training.checkpoint_every": Carried("--save-interval"),
    "optimizer.beta1": Carried("--adam-beta1"),
    "optimizer.beta2": Carried("--adam-beta2"),
    "optimizer.eps": Carried("--adam-eps"),
    "optimizer.weight_decay": Carried("--weight-decay"),
    "optimizer.clip_norm": Carried("--clip-grad"),
    "schedule.kind": Carried("--lr-decay-style", tuple(STYLES)),
    "schedule.peak_lr": Carried("--lr"),
    "schedule.min_lr": Carried("--min-lr"),
    "schedule.warmup_steps": Carried("--lr-warmup-iters"),
    "schedule.cooldown_steps": Carried("--lr-wsd-decay-iters"),
    "parallel.fsdp": Carried("--use-torch-fsdp2"),
    "parallel.reshard": Carried("--torch-fsdp2-no-reshard-after-forward"),
    "parallel.zero": Carried("--use-distributed-optimizer", (0, 1)),
    "parallel.ddp_bucket_view": Differs((True,), "gradients lie in the buckets there, without a second copy"),
    "parallel.tp": Carried("--tensor-model-parallel-size"),
    "parallel.sp": Carried("--sequence-parallel"),
    "parallel.pp": Carried("--pipeline-model-parallel-size"),
    "parallel.interleave": Carried("--num-virtual-stages-per-pipeline-rank"),
    "parallel.pp_schedule": Carried("--num-virtual-stages-per-pipeline-rank", ("1f1b", "interleaved")),
    "parallel.cp": Carried("--context-parallel-size"),
    "parallel.ep": Carried("--expert-model-parallel-size"),
    "evaluation.every": Carried("--eval-interval"),
    "evaluation.tokens": Carried("--eval-iters"),
    "checkpoints.keep": Irrelevant("all checkpoints are kept there"),
    "checkpoints.asynchronous": Carried("--async-save"),
}


def _problems(config: RunConfig) -> Iterator[str]:
    m, p = config.model, config.parallel
    if (m.norm == "layernorm") != (m.norm_parameters == "gain+bias"):
        yield f"model.norm_parameters = {m.norm_parameters} beside model.norm = {m.norm} (only layernorm has a bias)"
    if config.training.runtime == "eager" and config.training.attention_kernel != "math":
        kernel = config.training.attention_kernel
        yield f"training.runtime = eager beside training.attention_kernel = {kernel} (only fused has it there)"
    if m.rope_base != int(m.rope_base):
        yield f"model.rope_base = {m.rope_base} (--rotary-base takes a whole number)"
    if m.moe is not None and m.mlp != "swiglu":
        yield f"model.moe beside model.mlp = {m.mlp} (experts are written with swiglu only)"
    if m.layers % (p.pp * p.interleave):
        yield f"parallel.pp = {p.pp}, parallel.interleave = {p.interleave} (model.layers = {m.layers} is no multiple)"
    if p.fsdp and (p.pp > 1 or p.ep > 1 or m.tied_embeddings):
        yield "parallel.fsdp = True (--use-torch-fsdp2 takes no pp, no ep and no tied embeddings)"
    if p.tp > 1 and p.ep > 1 and not p.sp:
        yield f"parallel.sp = False beside parallel.ep = {p.ep} and parallel.tp = {p.tp} (experts need sp there)"


def _differences(config: RunConfig) -> Iterator[str]:
    yield "schedule: rates are those of the update before there: its scheduler counts from 0"
    yield "data: give --data-path PREFIX or --mock-data behind launch.sh; its own index shuffles"
    if config.model.mlp == "gelu":
        yield "model.mlp = gelu: by tanh there in the fused kernel with biases, else by the error function"
    if config.training.recipe == "fp32":
        yield "training.recipe = fp32: TF32 is PyTorch's default there, which is off for matrix products"


def megatron_values(config: RunConfig) -> dict[str, Any]:
    """The arguments by name; True is a switch, None and False are left out."""
    m, t, o, s, p = config.model, config.training, config.optimizer, config.schedule, config.parallel
    every, save, steps = config.evaluation.every, t.checkpoint_every, steps_of(config)
    sequences = sequences_per_step(config)
    return {
        "num-layers": m.layers, "hidden-size": m.hidden, "ffn-hidden-size": m.ffn,
        "num-attention-heads": m.heads, "kv-channels": m.head_dim,
        "group-query-attention": m.kv_heads != m.heads,
        "num-query-groups": m.kv_heads if m.kv_heads != m.heads else None,
        "seq-length": t.seq, "max-position-embeddings": m.context,
        "position-embedding-type": POSITIONS[m.position],
        "rotary-base": int(m.rope_base) if m.position == "rotary" else None,
        "rotary-percent": m.rope_dim / m.head_dim if m.position == "rotary" else None,
        "normalization": "LayerNorm" if m.norm == "layernorm" else "RMSNorm", "norm-epsilon": m.norm_eps,
        "qk-layernorm": m.qk_norm == "head",
        "disable-bias-linear": m.biases != "all", "add-qkv-bias": m.biases == "qkv",
        **MLPS[m.mlp],
        "untie-embeddings-and-output-weights": not m.tied_embeddings,
        "init-method-std": m.init_std,
        "tokenizer-type": "NullTokenizer", "vocab-size": m.tokenizer_vocab or m.vocab, "padded-vocab-size": m.vocab,
        **_experts(config),
        "micro-batch-size": t.micro_batch, "global-batch-size": sequences, "train-iters": steps, "seed": t.seed,
        "bf16": t.recipe != "fp32", "grad-reduce-in-bf16": t.recipe == "master-bf16-grad16",
        "transformer-impl": IMPLEMENTATION[t.runtime], "attention-backend": _BACKENDS[t.attention_kernel],
        "attention-dropout": t.dropout, "hidden-dropout": t.dropout,
        **_recomputation(t.activation_checkpointing),
        "optimizer": "adam", "adam-beta1": o.beta1, "adam-beta2": o.beta2, "adam-eps": o.eps,
        "weight-decay": o.weight_decay, "clip-grad": o.clip_norm or 0.0,
        "lr": s.peak_lr, "min-lr": s.min_lr, "lr-warmup-iters": s.warmup_steps, "lr-decay-iters": steps,
        "lr-decay-style": STYLES[s.kind],
        "lr-wsd-decay-style": "linear" if s.kind == "wsd" else None,
        "lr-wsd-decay-iters": s.cooldown_steps if s.kind == "wsd" else None,
        "tensor-model-parallel-size": p.tp, "sequence-parallel": p.sp,
        "pipeline-model-parallel-size": p.pp,
        "num-virtual-stages-per-pipeline-rank": p.interleave if p.interleave > 1 else None,
        "context-parallel-size": p.cp, "expert-model-parallel-size": p.ep,
        "use-distributed-optimizer": p.zero == 1,
        "use-torch-fsdp2": p.fsdp, "no-gradient-accumulation-fusion": p.fsdp,
        "torch-fsdp2-no-reshard-after-forward": not p.reshard,
        "eval-interval": every or steps,
        "eval-iters": -(-config.evaluation.tokens // (sequences * t.seq)) if every else 0,
        "save": "checkpoints" if save else None, "save-interval": save,
        "async-save": bool(config.checkpoints.asynchronous),
        "log-interval": 1, "log-throughput": True,
    }  # fmt: skip


def _experts(config: RunConfig) -> dict[str, Any]:
    moe = config.model.moe
    if moe is None:
        return {}
    first, rest = moe.first_dense_layers, config.model.layers - moe.first_dense_layers
    loss = moe.balancing == "loss-sum"
    return {
        "num-experts": moe.experts, "moe-router-topk": moe.top_k, "moe-ffn-hidden-size": moe.expert_ffn,
        "moe-shared-expert-intermediate-size": moe.shared_ffn or None, "moe-shared-expert-gate": moe.shared_gate,
        "moe-layer-freq": f"([0]*{first}+[1]*{rest})" if first else None,
        "moe-router-load-balancing-type": "aux_loss" if loss else "none",
        "moe-aux-loss-coeff": moe.balancing_strength if loss else None,
        "moe-grouped-gemm": True, "moe-token-dispatcher-type": "alltoall",
    }  # fmt: skip


def _recomputation(mode: str) -> dict[str, Any]:
    if mode == "full":
        return {"recompute-granularity": "full", "recompute-method": "uniform", "recompute-num-layers": 1}
    return {"recompute-granularity": "selective"} if mode == "selective" else {}


def _files(config: RunConfig) -> dict[str, str]:
    given = {name: value for name, value in megatron_values(config).items() if value is not None and value is not False}
    lines = [f"--{name}" if value is True else f"--{name} {value}" for name, value in given.items()]
    return {ARGUMENTS: "\n".join([f"# {MEGATRON_LM.stamp}", *lines, ""])}


def _start(config: RunConfig) -> Start:
    # on cards before Blackwell, collectives of tp are in order with one connection; FSDP2 wants more than one
    one = () if config.parallel.fsdp else ("CUDA_DEVICE_MAX_CONNECTIONS=1",)
    read = f"read -r -d '' -a ARGUMENTS < <(grep -v '^#' \"$HERE/{ARGUMENTS}\") || true"
    return Start(("pretrain_gpt.py", '"${ARGUMENTS[@]}"'), folder="MEGATRON_LM", environment=one, before=(read,))


MEGATRON_LM = Engine(
    "megatron-lm", "Megatron-LM", "core 0.20.0", "d98e8a64ddf3",
    "github.com/NVIDIA/Megatron-LM: megatron/training/arguments.py and the dataclasses that it builds arguments from",
    (
        "git clone https://github.com/NVIDIA/Megatron-LM && git -C Megatron-LM checkout d98e8a64ddf3",
        "pip install -e Megatron-LM",
    ),
    _FATES, _files, _start, _problems, _differences,
)  # fmt: skip
