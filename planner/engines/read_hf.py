"""training_args.json of transformers with config.json beside it, accelerate.yaml, ds_config.json as run.toml keys."""

from __future__ import annotations

import math
from typing import Any

from planner.config.run import CPU
from planner.engines.hf_files import ARGUMENTS, ATTENTION, CONFIG, OPTIMS, TRAIN_SETTINGS
from planner.engines.read_yaml import yaml_values
from planner.engines.source import EngineFile, FileReading, Settings
from planner.errors import InputError
from planner.inputs.huggingface import model_of_hf_values
from planner.json_input import json_of

_DEFAULTS = {
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 5e-5, "warmup_steps": 0,
    "lr_scheduler_type": "linear", "optim": "adamw_torch_fused", "weight_decay": 0.0, "adam_beta1": 0.9,
    "adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0, "seed": 42, "eval_steps": 500, "save_steps": 500,
    "eval_strategy": "no", "save_strategy": "steps", "save_total_limit": None,
}  # fmt: skip
_QUIET = {
    "output_dir", "report_to", "logging_steps", "dataloader_drop_last", "per_device_eval_batch_size", "data_seed",
    "deepspeed", "fsdp", "fsdp_config", "run_name", "logging_dir", "do_train", "do_eval", "dataloader_num_workers",
}  # fmt: skip
KEPT_THERE = 10**6  # save_total_limit of none


def read_hf_trainer(source: EngineFile) -> FileReading:
    """The keys of training_args.json."""
    values = json_of(source.text.encode(), source.path)
    found = _read(source, values if isinstance(values, dict) else {})
    if values.get("fsdp"):
        tuning = values.get("fsdp_config")
        reshard = tuning.get("reshard_after_forward", True) if isinstance(tuning, dict) else True
        found.values |= {"parallel.fsdp": True, "parallel.reshard": bool(reshard)}
    return found


def read_accelerate(source: EngineFile) -> FileReading:
    """The keys of accelerate.yaml, and of the files beside it."""
    s = Settings(yaml_values(source.text, source.path), {"num_processes": 1}, source.path)
    gpus = s.count("num_processes")
    found = _read(EngineFile(source.path, source.text, gpus), source.json(ARGUMENTS))
    tuning, mesh = s.value("fsdp_config"), s.value("parallelism_config")
    if s.value("distributed_type") == "FSDP":
        reshard = tuning.get("fsdp_reshard_after_forward", True) if isinstance(tuning, dict) else True
        shard = mesh.get("parallelism_config_dp_shard_size") if isinstance(mesh, dict) else None
        found.values |= {"parallel.fsdp": True, "parallel.reshard": bool(reshard), "parallel.hsdp": shard}
    nodes = s.value("num_machines")
    if isinstance(nodes, int) and 1 < nodes <= gpus:
        found.values["hardware.gpus_per_node"] = gpus // nodes
    return found


def read_deepspeed(source: EngineFile) -> FileReading:
    """The keys of ds_config.json, and of the files beside it."""
    values = json_of(source.text.encode(), source.path)
    ds = Settings(values if isinstance(values, dict) else {}, {}, source.path)
    found = _read(source, source.json(ARGUMENTS))
    stage, kinds = _inner(ds, "zero_optimization").get("stage", 0), _inner(ds, "data_types")
    found.values["parallel.zero"] = stage
    if _inner(ds, "bf16").get("enabled"):
        wide = kinds.get("grad_accum_dtype") == "fp32"
        found.values["training.recipe"] = "master-bf16" if wide else "master-bf16-grad16"
        found.values["training.runtime"] = found.values["training.runtime"].replace("autocast", "eager")
    elif _inner(ds, "torch_autocast").get("enabled"):
        found.values["training.recipe"] = "autocast"
    known = {"train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "train_batch_size",
             "zero_allow_untested_optimizer"}  # fmt: skip
    found.leave_all({f"ds_config.{k}": v for k, v in ds.given.items() if k not in ds.asked | known}, set())
    return found


def _inner(s: Settings, name: str) -> dict[str, Any]:
    value = s.value(name)
    return value if isinstance(value, dict) else {}


