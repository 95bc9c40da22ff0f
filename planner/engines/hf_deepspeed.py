"""Trainer of transformers with DeepSpeed: data parallel with ZeRO 0 to 3."""

from __future__ import annotations

import json
from typing import Any

from planner.config.run import RunConfig
from planner.engines.engine import Engine, Start
from planner.engines.fates import Carried, Fates
from planner.engines.hf_files import HF_FATES, HF_VERSION, SCRIPT, hf_arguments, hf_differences, hf_files, hf_problems

_SETTINGS = "ds_config.json"
RECIPES = ("master-bf16", "master-bf16-grad16", "autocast", "mixed-bf16", "fp32", "tf32")
_OWN: Fates = {
    **HF_FATES,
    "training.recipe": Carried("bf16, data_types, torch_autocast in ds_config.json, tf32", RECIPES),
    "optimizer.implementation": Carried("optim", ("fused", "foreach")),
    "parallel.zero": Carried("zero_optimization.stage"),
}


def deepspeed_values(config: RunConfig) -> dict[str, Any]:
    """ds_config.json. Batch and clipping stand there and in the arguments, which DeepSpeed wants to be equal."""
    t = config.training
    values: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": t.micro_batch,
        "gradient_accumulation_steps": t.accumulation,
        "gradient_clipping": config.optimizer.clip_norm or 0.0,
        "zero_optimization": {"stage": config.parallel.zero},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": t.recipe.startswith("master-bf16")},
    }
    if t.recipe == "master-bf16":
        values["data_types"] = {"grad_accum_dtype": "fp32"}
    if t.recipe == "master-bf16-grad16":
        values["data_types"] = {"grad_accum_dtype": "bf16"}
    if t.recipe in ("autocast", "mixed-bf16"):
        values["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return values


def _files(config: RunConfig) -> dict[str, str]:
    # the Trainer's own bf16 flag must agree with DeepSpeed's
    arguments = hf_arguments(config) | {
        "bf16": config.training.recipe.startswith("master-bf16"),
        "deepspeed": _SETTINGS,
    }
    return hf_files(config, arguments) | {_SETTINGS: json.dumps(deepspeed_values(config), indent=2) + "\n"}


def _start(config: RunConfig) -> Start:
    return Start((SCRIPT,))


DEEPSPEED = Engine(
    "deepspeed", "DeepSpeed", "0.19.8", "", "deepspeed on PyPI: runtime/config.py, runtime/zero/config.py",
    (f"pip install deepspeed==0.19.8 transformers=={HF_VERSION}",),
    _OWN, _files, _start, hf_problems, hf_differences,
)  # fmt: skip
