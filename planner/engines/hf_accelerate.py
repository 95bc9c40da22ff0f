"""Trainer of transformers, started by `accelerate launch`: DDP, FSDP2, or FSDP2 in groups."""

from __future__ import annotations

from typing import Any

from planner.config.run import CPU, RunConfig
from planner.engines.engine import Engine, Start, machines_of
from planner.engines.fates import Carried, Fates
from planner.engines.hf_files import (
    HF_FATES,
    HF_VERSION,
    SCRIPT,
    hf_arguments,
    hf_differences,
    hf_files,
    hf_problems,
    layer_class,
)
from planner.engines.plain_yaml import yaml_text

_SETTINGS = "accelerate.yaml"
_OWN: Fates = {
    **HF_FATES,
    "parallel.fsdp": Carried("distributed_type, fsdp_config"),
    "parallel.reshard": Carried("fsdp_reshard_after_forward"),
    "parallel.hsdp": Carried("parallelism_config"),
}


def accelerate_values(config: RunConfig) -> dict[str, Any]:
    """The settings of `accelerate launch`."""
    p, gpus, machines = config.parallel, config.hardware.gpus, machines_of(config)
    kind = "FSDP" if p.fsdp else "MULTI_GPU" if gpus > 1 and config.hardware.gpu != CPU else "NO"
    precision = {"mixed-fp16": "fp16", "fp32": "no", "tf32": "no"}.get(config.training.recipe, "bf16")
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": kind,
        "mixed_precision": precision,
        "num_machines": machines.nodes,
        "num_processes": gpus,
        "machine_rank": 0,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": config.hardware.gpu == CPU,
        "debug": False,
    }
    if p.fsdp:
        values["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_reshard_after_forward": p.reshard,
            "fsdp_offload_params": False,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_transformer_layer_cls_to_wrap": layer_class(config),
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
            "fsdp_cpu_ram_efficient_loading": False,
            "fsdp_activation_checkpointing": False,
        }
    if p.hsdp:
        values["parallelism_config"] = {
            "parallelism_config_dp_replicate_size": gpus // p.hsdp,
            "parallelism_config_dp_shard_size": p.hsdp,
        }
    return values


def _files(config: RunConfig) -> dict[str, str]:
    return hf_files(config, hf_arguments(config)) | {_SETTINGS: yaml_text(accelerate_values(config))}


def _start(config: RunConfig) -> Start:
    return Start((SCRIPT,), runner="accelerate", settings=_SETTINGS)


ACCELERATE = Engine(
    "accelerate", "accelerate", "1.15.0", "", "accelerate on PyPI: commands/config/config_args.py",
    (f"pip install accelerate==1.15.0 transformers=={HF_VERSION}",),
    _OWN, _files, _start, hf_problems, hf_differences, on_cpu=True,
)  # fmt: skip
