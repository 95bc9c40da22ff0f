"""A run.toml that each engine can express, with as many options as it has, and other values of every key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

import gptplan
from planner.config.options import value_at
from planner.config.run import RunConfig
from planner.config.section import Section
from planner.engines.export import ENGINES
from planner.engines.fates import Carried, all_keys, inner_section

GPT2: dict[str, Any] = {
    "model": "gpt2", "vocab": 50304, "tokens": "1B", "gpu": "h100-80gb", "gpus": 8, "micro_batch": 8,
    "accumulation": 2, "recipe": "autocast", "runtime": "compiled", "peak_lr": 6e-4, "warmup_steps": 100,
    "eval_every": 500, "as_of": "2026-11-21",
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "model": "tinyllama-1.1b", "seq": 2048, "tokens": "1B", "gpu": "h100-80gb", "gpus": 16, "micro_batch": 2,
    "accumulation": 4, "peak_lr": 3e-4, "warmup_steps": 100, "eval_every": 500, "checkpoint_every": 500,
    "as_of": "2026-11-21",
}  # fmt: skip
BASES: dict[str, dict[str, Any]] = {
    "torchtitan": LLAMA
    | {
        "model": "qwen3-30b-a3b",
        "seq": 4096,
        "runtime": "compiled",
        "fsdp": True,
        "tp": 2,
        "sp": True,
        "pp": 2,
        "ep": 4,
        "balancing": "bias",
        "async_save": "yes",
    },
    "nanochat": {
        "model": "nanochat-d12",
        "seq": 2048,
        "tokens": "1B",
        "gpu": "h100-80gb",
        "gpus": 8,
        "micro_batch": 8,
        "accumulation": 2,
        "recipe": "autocast",
        "runtime": "compiled",
        "optimizer": "muon",
        "peak_lr": 0.02,
        "schedule": "wsd",
        "allocator": "expandable",
        "eval_every": 500,
        "as_of": "2026-11-21",
    },
    "megatron-lm": LLAMA
    | {
        "model": "mixtral-8x7b",
        "recipe": "master-bf16",
        "runtime": "fused",
        "tp": 2,
        "sp": True,
        "pp": 2,
        "interleave": 2,
        "pp_schedule": "interleaved",
        "ep": 2,
        "zero": 1,
        "balancing": "loss-sum",
        "gpus": 32,
        "async_save": "no",
    },
    "litgpt": LLAMA | {"recipe": "autocast", "runtime": "compiled", "fsdp": True, "hsdp": 8},
    "nanogpt": GPT2,
    "hf-trainer": GPT2 | {"checkpoint_every": 500},
    "accelerate": GPT2 | {"checkpoint_every": 500, "fsdp": True},
    "deepspeed": GPT2 | {"checkpoint_every": 500, "zero": 1, "recipe": "master-bf16", "runtime": "eager"},
}


def base_of(engine: str) -> RunConfig:
    """A run.toml that the engine can express."""
    return gptplan.plan(**BASES[engine])


def every_key(config: RunConfig, engine: str) -> Iterator[str]:
    """All keys of a config; those of an optional section that the engine has, one by one."""
    for key in all_keys():
        yield key
        inner = inner_section(key)
        if inner is not None and isinstance(ENGINES[engine].fates[key], Carried) and value_at(config, key) is not None:
            yield from (f"{key}.{name}" for name in inner.model_fields)


# keys that make sense only with others, which change along
ROTARY = {"model.position": "rotary"}
ONE: dict[str, Any] = {
    "optimizer.name": "adamw", "parallel.fsdp": False, "parallel.hsdp": None, "parallel.zero": 0, "parallel.tp": 1,
    "parallel.sp": False, "parallel.pp": 1, "parallel.interleave": 1, "parallel.pp_schedule": "1f1b", "parallel.ep": 1,
}  # fmt: skip
MOE = {"experts": 8, "top_k": 2, "expert_ffn": 256}
ALONG: dict[str, dict[str, Any]] = {
    "model.position": {"model.rope_base": 10_000.0, "model.rotary_dim": None},
    "model.position_rows": {"model.position": "learned", "model.rope_base": 10_000.0, "model.rotary_dim": None},
    "model.rotary_dim": ROTARY,
    "model.rope_base": ROTARY,
    "model.no_position_every": ROTARY,
    "model.rope_scaling": ROTARY,
    "model.residual": {"model.moe": None, "parallel.ep": 1},
    "model.norm": {"model.norm_parameters": "gain"},
    "model.norm_parameters": {"model.norm": "layernorm"},
    "model.full_attention_every": {"model.sliding_window": 128},
    "model.local_rope_base": {"model.sliding_window": 128, "model.position": "rotary"},
    "model.mla": ROTARY
    | {
        "model.head_dim": 64,
        "model.heads": 8,
        "model.kv_heads": 8,
        "model.rotary_dim": None,
        "model.biases": "none",
        "model.qk_norm": "none",
    },
    "model.moe.shared_gate": {"model.moe.shared_ffn": 256},
    "model.moe.balancing_rate": {"model.moe.balancing": "loss-sum"},
    "training.runtime": {"training.attention_kernel": "math"},
    "training.steps": {"training.tokens": None, "schedule.warmup_steps": 10},
    "training.loss_chunks": {"training.loss": "chunked"},
    "training.activation_checkpointing_every": {"training.activation_checkpointing": "full"},
    "optimizer.name": {"optimizer.implementation": "fused"},
    "optimizer.state_dtype": {"optimizer.name": "adamw", "optimizer.implementation": "fused"},
    "optimizer.momentum": ONE | {"optimizer.name": "muon", "optimizer.implementation": "fused"},
    "schedule.kind": {"schedule.cooldown_steps": 0},
    "schedule.cooldown_steps": {"schedule.kind": "wsd"},
    "schedule.decay_power": {"schedule.kind": "polynomial", "schedule.cooldown_steps": 0},
    "parallel.fsdp": {"parallel.zero": 0, "parallel.hsdp": None, "optimizer.name": "adamw"},
    "parallel.zero": ONE,
    "parallel.ddp_bucket_view": {"parallel.fsdp": False, "parallel.hsdp": None},
    "parallel.reshard": ONE | {"parallel.fsdp": True},
    "parallel.hsdp": ONE | {"parallel.fsdp": True},
    "parallel.tp": {"parallel.sp": False, "optimizer.name": "adamw"},
    "parallel.sp": {"parallel.tp": 2, "optimizer.name": "adamw"},
    "parallel.pp": ONE,
    "parallel.interleave": {"parallel.pp": 2, "parallel.pp_schedule": "interleaved"},
    "parallel.pp_schedule": {"parallel.pp": 2, "parallel.interleave": 1},
    "parallel.ep": {"model.moe": MOE, "model.mlp": "swiglu"},
    "evaluation.patience": {"evaluation.every": 100},
    "evaluation.tokens": {"evaluation.every": 100},
}
SPECIAL: dict[str, tuple[Any, ...]] = {
    "schema_version": (),  # one value
    "model.mla": ({"kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 64},),
    "model.moe": (MOE,),
    "model.rope_scaling": ({"kind": "linear", "factor": 2.0},),
    "optimizer.groups": ([{"match": "*", "rate": 0.5}],),
    "hardware.gpu": ("a100-80gb",),
    "training.recipe": ("mixed-bf16", "mixed-fp16", "fp32", "tf32", "master-bf16", "pure-bf16"),
    "provenance.assumptions": ([],),
    "provenance.as_of": ("2026-11-22",),
    "profile": ({"format": 1},),
    "model.head_dim": (32, 128),
    "model.kv_heads": (2, 4, 1),
    "model.rotary_dim": (32,),
    "model.position_rows": (1 << 20,),
    "hardware.gpus_per_node": (2, 4),
    "evaluation.tokens": (1 << 28,),
    "model.untrained": ("something else",),
    "training.attention_kernel": ("math", "efficient", "flex"),
}


def others(config: RunConfig, key: str) -> Iterator[RunConfig]:
    """The config with other values of one key, those that are valid; what must change with the key changes too."""
    for value in _values(config, key):
        dump = config.model_dump()
        for name, changed in {**ALONG.get(key, {}), key: value}.items():
            _set(dump, name, changed)
        try:
            made = RunConfig.model_validate(dump)
        except ValidationError:
            continue
        if value_at(made, key) != value_at(before(config, key), key):
            yield made


def before(config: RunConfig, key: str) -> RunConfig:
    """The config to compare with: what must change along with the key has changed, the key itself has not."""
    dump = config.model_dump()
    for name, changed in ALONG.get(key, {}).items():
        _set(dump, name, changed)
    try:
        return RunConfig.model_validate(dump)
    except ValidationError:
        return config


def _set(dump: dict[str, Any], key: str, value: Any) -> None:
    *above, name = key.split(".")
    for part in above:
        dump = dump[part]
    dump[name] = value


def _values(config: RunConfig, key: str) -> Iterator[Any]:
    if key in SPECIAL:
        yield from SPECIAL[key]
        return
    section: type[Any] = RunConfig
    *above, name = key.split(".")
    for part in above:
        annotation = section.model_fields[part].annotation
        section = next(a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, Section))
    annotation, now = section.model_fields[name].annotation, value_at(config, key)
    kinds = [annotation, *get_args(annotation)]
    choices = [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]
    if choices:
        yield from choices
    elif bool in kinds or isinstance(now, bool):
        yield not now
        yield now is None
    elif isinstance(now, str):
        yield "another"
    elif now is None or now == 0:
        yield from (1, 2, 4, 64, 0.1, 0.5, 1e-3, 2.0, 1e12)
    elif isinstance(now, int):
        yield from (now * 2, now // 2)
    else:
        yield from (now * 2, now / 2, now + 1, 0.5)
