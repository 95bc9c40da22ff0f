"""What hf-trainer, accelerate and deepspeed share: a model of transformers, its Trainer's arguments, and train.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from planner.config.run import CPU, RunConfig
from planner.counts.run import steps_of
from planner.engines.fates import Carried, Differs, Fates, autocast_of_nothing, casts_by_autocast
from planner.errors import InputError
from planner.exports.huggingface import hf_type, hf_values

HF_VERSION = "5.24.0"  # of transformers, whose argument names these are
CONFIG, ARGUMENTS, TRAIN_SETTINGS, SCRIPT = "config.json", "training_args.json", "train_settings.json", "train.py"
ATTENTION = {"flash": "sdpa", "math": "eager"}
OPTIMS = {
    ("adamw", "fused"): "adamw_torch_fused",
    ("adamw", "foreach"): "adamw_torch",
    ("adamw8bit", "fused"): "adamw_bnb_8bit",
}
WIDE_VOCAB = 65_536  # from here on token numbers need four bytes
_LATE = "rates are those of the update before there: LambdaLR counts from 0"
IN_MODEL = Carried(CONFIG)

HF_FATES: Fates = {
    **{
        f"model.{key}": IN_MODEL
        for key in (
            "layers",
            "hidden",
            "heads",
            "kv_heads",
            "head_dim",
            "ffn",
            "vocab",
            "context",
            "position",
            "rotary_dim",
            "rope_base",
            "local_rope_base",
            "rope_scaling",
            "norm",
            "norm_parameters",
            "norm_eps",
            "norm_placement",
            "init_std",
            "qk_norm",
            "residual",
            "mlp",
            "biases",
            "tied_embeddings",
            "sliding_window",
            "full_attention_every",
        )
    },
    "model.init_residual": IN_MODEL,
    "training.tokens": Carried("max_steps"),
    "training.steps": Carried("max_steps"),
    "training.seq": Carried("seq in train_settings.json"),
    "training.micro_batch": Carried("per_device_train_batch_size"),
    "training.accumulation": Carried("gradient_accumulation_steps"),
    "training.recipe": Carried("bf16, fp16, tf32", ("autocast", "mixed-bf16", "mixed-fp16", "fp32", "tf32")),
    "training.runtime": Carried("torch_compile", ("eager", "autocast", "compiled")),
    "training.attention_kernel": Carried("attn_implementation in train_settings.json", tuple(ATTENTION)),
    "training.dropout": Carried("resid_pdrop, embd_pdrop, attn_pdrop"),
    "training.activation_checkpointing": Carried("gradient_checkpointing", ("none", "full")),
    "training.seed": Carried("seed"),
    "training.checkpoint_every": Carried("save_steps"),
    "training.returns_logits": Differs((True,), "logits are returned there, and stay in memory until the next step"),
    "optimizer.name": Carried("optim", ("adamw", "adamw8bit")),
    "optimizer.implementation": Carried("optim", ("fused", "foreach")),
    "optimizer.beta1": Carried("adam_beta1"),
    "optimizer.beta2": Carried("adam_beta2"),
    "optimizer.eps": Carried("adam_epsilon"),
    "optimizer.weight_decay": Carried("weight_decay"),
    "optimizer.clip_norm": Carried("max_grad_norm"),
    "schedule.kind": Carried("lr_scheduler_type", ("cosine", "linear", "polynomial", "constant", "wsd")),
    "schedule.peak_lr": Carried("learning_rate"),
    "schedule.min_lr": Carried("lr_scheduler_kwargs"),
    "schedule.warmup_steps": Carried("warmup_steps"),
    "schedule.cooldown_steps": Carried("lr_scheduler_kwargs"),
    "schedule.decay_power": Carried("lr_scheduler_kwargs"),
    "evaluation.every": Carried("eval_steps"),
    "evaluation.tokens": Carried("eval_tokens in train_settings.json"),
    "checkpoints.keep": Carried("save_total_limit"),
}


def hf_problems(config: RunConfig) -> Iterator[str]:
    """What no model type of transformers expresses, and the dropout that only GPT-2's has."""
    yield from autocast_of_nothing(config)
    try:
        kind = hf_type(config.model)
    except InputError as error:
        yield error.why
        return
    if config.training.dropout and kind != "gpt2":
        yield f"training.dropout = {config.training.dropout} (its model type {kind} has none after the embedding)"


def hf_differences(config: RunConfig) -> Iterator[str]:
    """What the Trainer does otherwise for every run."""
    m, plain = config.model, hf_type(config.model) == "gpt2"
    if plain != (m.init_residual == "scaled"):
        other = "GPT-2's c_proj is scaled there" if plain else "there every matrix starts with init_std"
        yield f"model.init_residual = {m.init_residual}: {other}"
    yield from casts_by_autocast(config)
    yield f"schedule: {_LATE}"
    yield "training.seq: labels are shifted inside a sequence there, so that its last position has no target"
    yield "data: the order of sequences is the Trainer's own shuffle"


