"""The main fields of the form, in the order of the questions that a planner asks: data, no widget."""

from __future__ import annotations

from typing import NamedTuple

from planner import presets
from planner.config import CPU
from planner.draft import CHECKPOINTING, RECIPE_OF_PRECISION


class Field(NamedTuple):
    """A field of `planner.typed.Typed`: its label, what may be typed, and the names that complete it."""

    name: str
    label: str
    help: str
    known: tuple[str, ...] = ()


def main_fields() -> tuple[Field, ...]:
    """The fields of the form; the names of models and GPUs are read from the presets."""
    return (
        Field("params", "parameters", "Such as 125M or 1.3B: a rule picks the shape; leave the model empty."),
        Field("model", "model", "A preset such as gpt2; leave the parameters empty.", tuple(presets.model_ids())),
        Field("tokens", "training tokens", "Such as 10B: the length of the run."),
        Field("seq", "sequence length", "Tokens per sequence, such as 1024 or 2k."),
        Field("gpu", "GPU", "A preset such as h100-80gb, or cpu for this processor.", (*presets.gpu_ids(), CPU)),
        Field("gpus", "number of GPUs", "Data-parallel replicas."),
        Field("micro_batch", "micro-batch", "Sequences per device in one forward and backward pass."),
        Field("global_batch_tokens", "global batch, tokens", "Tokens of one optimizer step, such as 524288."),
        Field("precision", "precision", "Type of the matrix products.", tuple(RECIPE_OF_PRECISION)),
        Field("activation_checkpointing", "act. checkpointing", "What backward computes again.", CHECKPOINTING),
        Field("peak_lr", "peak learning rate", "Rate at the end of warm-up, such as 6e-4."),
        Field("warmup_steps", "warm-up steps", "Optimizer steps of linear warm-up."),
        Field("price_per_gpu_hour", "USD per GPU-hour", "Your price, such as 2.50; empty: the price list's."),
    )
