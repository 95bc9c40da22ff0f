"""Scores of attention: elements, bytes, FLOPs, and what flash attention does not store."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import calculation
from planner.formulas.ops import Num

_SHAPES = "shapes of Q K^T and P V"
_FLASH = "Dao et al. 2022 (arXiv 2205.14135): the output and one log-sum-exp per row are stored, P is not"
_COUNTED = "torch.utils.flop_counter over the reference model, where attention is counted the same way"


@calculation("5.4", "score-elements", "elements of one head's scores, 2048 tokens", source=_SHAPES)
def score_elements(seq: Num = 2048) -> dict[str, Any]:
    """Every token is scored against every token; a causal mask hides half of them and stores them all the same."""
    return {"elements": seq * seq}


@calculation(
    "5.5",
    "attention-backward-flops",
    "the four backward products of one head",
    source=_SHAPES,
    checked_against=_COUNTED,
)
def attention_backward_flops(seq: Num = 512, head_dim: Num = 64) -> dict[str, Any]:
    """Forward has two products, Q K^T and P V; backward two for each of them: dV, dP, dQ, dK. Each is 2 T^2 d."""
    product = 2 * seq * seq * head_dim
    return {"backward_flops": 4 * product, "forward_flops": 2 * product, "ratio": 4 * product / (2 * product)}


@calculation("5.6", "flash-saving", "bytes of stored probabilities over what flash attention stores", source=_FLASH)
def flash_saving(heads: Num = 32, seq: Num = 4096, head_dim: Num = 128, element_bytes: Num = 2) -> dict[str, Any]:
    """P has T entries per token and head; flash attention stores the output's d entries and one statistic, which
    papers count in 2 bytes and kernels keep in 4."""
    stored = heads * seq * seq * element_bytes
    output = heads * seq * head_dim * element_bytes
    return {
        "half_statistics": stored / (output + heads * seq * 2),
        "full_statistics": stored / (output + heads * seq * 4),
    }


@calculation("5.13", "scores-of-a-layer", "score elements and fp32 bytes of one layer, 32 heads", source=_SHAPES)
def scores_of_a_layer(heads: Num = 32, seq: Num = 2048, element_bytes: Num = 4) -> dict[str, Any]:
    """One square of scores per head, for a single sequence."""
    return {"elements": heads * seq * seq, "bytes": heads * seq * seq * element_bytes}
