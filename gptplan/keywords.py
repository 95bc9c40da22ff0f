"""Flags as keywords of Python functions: numbers, True and False become the text that a flag would be."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from os import PathLike, fspath
from typing import TypedDict

from planner.errors import InputError, UnknownNameError
from planner.inputs.fields import FLAGS, SWITCHES
from planner.inputs.flags import Flags, flag

Value = str | int | float | PathLike[str] | None


class Keywords(TypedDict, total=False):
    """The fields of `Flags`; what each means is in `gptplan estimate --help`."""

    params: Value
    model: Value
    hf_config: Value
    family: Value
    layers: Value
    hidden: Value
    heads: Value
    kv_heads: Value
    head_dim: Value
    ffn: Value
    vocab: Value
    pad_vocab: Value
    position: Value
    rotary_dim: Value
    norm: Value
    norm_placement: Value
    qk_norm: Value
    mlp: Value
    biases: Value
    tied: Value
    sliding_window: Value
    experts: Value
    top_k: Value
    expert_ffn: Value
    shared_ffn: Value
    seq: Value
    tokens: Value
    steps: Value
    dataset_tokens: Value
    gpu: Value
    gpus: Value
    allocator: Value
    micro_batch: Value
    accumulation: Value
    global_batch_tokens: Value
    precision: Value
    recipe: Value
    activation_checkpointing: Value
    activation_checkpointing_every: Value
    runtime: Value
    attention: Value
    document_masking: Value
    loss_kind: Value
    loss_chunks: Value
    dropout: Value
    optimizer: Value
    optimizer_implementation: Value
    state_dtype: Value
    clip_value: Value
    schedule: Value
    peak_lr: Value
    min_lr: Value
    warmup_steps: Value
    warmup_tokens: Value
    warmup_ratio: Value
    cooldown_steps: Value
    cooldown_tokens: Value
    cooldown_ratio: Value
    decay_power: Value
    tflops: Value
    mfu: Value
    price_per_gpu_hour: Value
    seed: Value
    checkpoint_every: Value
    keep_checkpoints: Value
    async_save: Value
    eval_every: Value
    eval_tokens: Value
    patience: Value
    on_spike: Value


def flags_of(keywords: Mapping[str, object]) -> Flags:
    """The flags of these keywords. Raises InputError for an unknown keyword, and for a value of another type."""
    for name in keywords:
        if name not in FLAGS:
            raise UnknownNameError("keyword", name, FLAGS)
    return Flags(**{name: _text(name, value) for name, value in keywords.items()})


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return _choice(name, value)
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))  # the shortest text that is this number
    if isinstance(value, PathLike):
        return str(fspath(value))
    raise InputError(
        f"{name}: {value!r} is a {type(value).__name__}",
        why=f"it stands for the flag {flag(name)}, which takes one number or text",
        remedy="give a number or text",
    )


def _choice(name: str, value: bool) -> str:
    words = SWITCHES.get(name) or ("yes", "no")
    if name not in SWITCHES and FLAGS[name][1] != "yes|no":
        raise InputError(
            f"{name}: {value} is not a value of {flag(name)}",
            why="only a flag that is on or off takes True or False",
            remedy=f"give it as the command takes it: {flag(name)} {FLAGS[name][1]}",
        )
    return words[not value]
