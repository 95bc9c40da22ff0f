"""The element types that the trainer's tensors have, by the names that configs and profiles use."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
