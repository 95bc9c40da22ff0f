"""Arguments of Megatron-LM as keys of run.toml: a file of them, or a shell script that has them in its text."""

from __future__ import annotations

import re
from typing import Any

from planner.engines.megatron_lm import _BACKENDS as BACKENDS_THERE
from planner.engines.megatron_lm import IMPLEMENTATION, MLPS, POSITIONS, STYLES
from planner.engines.source import EngineFile, FileReading, Settings, per_gpu
from planner.errors import InputError

_DEFAULTS = {
    "position-embedding-type": "learned_absolute", "rotary-base": 10_000, "rotary-percent": 1.0,
    "normalization": "LayerNorm", "norm-epsilon": 1e-5, "init-method-std": 0.02, "seed": 1234, "attention-dropout": 0.1,
    "hidden-dropout": 0.1, "adam-beta1": 0.9, "adam-beta2": 0.999, "adam-eps": 1e-8, "weight-decay": 0.01,
    "clip-grad": 1.0, "min-lr": 0.0, "lr-warmup-iters": 0, "lr-decay-style": "linear",
    "transformer-impl": "transformer_engine",
    "tensor-model-parallel-size": 1, "pipeline-model-parallel-size": 1, "context-parallel-size": 1,
    "expert-model-parallel-size": 1, "num-virtual-stages-per-pipeline-rank": 1, "eval-iters": 100, "moe-router-topk": 2,
    "moe-shared-expert-intermediate-size": 0, "moe-router-load-balancing-type": "aux_loss", "moe-aux-loss-coeff": 0.0,
    "lr-wsd-decay-iters": 0, "attention-backend": "auto", "make-vocab-size-divisible-by": 128,
}  # fmt: skip
_QUIET = {
    "tokenizer-type", "log-interval", "log-throughput", "save", "load", "data-path", "mock-data", "split",
    "tensorboard-dir",
    "moe-grouped-gemm", "moe-token-dispatcher-type", "lr-wsd-decay-style", "optimizer", "recompute-method",
    "use-mcore-models",
    "no-gradient-accumulation-fusion", "tokenizer-model", "vocab-file", "merge-file", "use-flash-attn", "num-workers",
    "data-cache-path", "overlap-grad-reduce", "overlap-param-gather", "wandb-project", "wandb-exp-name",
    "exit-interval",
}  # fmt: skip
_FREQUENCY = re.compile(r"\[0\]\*(\d{1,5})\+\[1\]\*(\d{1,5})")
_VARIABLE = re.compile(r"^([A-Za-z_]\w*)=(\S+)$")


def arguments(text: str) -> dict[str, Any]:
    """Name → value of every --argument in a text; True without a value. Shell variables that it sets are put in."""
    lines = [line.partition(" #")[0] for line in text.split("\n") if not line.lstrip().startswith("#")]
    # arguments may stand in a quoted text or in an array: its signs are spaces here
    words = re.sub(r"[\"'()\\]", " ", "\n".join(lines)).split()
    variables = {m[1]: m[2] for m in map(_VARIABLE.match, words) if m is not None}
    found: dict[str, Any] = {}
    for place, word in enumerate(words):
        if not word.startswith("--") or len(word) < 4:
            continue
        name, equals, value = word[2:].partition("=")
        after = words[place + 1] if place + 1 < len(words) else "--"
        if not equals:
            value = "" if after.startswith("--") or after in ("&&", "|", ")", ";") else after
        value = re.sub(r"\$\{?(\w+)\}?", lambda m: variables.get(m[1], m[0]), value)
        found[name] = _typed(value) if value else True
    return found


def _typed(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value) if len(value) < 40 else value
        except ValueError:
            continue
    return value


