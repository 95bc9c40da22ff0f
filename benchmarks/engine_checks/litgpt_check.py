"""Reads what was exported for LitGPT in the current folder: prints parameters, rates and settings as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentParser
from litgpt.model import GPT
from litgpt.pretrain import get_lr, setup


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(setup)
    read = parser.parse_args(["--config", "pretrain.yaml"])
    made = parser.instantiate_classes(read)
    config, train = made.model_config, made.train
    with torch.device("meta"):
        model = GPT(config)
        if train.tie_embeddings:
            model.transformer.wte.weight = model.lm_head.weight
    values = yaml.safe_load(Path("pretrain.yaml").read_text(encoding="utf-8"))
    accumulation = train.gradient_accumulation_iters(made.devices, made.num_nodes)
    world = made.devices * made.num_nodes
    iterations = train.max_tokens // world // (train.micro_batch_size * train.max_seq_length)
    warmup = train.warmup_iters(made.devices, made.num_nodes, iterations, None)
    peak = values["optimizer"]["init_args"]["lr"]
    # of the last micro-batch of each update, whose rate it takes
    last = range(accumulation - 1, iterations, accumulation)
    print(json.dumps({
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rates": [get_lr(peak, it, warmup, iterations, train.min_lr) for it in last],
        "rates_are_late": 1,
        "batch": [train.micro_batch_size, train.global_batch_size],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
