"""Which attention kernels a config may name, and where each is refused.

| name | kernel |
|---|---|
| flash | PyTorch's choice among those that store no scores |
| flash-only, efficient, cudnn | this one: flash, memory-efficient (CUTLASS, xFormers), cuDNN's |
| math | written out: scores are stored |
| flex | FlexAttention with a block mask |

Source of the limits: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp and sdp_utils_cpp.cpp of PyTorch 2.13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.config.model import ModelConfig
    from planner.config.run import RunConfig, TrainingConfig

WITHOUT_SCORES = ("flash", "flash-only", "efficient", "cudnn")
CUDA_ONLY = ("efficient", "cudnn")
CUDNN_DROPOUT_PARTS = 16  # cuDNN draws dropout in sixteenths


def adds_a_mask(model: ModelConfig, training: TrainingConfig) -> bool:
    """Whether a mask is added to the scores of some block."""
    window = model.sliding_window or model.attention_chunk
    documents = training.document_masking and training.attention_kernel != "flex"
    return documents or model.position == "alibi" or (window is not None and window < training.seq)


def refuse_attention(config: RunConfig, on_cpu: bool) -> None:
    """Raises ValueError for an attention kernel that the config's device has not, or not for its options."""
    wrong = next(_attention_problems(config, on_cpu), None)
    if wrong is not None:
        raise ValueError(f'attention_kernel = "{config.training.attention_kernel}" {wrong}')


def _attention_problems(config: RunConfig, on_cpu: bool) -> Iterator[str]:
    model, t = config.model, config.training
    if t.attention_kernel == "flex" and model.position == "alibi":
        yield 'beside position = "alibi": its scores get no biases here'
    if on_cpu and t.attention_kernel in CUDA_ONLY:
        yield 'on a CPU: PyTorch has this kernel on CUDA only; take "flash" or "math"'
    if on_cpu and t.attention_kernel == "flash-only" and t.dropout:
        yield 'with dropout on a CPU: its flash kernel drops no weights; take "flash", which is written out there'
    if on_cpu or t.attention_kernel not in ("flash-only", "efficient", "cudnn"):
        return
    if t.attention_kernel == "flash-only" and adds_a_mask(model, t):
        yield 'with a mask (documents, a window or ALiBi) on a GPU: this kernel adds none; take "flash" or "efficient"'
    if t.attention_kernel != "flash-only" and model.head_dim % 8:
        yield f"with head_dim = {model.head_dim}: it reads 8 channels at a time; take a multiple of 8"
    if t.attention_kernel == "cudnn" and t.dropout * CUDNN_DROPOUT_PARTS % 1:
        yield f"with dropout = {t.dropout:g}: it draws sixteenths; take 0, 0.0625 or 0.125"
