"""Reads what was exported for Megatron-LM with the checkout in the variable MEGATRON_LM: prints rates as JSON.

Its model needs GPUs, so that parameters are not counted there.
"""

from __future__ import annotations

import json
import os
import sys
import typing
from pathlib import Path
from types import SimpleNamespace

import typing_extensions


def main() -> None:
    sys.path.insert(0, os.environ["MEGATRON_LM"])
    if not hasattr(typing, "override"):  # of Python 3.12
        typing.override = typing_extensions.override
    lines = Path("megatron_args.txt").read_text(encoding="utf-8").split("\n")
    sys.argv = ["pretrain_gpt.py", *(word for line in lines if not line.startswith("#") for word in line.split())]
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
    from megatron.training.arguments import parse_args

    a = parse_args()
    group: dict[str, float] = {"lr": a.lr}
    batch = a.global_batch_size
    scheduler = OptimizerParamScheduler(
        SimpleNamespace(param_groups=[group]), 0.0, a.lr, a.min_lr, a.lr_warmup_iters * batch, a.lr_decay_iters * batch,
        a.lr_decay_style, a.weight_decay, a.weight_decay, a.train_iters * batch, "constant",
    )  # fmt: skip
    rates = []
    for _ in range(a.train_iters):
        rates.append(group["lr"])
        scheduler.step(batch)
    print(json.dumps({
        "parameters": None,
        "rates": rates,
        "rates_are_late": 1,
        "batch": [a.micro_batch_size, batch],
        "degrees": [a.tensor_model_parallel_size, a.pipeline_model_parallel_size, a.expert_model_parallel_size],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
