"""Trainer of transformers, started by torchrun: DDP, or FSDP2 over all GPUs."""

from __future__ import annotations

from planner.config.run import RunConfig
from planner.engines.engine import Engine, Start
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

_OWN: Fates = {
    **HF_FATES,
    "parallel.fsdp": Carried("fsdp, fsdp_config"),
    "parallel.reshard": Carried("reshard_after_forward in fsdp_config"),
}


def _files(config: RunConfig) -> dict[str, str]:
    arguments = hf_arguments(config)
    if config.parallel.fsdp:
        arguments["fsdp"] = True
        arguments["fsdp_config"] = {
            "version": 2,
            "reshard_after_forward": config.parallel.reshard,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": [layer_class(config)],
        }
    return hf_files(config, arguments)


def _start(config: RunConfig) -> Start:
    return Start((SCRIPT,))


HF_TRAINER = Engine(
    "hf-trainer", "transformers", HF_VERSION, "", "transformers on PyPI: training_args.py, optimization.py",
    (f"pip install transformers=={HF_VERSION} accelerate==1.15.0",),
    _OWN, _files, _start, hf_problems, hf_differences, on_cpu=True,
)  # fmt: skip