def _read(source: EngineFile, values: dict[str, Any]) -> FileReading:
    """What the Trainer's arguments, its model and train.py's settings say."""
    s, found = Settings({k: v for k, v in values.items() if v is not None}, _DEFAULTS, source.path), FileReading(source)
    shape = source.json(CONFIG)
    found.model = model_of_hf_values(shape, source.path.parent / CONFIG).model_dump()
    beside = source.beside(TRAIN_SETTINGS)
    settings = json_of(beside.encode(), source.path.parent / TRAIN_SETTINGS) if beside is not None else {}
    own = Settings(settings if isinstance(settings, dict) else {}, {}, source.path.parent / TRAIN_SETTINGS)
    seq = own.count("seq") if own.value("seq") is not None else found.model["context"]
    kernels = {there: ours for ours, there in ATTENTION.items()}
    gpus, steps = source.gpus or 1, s.value("max_steps")
    if not isinstance(steps, int) or steps < 1:
        why = "epochs say nothing without the data"
        raise InputError(f"{source.path}: max_steps is missing", why=why, remedy="set max_steps")
    optim = next((pair for pair, there in OPTIMS.items() if there == s.value("optim")), None)
    if optim is None:
        found.leave("optim", s.value("optim"), "AdamW is put in its place")
    every, save = s.value("eval_strategy") == "steps", s.value("save_strategy") == "steps"
    bf16, fp16, tf32 = s.truth("bf16"), s.truth("fp16"), s.truth("tf32")
    compiled, eager = s.truth("torch_compile"), "autocast" if bf16 else "eager"
    found.values = {
        "training.steps": steps, "training.seq": seq, "training.micro_batch": s.count("per_device_train_batch_size"),
        "training.accumulation": s.count("gradient_accumulation_steps"),
        "training.recipe": "autocast" if bf16 else "mixed-fp16" if fp16 else "tf32" if tf32 else "fp32",
        "training.runtime": "compiled" if compiled else eager,
        "training.attention_kernel": kernels.get(str(own.value("attn_implementation")), "flash"),
        "training.dropout": float(shape.get("resid_pdrop", 0.0) if shape.get("model_type") == "gpt2" else 0.0),
        "training.returns_logits": False,
        "training.activation_checkpointing": "full" if s.truth("gradient_checkpointing") else "none",
        "training.seed": s.count("seed", 0), "training.checkpoint_every": s.count("save_steps") if save else None,
        "optimizer.name": optim[0] if optim else "adamw", "optimizer.implementation": optim[1] if optim else "fused",
        "optimizer.beta1": s.number("adam_beta1"), "optimizer.beta2": s.number("adam_beta2"),
        "optimizer.eps": s.number("adam_epsilon"), "optimizer.weight_decay": s.number("weight_decay"),
        "optimizer.clip_norm": s.number("max_grad_norm") or None,
        **_schedule(s, found, steps),
        "evaluation.every": s.count("eval_steps") if every else None,
        "evaluation.tokens": own.value("eval_tokens") or 2**16,
        "checkpoints.keep": s.value("save_total_limit") or KEPT_THERE, "hardware.gpus": gpus,
    }  # fmt: skip
    if s.truth("use_cpu"):
        found.values["hardware.gpu"] = CPU
    found.leave_all(s.given, s.asked | _QUIET)
    return found


def _schedule(s: Settings, found: FileReading, steps: int) -> dict[str, Any]:
    kind, more, peak = s.value("lr_scheduler_type"), s.value("lr_scheduler_kwargs"), s.number("learning_rate")
    tuning = Settings(more if isinstance(more, dict) else {}, {}, s.path)
    warm = s.number("warmup_steps")
    warmup = math.ceil(warm * steps) if 0 < warm < 1 else int(warm)
    floor, power, cool, name = 0.0, 1.0, 0, "cosine"
    if kind == "cosine_with_min_lr":
        given = tuning.value("min_lr") is not None
        floor = tuning.number("min_lr") if given else tuning.number("min_lr_rate") * peak
    elif kind == "polynomial":
        name, floor = "polynomial", tuning.number("lr_end") if tuning.value("lr_end") is not None else 1e-7
        power = tuning.number("power") if tuning.value("power") is not None else 1.0
        name = "linear" if power == 1.0 else name
    elif kind == "warmup_stable_decay":
        name, cool = "wsd", tuning.count("num_decay_steps", 0)
        floor = peak * (tuning.number("min_lr_ratio") if tuning.value("min_lr_ratio") is not None else 0.0)
    elif kind in ("linear", "constant", "constant_with_warmup"):
        name = "linear" if kind == "linear" else "constant"
    elif kind != "cosine":
        found.leave("lr_scheduler_type", kind, "a cosine is put in its place")
    return {
        "schedule.kind": name, "schedule.peak_lr": peak, "schedule.min_lr": floor, "schedule.warmup_steps": warmup,
        "schedule.cooldown_steps": cool, **({"schedule.decay_power": power} if name == "polynomial" else {}),
    }  # fmt: skip
