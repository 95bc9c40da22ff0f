"""Elements and bytes of a layer's tensors, and the price of computing them again."""

from __future__ import annotations

from typing import Any

from planner.analysis.textbook.register import calculation
from planner.formulas.ops import Num
from planner.formulas.params import block_linear_parameters

_SHAPES = "shapes of a linear layer"
_NUMEL = "numel() of the reference model's tensors"


@calculation(
    "5.1", "weight-gradient-elements", "elements of a weight's gradient", source=_SHAPES, checked_against=_NUMEL
)
def weight_gradient_elements(inputs: Num = 768, outputs: Num = 3072) -> dict[str, Any]:
    """The gradient has the weight's own shape: X^T dY sums over batch and sequence."""
    return {"elements": inputs * outputs}


@calculation("5.2", "block-matrices", "weights of one block's matrices", source=_SHAPES, checked_against=_NUMEL)
def block_matrices(hidden: Num = 768, ffn_factor: Num = 4) -> dict[str, Any]:
    """Attention has four matrices h x h, the MLP two h x 4h: 12 h^2. Biases and norms are left out."""
    count = block_linear_parameters(hidden, hidden, hidden, ffn_factor * hidden, 2)
    return {"elements": count, "over_hidden_squared": count / hidden**2}


@calculation(
    "5.3",
    "saved-input",
    "bytes of a linear layer's input saved in fp32",
    source="autograd keeps the input of a product for the weight's gradient",
    checked_against="saved_tensors_hooks over the reference model",
)
def saved_input(sequences: Num = 32, seq: Num = 512, hidden: Num = 768, element_bytes: Num = 4) -> dict[str, Any]:
    """One element per token and channel, kept from forward to backward."""
    return {"bytes": sequences * seq * hidden * element_bytes}


@calculation("5.7", "half-the-bytes", "activations in 2 bytes in place of 4", source=_SHAPES)
def half_the_bytes(
    tensors_saved: Num = 4,
    sequences: Num = 32,
    seq: Num = 2048,
    hidden: Num = 4096,
    layers: Num = 32,
    element_bytes: Num = 4,
    short_bytes: Num = 2,
) -> dict[str, Any]:
    """Bytes saved per layer and by all layers when these tensors are kept in the shorter type."""
    saved = tensors_saved * sequences * seq * hidden * (element_bytes - short_bytes)
    return {"per_layer": saved, "all_layers": layers * saved}


@calculation(
    "5.11",
    "checkpointing-price",
    "extra FLOPs of full activation checkpointing",
    source="Chen et al. 2016 (arXiv 1604.06174): every block forward once more",
    checked_against="torch.utils.flop_counter over a checkpointed step of the reference model; `gptplan estimate` "
    "counts it exactly: a block's last product is not recomputed",
)
def checkpointing_price(passes: Num = 3) -> dict[str, Any]:
    """A step is one forward and a backward of twice its work; one forward more makes four thirds of it."""
    return {"ratio": (passes + 1) / passes, "share": 1 / passes}
