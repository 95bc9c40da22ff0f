"""Position tables, computed once per length: rotary angles, ALiBi's biases, sliding windows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planner.config.model import TRAINED_SCALINGS, ModelConfig, RopeScalingConfig
from planner.errors import ConfigError


class PositionTables(NamedTuple):
    """Tables of one length T; None if the model does not need them.

    cos, sin: fp32 [T, 1, r/2] for r turned channels. full, windowed: what is added to the scores of blocks that see
    every earlier key, and of those with a window: [T, T], or with ALiBi [1, a, T, T], in the compute type;
    where attention is cut at the borders of documents, [B, 1 or a, T, T] of one micro-batch (`borders.py`).
    full_blocks, windowed_blocks: what FlexAttention has in their place.
    """

    cos: Tensor | None = None
    sin: Tensor | None = None
    full: Tensor | None = None
    windowed: Tensor | None = None
    full_block_mask: Any = None
    windowed_block_mask: Any = None


def make_tables(
    model: ModelConfig, length: int, compute: torch.dtype, device: torch.device, cut: bool = False
) -> PositionTables:
    """All that the blocks of `model` need for `length` positions; cut: with a mask to cut documents from."""
    cos, sin = rotary_angles(model, length, device) if model.position == "rotary" else (None, None)
    alibi = alibi_biases(model.heads, length, device) if model.position == "alibi" else None
    full = windowed = None
    if alibi is not None or cut:
        full = score_mask(length, length, device, alibi).to(compute)
    if model.sliding_window is not None:
        windowed = full
        if model.sliding_window < length:  # a wider one hides nothing
            windowed = score_mask(length, model.sliding_window, device, alibi).to(compute)
    return PositionTables(cos, sin, full, windowed)


def rotary_angles(model: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin [T, 1, r/2] in fp32: 4 T r bytes in all (Su et al. 2021, arXiv 2104.09864)."""
    half = model.rope_dim // 2
    speed = model.rope_base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    if model.rope_scaling is not None:
        speed = scaled(speed, model.rope_scaling)
    angle = torch.arange(length, device=device, dtype=torch.float32)[:, None, None] * speed
    return angle.cos(), angle.sin()


def scaled(speed: Tensor, scaling: RopeScalingConfig) -> Tensor:
    """Radians per token for a longer context, as transformers' modeling_rope_utils.py has them.

    linear: all over the factor. llama3 (Llama 3.1): waves of more than original_context / low_freq_factor tokens over
    the factor, those of less than original_context / high_freq_factor as they are, between them a mean of both.
    Raises ConfigError for a kind that the trainer lacks.
    """
    refuse_scaling(scaling)
    if scaling.kind == "linear":
        return speed / scaling.factor
    low, high, original = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_context
    assert low is not None and high is not None and original is not None, "llama3 has all three: the config says so"
    waves = original * speed / (2 * math.pi)  # in the original context
    kept = ((waves - low) / (high - low)).clamp(0, 1)
    return kept * speed + (1 - kept) * speed / scaling.factor


def refuse_scaling(scaling: RopeScalingConfig | None) -> None:
    """Raises ConfigError for a scaling of the rotary angles that the trainer lacks."""
    if scaling is not None and scaling.kind not in TRAINED_SCALINGS:
        raise ConfigError(
            f'the reference trainer does not have rope_scaling.kind = "{scaling.kind}"',
            why="the model would be trained with other rotary angles than the config names",
            remedy="remove [model.rope_scaling], which trains at the original context, or use linear or llama3",
        )


def alibi_slopes(heads: int) -> list[float]:
    """One slope per head (Press et al. 2022, arXiv 2108.12409, section 3): 2^(-8 i/a) for a power of two.

    For other numbers of heads, as in the authors' code, the missing slopes are every other one of twice the power.
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    return slopes + [2 ** (-4 * (2 * i + 1) / power) for i in range(heads - power)]


def alibi_biases(heads: int, length: int, device: torch.device) -> Tensor:
    """-slope * (i - j) for query i and key j: [1, a, T, T] in fp32 (the kernels refuse three dimensions)."""
    place = torch.arange(length, device=device, dtype=torch.float32)
    slopes = torch.tensor(alibi_slopes(heads), device=device)
    return slopes[None, :, None, None] * (place[None, :] - place[:, None])


def score_mask(length: int, window: int, device: torch.device, biases: Tensor | None) -> Tensor:
    """`biases` (or 0) for keys j with i - window < j <= i, minus infinity for all others.

    An additive mask, not a boolean one: attention kernels would convert a boolean mask in each call and save it.
    """
    row, column = torch.arange(length, device=device)[:, None], torch.arange(length, device=device)[None, :]
    hidden = (column > row) | (column <= row - window)
    shown = torch.zeros(length, length, device=device) if biases is None else biases
    return shown.masked_fill(hidden, -math.inf)
