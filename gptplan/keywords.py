"""Flags as keywords of Python functions: numbers, True and False become the text that a flag would be."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from os import PathLike, fspath
from typing import TypedDict

from planner.config.options import OPTION, flag
from planner.errors import InputError, UnknownNameError
from planner.inputs.flags import Flags
from planner.inputs.key_names import meant_by_flag
from planner.json_input import LARGEST_WHOLE

KeywordValue = str | int | float | PathLike[str] | None


class Keywords(TypedDict, total=False):
    """The fields of `Flags`; what each means is in `gptplan estimate --help`."""

    params: KeywordValue
    model: KeywordValue
    tokens: KeywordValue
    seq: KeywordValue
    gpu: KeywordValue
    gpus: KeywordValue
    micro_batch: KeywordValue
    global_batch_tokens: KeywordValue
    precision: KeywordValue
    activation_checkpointing: KeywordValue
    peak_lr: KeywordValue
    warmup_steps: KeywordValue
    price_per_gpu_hour: KeywordValue
    hf_config: KeywordValue
    family: KeywordValue
    layers: KeywordValue
    hidden: KeywordValue
    heads: KeywordValue
    kv_heads: KeywordValue
    head_dim: KeywordValue
    ffn: KeywordValue
    vocab: KeywordValue
    pad_vocab: KeywordValue
    position: KeywordValue
    rotary_dim: KeywordValue
    rope_base: KeywordValue
    norm: KeywordValue
    norm_bias: KeywordValue
    norm_eps: KeywordValue
    init_std: KeywordValue
    norm_placement: KeywordValue
    qk_norm: KeywordValue
    mlp: KeywordValue
    biases: KeywordValue
    tied: KeywordValue
    sliding_window: KeywordValue
    experts: KeywordValue
    top_k: KeywordValue
    expert_ffn: KeywordValue
    shared_ffn: KeywordValue
    balancing: KeywordValue
    balancing_rate: KeywordValue
    steps: KeywordValue
    dataset_tokens: KeywordValue
    seed: KeywordValue
    accumulation: KeywordValue
    recipe: KeywordValue
    activation_checkpointing_every: KeywordValue
    runtime: KeywordValue
    attention: KeywordValue
    document_masking: KeywordValue
    loss_kind: KeywordValue
    loss_chunks: KeywordValue
    dropout: KeywordValue
    optimizer: KeywordValue
    optimizer_implementation: KeywordValue
    state_dtype: KeywordValue
    momentum: KeywordValue
    clip_norm: KeywordValue
    clip_value: KeywordValue
    schedule: KeywordValue
    min_lr: KeywordValue
    decay_power: KeywordValue
    warmup_tokens: KeywordValue
    warmup_ratio: KeywordValue
    cooldown_steps: KeywordValue
    cooldown_tokens: KeywordValue
    cooldown_ratio: KeywordValue
    nodes: KeywordValue
    gpus_per_node: KeywordValue
    allocator: KeywordValue
    software: KeywordValue
    tflops: KeywordValue
    mfu: KeywordValue
    tokens_per_second: KeywordValue
    profile: KeywordValue
    write_bandwidth: KeywordValue
    dp: KeywordValue
    fsdp: KeywordValue
    reshard: KeywordValue
    hsdp: KeywordValue
    zero: KeywordValue
    ddp_bucket_view: KeywordValue
    tp: KeywordValue
    sp: KeywordValue
    pp: KeywordValue
    interleave: KeywordValue
    pp_schedule: KeywordValue
    cp: KeywordValue
    ep: KeywordValue
    checkpoint_every: KeywordValue
    keep_checkpoints: KeywordValue
    async_save: KeywordValue
    eval_every: KeywordValue
    eval_tokens: KeywordValue
    patience: KeywordValue
    on_spike: KeywordValue


def flags_of(keywords: Mapping[str, object]) -> Flags:
    """The flags of these keywords. Raises InputError for an unknown keyword, and for a value of another type."""
    for name in keywords:
        if name not in OPTION:
            meant = meant_by_flag(name, lambda option: f"{option.name}=…", "give its path before the keywords")
            raise UnknownNameError("keyword", name, OPTION, meant)
    return Flags(**{name: _text(name, value) for name, value in keywords.items()})


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return _choice(name, value)
    if isinstance(value, Integral):
        if abs(int(value)) >= LARGEST_WHOLE:
            size = f"a whole number of {int(value).bit_length()} bits"
            raise InputError(f"{name}: {size}", why="no count of this field comes near it", remedy="give a smaller one")
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
    kind = OPTION[name].kind
    if kind.parser not in ("switch", "yes or no"):
        raise InputError(
            f"{name}: {value} is not a value of {flag(name)}",
            why="only a flag that is on or off takes True or False",
            remedy=f"give it as the command takes it: {flag(name)} {kind.placeholder}",
        )
    return kind.choices[not value]