def hf_arguments(config: RunConfig) -> dict[str, Any]:
    """The TrainingArguments that every variant has."""
    t, o, s = config.training, config.optimizer, config.schedule
    every, save = config.evaluation.every, t.checkpoint_every
    recipe = t.recipe
    return {
        "output_dir": "out", "report_to": "none", "logging_steps": 10, "dataloader_drop_last": True,
        "max_steps": steps_of(config),
        "per_device_train_batch_size": t.micro_batch, "per_device_eval_batch_size": t.micro_batch,
        "gradient_accumulation_steps": t.accumulation,
        "learning_rate": s.peak_lr, "warmup_steps": s.warmup_steps, **_rate(config),
        "optim": OPTIMS[o.name, o.implementation], "weight_decay": o.weight_decay,
        "adam_beta1": o.beta1, "adam_beta2": o.beta2, "adam_epsilon": o.eps, "max_grad_norm": o.clip_norm or 0.0,
        "bf16": recipe in ("autocast", "mixed-bf16"), "fp16": recipe == "mixed-fp16",
        **({"tf32": recipe == "tf32"} if config.hardware.gpu != CPU else {}),
        "torch_compile": t.runtime == "compiled",
        "gradient_checkpointing": t.activation_checkpointing == "full",
        "seed": t.seed, "data_seed": t.seed, "use_cpu": config.hardware.gpu == CPU,
        "eval_strategy": "steps" if every else "no", **({"eval_steps": every} if every else {}),
        "save_strategy": "steps" if save else "no", **({"save_steps": save} if save else {}),
        "save_total_limit": config.checkpoints.keep,
    }  # fmt: skip


def _rate(config: RunConfig) -> dict[str, Any]:
    s = config.schedule
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "cosine": ("cosine_with_min_lr", {"min_lr": s.min_lr}),
        "linear": ("polynomial", {"lr_end": s.min_lr, "power": 1.0}),
        "polynomial": ("polynomial", {"lr_end": s.min_lr, "power": s.decay_power}),
        "constant": ("constant_with_warmup", {}),
        "wsd": ("warmup_stable_decay", {
            "num_decay_steps": s.cooldown_steps, "decay_type": "linear", "min_lr_ratio": s.min_lr / s.peak_lr,
        }),
    }  # fmt: skip
    name, more = kinds[s.kind]
    return {"lr_scheduler_type": name, "lr_scheduler_kwargs": more}


def hf_files(config: RunConfig, arguments: dict[str, Any]) -> dict[str, str]:
    """The model's config.json, the arguments, the settings of train.py, and train.py."""
    model = hf_values(config.model, "float32")
    if hf_type(config.model) == "gpt2":
        model |= {key: config.training.dropout for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    settings = {
        "seq": config.training.seq,
        "attn_implementation": ATTENTION[config.training.attention_kernel],
        "token_bytes": 2 if config.model.vocab <= WIDE_VOCAB else 4,
        "eval_tokens": config.evaluation.tokens,
        "train": "train.bin",
        "validation": "val.bin",
    }
    files = {CONFIG: model, ARGUMENTS: arguments, TRAIN_SETTINGS: settings}
    return {name: json.dumps(value, indent=2) + "\n" for name, value in files.items()} | {SCRIPT: TRAIN}


def layer_class(config: RunConfig) -> str:
    """The class of one block in transformers, which FSDP wraps."""
    names = {"gpt2": "GPT2Block", "gpt_neox": "GPTNeoXLayer"}
    kind = hf_type(config.model)
    return names.get(kind, f"{kind[0].upper()}{kind[1:]}DecoderLayer")


TRAIN = '''\
"""Trains the model of config.json on files of token numbers, with the Trainer of transformers."""

import json

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, HfArgumentParser, Trainer, TrainingArguments


class Sequences(torch.utils.data.Dataset):
    """Sequences of a file of token numbers without a header, one after the other."""

    def __init__(self, path, seq, token_bytes, most=None):
        self.tokens = np.memmap(path, dtype=np.uint16 if token_bytes == 2 else np.uint32, mode="r")
        self.seq, self.count = seq, len(self.tokens) // seq
        if most is not None:
            self.count = min(self.count, -(-most // seq))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        part = self.tokens[index * self.seq : (index + 1) * self.seq].astype(np.int64)
        return {"input_ids": torch.from_numpy(part), "labels": torch.from_numpy(part.copy())}


def main():
    with open("train_settings.json", encoding="utf-8") as file:
        settings = json.load(file)
    (arguments,) = HfArgumentParser(TrainingArguments).parse_json_file("training_args.json")
    torch.manual_seed(arguments.seed)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained("config.json"), attn_implementation=settings["attn_implementation"]
    )
    of = (settings["seq"], settings["token_bytes"])
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Sequences(settings["train"], *of),
        eval_dataset=Sequences(settings["validation"], *of, settings["eval_tokens"])
        if arguments.eval_strategy != "no"
        else None,
    )
    trainer.train()


if __name__ == "__main__":
    main()
'''
