"""Bytes of one element of each type that a computation names itself; what a config chooses comes with its recipe."""

from __future__ import annotations

FP32 = 4
BF16 = 2
INT32 = 4  # where the rows of each expert end
INT64 = 8  # token ids, positions, indices
ITEMSIZES = {"fp32": FP32, "tf32": FP32, "bf16": BF16, "fp16": BF16}  # by the names in configs and recipes
