"""Reads what was exported for torchtitan in the current folder: prints parameters, rates and settings as JSON."""

from __future__ import annotations

import json
import os
import sys

import torch


def main() -> None:
    sys.path.insert(0, os.getcwd())
    from torchtitan.config import ConfigManager

    os.makedirs("tests/assets/tokenizer", exist_ok=True)
    config = ConfigManager().parse_args(["--module", "gptplan_torchtitan", "--config", "run"])
    with torch.device("meta"):
        model = config.model_spec.model.build()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=config.optimizer.param_groups[-1].optimizer_kwargs["lr"])
    container = config.lr_scheduler.build(optimizers=[optimizer], training_steps=config.training.steps)
    rates = []
    for _ in range(config.training.steps):
        rates.append(container.schedulers[0].get_last_lr()[0])
        optimizer.step()
        container.step()
    decayed = config.optimizer.param_groups
    print(json.dumps({
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rates": rates,
        "rates_are_late": 1,
        "late_after": config.lr_scheduler.warmup_steps,
        "batch": [config.training.local_batch_size, config.training.global_batch_size],
        "degrees": [
            config.parallelism.data_parallel_replicate_degree, config.parallelism.data_parallel_shard_degree,
            config.parallelism.tensor_parallel_degree, config.parallelism.pipeline_parallel_degree,
            config.parallelism.context_parallel_degree, config.parallelism.expert_parallel_degree,
        ],
        "decay": [[group.pattern, group.optimizer_kwargs["weight_decay"]] for group in decayed],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