def read_megatron(source: EngineFile) -> FileReading:
    """The keys of arguments of pretrain_gpt.py."""
    s, found = Settings(arguments(source.text), _DEFAULTS, source.path), FileReading(source)
    tp, pp, cp, ep = (
        s.count(f"{k}-parallel-size") for k in ("tensor-model", "pipeline-model", "context", "expert-model")
    )
    each = tp * pp * cp
    gpus = source.gpus or each
    if gpus % each:
        raise InputError(f"{gpus} GPUs are not divisible by tp x pp x cp = {each}", remedy="give --gpus")
    micro, seq, steps = s.count("micro-batch-size"), s.count("seq-length"), s.count("train-iters")
    batch = s.count("global-batch-size")
    every = s.value("eval-interval")
    evaluated = s.count("eval-iters", 0)
    found.values = {
        **_model(s), "model.moe": _experts(s),
        "training.steps": steps, "training.seq": seq, "training.micro_batch": micro,
        "training.accumulation": per_gpu(batch, micro, gpus // each, "--global-batch-size"),
        "training.recipe": ("master-bf16-grad16" if s.truth("grad-reduce-in-bf16") else "master-bf16")
        if s.truth("bf16") else "fp32",
        "training.runtime": s.choice("transformer-impl", {there: ours for ours, there in IMPLEMENTATION.items()}),
        "training.attention_kernel": s.choice(
            "attention-backend", {"auto": "flash"} | {there: ours for ours, there in BACKENDS_THERE.items()}
        ),
        "training.dropout": s.number("hidden-dropout"),
        "training.activation_checkpointing": s.value("recompute-granularity") or "none",
        "training.seed": s.count("seed", 0),
        "training.checkpoint_every": s.value("save-interval"),
        "optimizer.beta1": s.number("adam-beta1"), "optimizer.beta2": s.number("adam-beta2"),
        "optimizer.eps": s.number("adam-eps"), "optimizer.weight_decay": s.number("weight-decay"),
        "optimizer.clip_norm": s.number("clip-grad") or None,
        "schedule.kind": s.choice("lr-decay-style", {there: ours for ours, there in STYLES.items()}),
        "schedule.peak_lr": s.number("lr"), "schedule.min_lr": s.number("min-lr"),
        "schedule.warmup_steps": s.count("lr-warmup-iters", 0),
        "schedule.cooldown_steps": s.count("lr-wsd-decay-iters", 0),
        "parallel.tp": tp, "parallel.sp": s.truth("sequence-parallel") and tp > 1, "parallel.pp": pp, "parallel.cp": cp,
        "parallel.ep": ep, **_pipeline(s),
        "parallel.zero": int(s.truth("use-distributed-optimizer") and gpus // (tp * pp) > 1),
        "parallel.fsdp": s.truth("use-torch-fsdp2"),
        "parallel.reshard": not s.truth("torch-fsdp2-no-reshard-after-forward"), "parallel.ddp_bucket_view": False,
        "evaluation.every": every if evaluated else None,
        "evaluation.tokens": evaluated * batch * seq or 2**16,
        "checkpoints.asynchronous": s.truth("async-save"), "hardware.gpus": gpus,
    }  # fmt: skip
    _tell(s, found, steps)
    return found


def _pipeline(s: Settings) -> dict[str, Any]:
    chunks = s.count("num-virtual-stages-per-pipeline-rank")
    return {"parallel.interleave": chunks, "parallel.pp_schedule": "interleaved" if chunks > 1 else "1f1b"}


def _tell(s: Settings, found: FileReading, steps: int) -> None:
    """What is there and has no key, or another meaning."""
    if s.value("attention-dropout") != s.value("hidden-dropout"):
        found.leave("attention-dropout", s.value("attention-dropout"), "one dropout here, that of --hidden-dropout")
    if s.value("lr-decay-iters") not in (None, steps):
        found.leave("lr-decay-iters", s.value("lr-decay-iters"), "the decay ends with the run here")
    if s.value("recompute-num-layers") not in (None, 1):
        found.leave("recompute-num-layers", s.value("recompute-num-layers"), "every block is recomputed alone here")
    found.leave_all(s.given, s.asked | _QUIET)


def _model(s: Settings) -> dict[str, Any]:
    hidden, heads = s.count("hidden-size"), s.count("num-attention-heads")
    position = s.choice("position-embedding-type", {there: ours for ours, there in POSITIONS.items()})
    width = s.count("kv-channels") if s.value("kv-channels") is not None else hidden // heads
    layernorm = s.choice("normalization", {"LayerNorm": True, "RMSNorm": False})
    biased = not s.truth("disable-bias-linear")
    mlp = next((ours for ours, switch in MLPS.items() if switch and s.truth(next(iter(switch)))), "gelu")
    vocab, given = s.value("padded-vocab-size"), s.value("vocab-size")
    if vocab is None:
        multiple = s.count("make-vocab-size-divisible-by") * s.count("tensor-model-parallel-size")
        vocab = -(-s.count("vocab-size") // multiple) * multiple
    turned = round(s.number("rotary-percent") * width)
    return {
        "model.layers": s.count("num-layers"), "model.hidden": hidden, "model.heads": heads,
        "model.kv_heads": s.count("num-query-groups") if s.truth("group-query-attention") else heads,
        "model.head_dim": width,
        "model.ffn": s.count("ffn-hidden-size") if s.value("ffn-hidden-size") is not None else 4 * hidden,
        "model.vocab": vocab, "model.tokenizer_vocab": given if given != vocab else None,
        "model.context": s.count("max-position-embeddings"), "model.position": position,
        "model.rotary_dim": turned if position == "rotary" and turned != width else None,
        **({"model.rope_base": s.number("rotary-base")} if position == "rotary" else {}),
        "model.norm": "layernorm" if layernorm else "rmsnorm",
        "model.norm_parameters": "gain+bias" if layernorm else "gain", "model.norm_eps": s.number("norm-epsilon"),
        "model.init_std": s.number("init-method-std"), "model.qk_norm": "head" if s.truth("qk-layernorm") else "none",
        "model.mlp": mlp, "model.biases": "all" if biased else "qkv" if s.truth("add-qkv-bias") else "none",
        "model.tied_embeddings": not s.truth("untie-embeddings-and-output-weights"),
    }  # fmt: skip


def _experts(s: Settings) -> dict[str, Any] | None:
    if s.value("num-experts") is None:
        return None
    loss = s.choice("moe-router-load-balancing-type", {"aux_loss": "loss-sum", "none": "none"})
    rate = s.number("moe-aux-loss-coeff")
    own = s.value("moe-ffn-hidden-size") is not None
    dense = _FREQUENCY.fullmatch(str(s.value("moe-layer-freq")))
    return {
        "experts": s.count("num-experts"), "top_k": s.count("moe-router-topk"),
        "expert_ffn": s.count("moe-ffn-hidden-size" if own else "ffn-hidden-size"),
        "shared_ffn": s.count("moe-shared-expert-intermediate-size", 0),
        "shared_gate": s.truth("moe-shared-expert-gate"), "first_dense_layers": int(dense[1]) if dense else 0,
        "balancing": loss if rate else "none", "balancing_rate": rate if rate and loss != "none" else None,
    }  # fmt: skip
