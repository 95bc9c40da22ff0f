"""Which attention kernel a GPU runs: the one that the config names, or the one that PyTorch prefers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.config.attention import CUDNN_DROPOUT_PARTS, WITHOUT_SCORES, adds_a_mask
from planner.config.model import ModelConfig
from planner.config.run import TrainingConfig
from planner.counts.shape import has_window
from planner.errors import ConfigError
from planner.formulas.itemsize import FP32
from planner.presets import Gpu, Recipe
from planner.rules import rules

if TYPE_CHECKING:
    from planner.counts.run import Resolved

CUDNN_WIDTH = 128  # widest head of cuDNN's kernel on every card that has it


def gpu_attention(
    model: ModelConfig, training: TrainingConfig, compute_bytes: int, gpu: str | None, masked: bool
) -> str:
    """ "math", "flex", "flash", "efficient" or "cudnn": the kernel of a block's attention on this card.

    compute_bytes: itemsize of queries and keys. masked: whether a mask is added to its scores. gpu: the preset's name.
    Without a mask "flash" stands also for cuDNN's, which PyTorch prefers on some cards: their bytes are counted alike.
    """
    if training.attention_kernel != "flash":
        return training.attention_kernel.removesuffix("-only")
    if compute_bytes < FP32 and not masked:
        return "flash"
    narrow = compute_bytes < FP32 and model.head_dim % 8 == 0 and model.head_dim <= CUDNN_WIDTH
    if narrow and prefers_cudnn(gpu) and training.dropout * CUDNN_DROPOUT_PARTS % 1 == 0:
        return "cudnn"
    return "efficient"


def prefers_cudnn(gpu: str | None) -> bool:
    """Whether PyTorch tries cuDNN's kernel first on this card."""
    return gpu in rules("attention")["cudnn_first"]["gpus"]


def refuse_wide_attention(training: TrainingConfig, recipe: Recipe, gpu: Gpu | None) -> None:
    """Raises ConfigError for a kernel of 16-bit numbers under a recipe of wider ones, on a GPU."""
    if gpu is not None and training.attention_kernel in ("flash-only", "cudnn") and recipe.compute_bytes >= FP32:
        raise ConfigError(
            f'attention_kernel = "{training.attention_kernel}" with the recipe {recipe.id}',
            why="on a GPU this kernel computes in 16 bits only",
            remedy='take attention_kernel = "efficient", or a recipe that computes in bf16 or fp16',
        )


def unknown_speed(training: TrainingConfig, gpu: Gpu) -> str:
    """Why nothing is known of the named kernel's speed on this card; "" if its rate is one that the fit has.

    The rates were fitted to what PyTorch prefers: cuDNN's kernel on some cards, flash on the others.
    """
    kernel = training.attention_kernel
    if kernel not in WITHOUT_SCORES or kernel == "flash":
        return ""
    measured = gpu.id in rules("attention")["efficient_measured"]["gpus"]
    known = {"cudnn": prefers_cudnn(gpu.id), "flash-only": not prefers_cudnn(gpu.id), "efficient": measured}
    return "" if known[kernel] else f'the speed of attention_kernel = "{kernel}" on {gpu.id} was not measured'


def repeats_keys(kernel: str) -> bool:
    """Whether a kernel wants as many key heads as query heads, so that the trainer repeats them before it."""
    return kernel == "efficient"


def repeating_blocks(run: Resolved) -> int:
    """Number of blocks on a GPU that repeat the keys and values of grouped heads for all query heads."""
    model, t = run.config.model, run.config.training
    if run.gpu is None or model.mla is not None or model.kv_heads == model.heads:
        return 0
    every_block = model.position == "alibi" or t.document_masking
    windowed = sum(has_window(model, block) for block in range(run.shape.layers)) if adds_a_mask(model, t) else 0
    masked = run.shape.layers if every_block else windowed
    repeats = {m: repeats_keys(gpu_attention(model, t, run.recipe.compute_bytes, run.gpu.id, m)) for m in (True, False)}
    return masked * repeats[True] + (run.shape.layers - masked) * repeats[False]
