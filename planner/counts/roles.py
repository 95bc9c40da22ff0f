"""What each parameter tensor is for: initialisation, weight decay and Muon choose by this, never by name or shape."""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """The purpose of a parameter tensor. The planner's list of tensors and the trainer's layers state it alike."""

    TABLE = "token or position table"
    HEAD = "output head"
    MATRIX = "matrix inside a block"
    RESIDUAL_MATRIX = "matrix whose output is added to the residual stream"
    EXPERTS = "one matrix of every expert, in one tensor"
    RESIDUAL_EXPERTS = "one matrix of every expert, whose outputs are added to the residual stream"
    GAIN = "gain of a norm"
    BIAS = "bias of a norm or a linear layer"

    @property
    def decays(self) -> bool:
        """Weight decay acts on matrices and tables, not on biases and norm gains."""
        return self not in (Role.GAIN, Role.BIAS)

    @property
    def has_muon(self) -> bool:
        """Muon updates the blocks' matrices; AdamW updates tables, head, vectors and experts (Jordan et al. 2024)."""
        return self in (Role.MATRIX, Role.RESIDUAL_MATRIX)

    @property
    def residual_std(self) -> bool:
        """Whether init_residual = "scaled" divides the initial standard deviation by sqrt(2 layers) (GPT-2)."""
        return self in (Role.RESIDUAL_MATRIX, Role.RESIDUAL_EXPERTS)
