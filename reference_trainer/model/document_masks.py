"""Document masking: a query attends only to the keys of its own document.

Positions continue through a sequence. Rotary angles and ALiBi's biases depend on distances only, so restarting
positions in each document would change nothing, and a learned table would train its first rows only.
(Restarting alone would not separate documents either: huggingface/nanoVLM#204.)
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from planner.config.model import ModelConfig
from planner.config.run import RunConfig, TrainingConfig
from planner.counts.shape import has_window
from planner.errors import ConfigError
from reference_trainer.model.positions import PositionTables


def needs_dense_mask(training: TrainingConfig) -> bool:
    """Whether document masking needs a dense mask that is added to the scores."""
    return training.document_masking and training.attention_kernel != "flex"


def window_kinds(model: ModelConfig) -> set[bool]:
    """The kinds of blocks: with a sliding window (True), without (False)."""
    return {has_window(model, block) for block in range(model.layers)}


def with_document_masks(tables: PositionTables, documents: Tensor, windows: set[bool]) -> PositionTables:
    """The tables with masks [B, 1 or a, T, T] of this micro-batch: also minus infinity for keys of other documents.

    documents: int64 [B, T]. windows: the kinds of blocks; masks are made for these only.
    """
    assert tables.full is not None, "a table to cut from is made where the config says cut"
    same = tables.windowed is tables.full or tables.windowed is None  # a window as long as the sequence hides nothing
    apart = documents[:, None, :, None] != documents[:, None, None, :]
    full = windowed = None
    if False in windows or same:
        full = tables.full.masked_fill(apart, -math.inf)
    if True in windows:
        windowed = full if same else tables.windowed.masked_fill(apart, -math.inf)  # type: ignore[union-attr]
    return tables._replace(full=full, windowed=windowed)


def with_block_masks(
    tables: PositionTables, documents: Tensor, windows: set[bool], window: int | None
) -> PositionTables:
    """The tables with FlexAttention's block masks, which list the blocks of scores to compute."""
    found = {}
    for windowed in windows:
        rule = visibility_rule(documents, window if windowed else None)
        batch, length = documents.shape
        found[windowed] = _compiled("create_block_mask")(rule, batch, None, length, length, device=documents.device)
    return tables._replace(full_block_mask=found.get(False), windowed_block_mask=found.get(True))


def visibility_rule(documents: Tensor, window: int | None) -> Any:
    """FlexAttention's mask function: whether query i of sequence b attends to key j."""

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (key <= query) & (documents[batch, query] == documents[batch, key])
        return seen if window is None else seen & (key > query - window)

    return sees


def flexible_attention(query: Tensor, key: Tensor, value: Tensor, blocks: Any, scale: float | None) -> Tensor:
    """FlexAttention of [B, a, T, d] queries and [B, k, T, d] keys and values; scale: of the scores, None: 1/sqrt(d)."""
    out: Tensor = _compiled("flex_attention")(
        query, key, value, block_mask=blocks, scale=scale, enable_gqa=key.shape[1] != query.shape[1]
    )
    return out


@cache
def _compiled(name: str) -> Any:
    """Without compilation both would compute all T x T scores, which they exist to avoid."""
    from torch.nn.attention import flex_attention  # 0.3 s, and wanted for this kernel only

    return torch.compile(getattr(flex_attention, name))


def refuse_flex(config: RunConfig, device: torch.device) -> None:
    """Raises ConfigError for FlexAttention on a device other than CUDA."""
    if config.training.attention_kernel == "flex" and device.type != "cuda":
        raise ConfigError(
            f'attention_kernel = "flex" does not run on {device.type}',
            why="PyTorch's FlexAttention has a backward pass on CUDA only",
            remedy='take attention_kernel = "flash", which cuts documents with a mask of all scores',
        )
