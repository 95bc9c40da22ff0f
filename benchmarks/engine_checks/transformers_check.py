"""Reads what was exported for transformers in the current folder: prints parameters, rates and settings as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, HfArgumentParser, TrainingArguments
from transformers.optimization import get_scheduler


def main() -> None:
    values = json.loads(Path("training_args.json").read_text(encoding="utf-8"))
    # what needs a GPU, or a started engine, is looked at elsewhere; the names are read all the same
    for name in ("bf16", "fp16", "tf32"):
        values.pop(name, None)
    deepspeed = values.pop("deepspeed", None)
    Path("args.json").write_text(json.dumps(values | {"use_cpu": True, "torch_compile": False}), encoding="utf-8")
    (arguments,) = HfArgumentParser(TrainingArguments).parse_json_file("args.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained("config.json"))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type, optimizer, int(arguments.warmup_steps), arguments.max_steps,
        arguments.lr_scheduler_kwargs,
    )  # fmt: skip
    rates = []
    for _ in range(arguments.max_steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    names = {type(module).__name__ for module in model.modules()}
    found = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "rates": rates,
        "rates_are_late": 1,
        "batch": [arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps],
        "optimizer": arguments.optim,
        "wraps": sorted(names & set((values.get("fsdp_config") or {}).get("transformer_layer_cls_to_wrap", []))),
        "deepspeed": deepspeed,
    }
    if Path("accelerate.yaml").exists():
        found |= accelerate(names)
    if Path("ds_config.json").exists():
        found |= deepspeed_config()
    print(json.dumps(found))


def accelerate(names: set[str]) -> dict[str, object]:
    import yaml
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    settings = load_config_from_file("accelerate.yaml")
    launch_command_parser().parse_args(["--config_file", "accelerate.yaml", "train.py"])
    wraps = (settings.fsdp_config or {}).get("fsdp_transformer_layer_cls_to_wrap")
    assert wraps is None or wraps in names, wraps
    documents = list(yaml.safe_load_all(Path("job.yaml").read_text(encoding="utf-8")))
    return {
        "processes": settings.num_processes,
        "distributed": str(settings.distributed_type),
        "documents": [document["kind"] for document in documents],
    }


def deepspeed_config() -> dict[str, object]:
    import yaml
    from deepspeed.runtime.config import DeepSpeedConfig

    read = DeepSpeedConfig("ds_config.json")
    sky = yaml.safe_load(Path("sky.yaml").read_text(encoding="utf-8"))
    return {
        "zero": int(read.zero_optimization_stage),
        "bf16": bool(read.bfloat16_config.enabled),
        "ds_batch": [read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps],
        "clip": read.gradient_clipping,
        "sky": sky["resources"]["accelerators"],
    }


if __name__ == "__main__":
    main()
