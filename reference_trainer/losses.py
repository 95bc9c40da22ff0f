"""Losses over the vocabulary, in nats, summed over the targets that are not -100."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def soft_capped(logits: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(logits / cap) (Gemma 2, arXiv 2408.00118); the fp32 logits given are overwritten."""
    return logits if cap is None else logits.div_(cap).tanh_() * cap


class SummedCrossEntropy(nn.Module):
    """Cross-entropy of fp32 logits [B, T, V] and targets [B, T]; all logits at once."""

    def __init__(self, softcap: float | None) -> None:
        super().__init__()
        self.softcap = softcap

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        capped = soft_capped(logits, self.softcap).flatten(0, 1)
        total: Tensor = F.cross_entropy(capped, targets.flatten(), reduction="sum")
        return total
