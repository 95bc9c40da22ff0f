"""Position tables, computed once per length: rotary angles, ALiBi's biases, sliding windows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from planner.config.model import ModelConfig
from reference_trainer.model.rotary import local_angles, rotary_angles


class PositionTables(NamedTuple):
    """Tables of one length T; None if the model does not need them.

    cos, sin: fp32 [T, 1, r/2] for r turned channels; local_cos, local_sin: of blocks with a sliding window, where they
    have a base of their own. full, windowed: what is added to the scores of blocks that see
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
    local_cos: Tensor | None = None
    local_sin: Tensor | None = None


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
    local_cos, local_sin = local_angles(model, length, device)
    return PositionTables(cos, sin, full, windowed, local_cos=local_cos, local_sin=local_sin)


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
